//! The servers that are compared, each set up to send a client to one of three backends.

use std::fs;
use std::io;
use std::path::Path;

use super::process::{self, Process};
use super::{LOAD_CORE, SERVER_CORE, canned_server};

/// How many backends the larger list of fingerpost has.
const MANY_BACKENDS: usize = 10_000;

/// A server that runs and has answered.
pub struct Contender {
    pub name: &'static str,
    pub port: u16,
    pub process: Process,
    /// What its backends run in, if it has its own.
    _backends: Option<Process>,
}

/// Starts everything that is installed. What is not, is named on standard error.
pub fn start_all(folder: &Path, target: &str) -> io::Result<Vec<Contender>> {
    let mut contenders = vec![
        fingerpost("fingerpost, 10 backends", 10, folder)?,
        fingerpost("fingerpost, 10 000 backends", MANY_BACKENDS, folder)?,
        floor(folder, target)?,
    ];
    for (program, start) in [
        ("nginx", nginx as fn(&Path) -> io::Result<Contender>),
        ("haproxy", haproxy_redirect),
        ("haproxy", haproxy_redir),
        ("caddy", caddy),
    ] {
        if process::is_installed(program) {
            contenders.push(start(folder)?);
        } else {
            eprintln!("left out: {program} is not installed");
        }
    }
    for contender in &contenders {
        let answer = process::first_answer(contender.port, target)?;
        assert!(answer.starts_with(b"HTTP/1.1 30"), "{}: {}", contender.name, answer.escape_ascii());
    }
    // The floor writes what the first contender answers, less the end of the connection that was asked for.
    Ok(contenders)
}

fn fingerpost(name: &'static str, backends: usize, folder: &Path) -> io::Result<Contender> {
    let page = folder.join("backend-answer");
    fs::write(&page, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")?;
    let servers = canned_server(LOAD_CORE, &page)?;
    let list = folder.join(format!("list-{backends}.txt"));
    let lines: Vec<_> = (0..backends)
        .map(|number| format!("127.1.{}.{}:{}", number / 200, number % 200 + 1, servers.port()))
        .collect();
    fs::write(&list, lines.join("\n"))?;
    let process = Process::with_first_line(
        SERVER_CORE,
        env!("CARGO_BIN_EXE_fingerpost"),
        &[
            "balancer",
            "--host",
            "127.0.0.1",
            "--workers",
            "1",
            "--log-level",
            "error",
            "--servers",
            text(&list),
        ],
    )?;
    Ok(Contender { name, port: process.port(), process, _backends: Some(servers) })
}

fn floor(folder: &Path, target: &str) -> io::Result<Contender> {
    let model = fingerpost("model", 10, folder)?;
    let answer = process::first_answer(model.port, target)?;
    let answer = String::from_utf8_lossy(&answer)
        .replace("Connection: close\r\n", "")
        .replace("connection: close\r\n", "");
    let file = folder.join("floor-answer");
    fs::write(&file, answer)?;
    let process = canned_server(SERVER_CORE, &file)?;
    Ok(Contender { name: "floor", port: process.port(), process, _backends: None })
}

fn nginx(folder: &Path) -> io::Result<Contender> {
    let port = process::free_port()?;
    let file = folder.join("nginx.conf");
    let folder = folder.display();
    fs::write(
        &file,
        format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
             events {{ worker_connections 4096; }}
             http {{
                 access_log off; keepalive_requests 1000000000; server_tokens off;
                 client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
                 fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
                 scgi_temp_path {folder}/nginx-scgi;
                 split_clients \"$connection-$connection_requests\" $backend {{ 33% 127.1.0.1:8081; 33% 127.1.0.2:8081; * 127.1.0.3:8081; }}
                 server {{
                     listen 127.0.0.1:{port};
                     location / {{
                         add_header Cache-Control no-store always;
                         return 301 http://$backend$request_uri;
                     }}
                 }}
             }}"
        ),
    )?;
    start("nginx return 301", port, "nginx", &["-c", text(&file)])
}

fn haproxy_redirect(folder: &Path) -> io::Result<Contender> {
    let port = process::free_port()?;
    let map = folder.join("haproxy.map");
    fs::write(&map, "0 127.1.0.1:8081\n1 127.1.0.2:8081\n2 127.1.0.3:8081\n")?;
    let configuration = format!(
        "frontend redirects
             bind 127.0.0.1:{port}
             http-request set-var(txn.backend) rand(3),map_int({map},127.1.0.1:8081)
             http-request redirect code 301 location http://%[var(txn.backend)]%[pathq]
             http-after-response set-header Cache-Control no-store\n",
        map = map.display()
    );
    haproxy("HAProxy http-request redirect", port, folder, &configuration)
}

fn haproxy_redir(folder: &Path) -> io::Result<Contender> {
    let port = process::free_port()?;
    let configuration = format!(
        "frontend redirects
             bind 127.0.0.1:{port}
             default_backend servers
         backend servers
             balance random
             server s1 127.1.0.1:8081 redir http://127.1.0.1:8081
             server s2 127.1.0.2:8081 redir http://127.1.0.2:8081
             server s3 127.1.0.3:8081 redir http://127.1.0.3:8081\n"
    );
    haproxy("HAProxy server redir", port, folder, &configuration)
}

fn haproxy(name: &'static str, port: u16, folder: &Path, configuration: &str) -> io::Result<Contender> {
    let file = folder.join(format!("haproxy-{port}.cfg"));
    fs::write(
        &file,
        format!(
            "global
                 nbthread 1
                 maxconn 4096
             defaults
                 mode http
                 timeout client 60s
                 timeout connect 5s
                 timeout server 60s
             {configuration}"
        ),
    )?;
    start(name, port, "haproxy", &["-db", "-f", text(&file)])
}

fn caddy(folder: &Path) -> io::Result<Contender> {
    let port = process::free_port()?;
    let file = folder.join("Caddyfile");
    // Caddy has no random choice of its own; it always names the same backend.
    fs::write(
        &file,
        format!(
            "{{\n admin off\n auto_https off\n persist_config off\n}}\nhttp://127.0.0.1:{port} {{\n header Cache-Control no-store\n redir http://127.1.0.1:8081{{uri}} 301\n}}\n"
        ),
    )?;
    start("Caddy redir", port, "caddy", &["run", "--adapter", "caddyfile", "--config", text(&file)])
}

fn start(name: &'static str, port: u16, program: &str, arguments: &[&str]) -> io::Result<Contender> {
    let process = Process::start(SERVER_CORE, program, arguments)?;
    Ok(Contender { name, port, process, _backends: None })
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
