//! The servers under comparison, each configured to redirect a client to one of three backends.

use std::fs;
use std::io;
use std::path::Path;

use super::balancer::{self, Balancer};
use super::process::{self, Process, text};
use super::{SERVER_CORE, TARGET};

/// A server of the comparison.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    /// Its program; `None` for fingerpost.
    program: Option<&'static str>,
    start: Start,
}

/// Starts a server with its files in a folder.
type Start = Box<dyn Fn(&Path) -> io::Result<Running>>;

/// A server that runs.
pub struct Running {
    /// The address of the redirects.
    pub port: u16,
    /// The measured process.
    pub process: Process,
    /// The process of its backends, if it has any.
    _backends: Option<Process>,
}

/// The build of fingerpost under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_fingerpost");

/// The name of the server with which the others are compared.
pub const FLOOR: &str = "floor";
/// The peers of the columns with ratios.
pub const PEERS: [&str; 2] = ["nginx return 301", "HAProxy http-request redirect"];

/// The installed servers; the others are named on standard error. `baseline` is another build of fingerpost.
pub fn all(baseline: Option<&str>) -> Vec<Contender> {
    let own = |name, program: String, backends| Contender {
        name,
        program: None,
        start: Box::new(move |folder| fingerpost(&program, backends, folder)),
    };
    let other = |name, program, start: fn(&Path) -> io::Result<Running>| Contender {
        name,
        program: Some(program),
        start: Box::new(start),
    };
    let this = || PROGRAM.to_owned();
    let mut contenders = vec![
        own("fingerpost, 10 backends", this(), 10),
        own("fingerpost, 10 000 backends", this(), 10_000),
        Contender { name: FLOOR, program: None, start: Box::new(floor) },
        other("nginx return 301", "nginx", nginx),
        other("HAProxy http-request redirect", "haproxy", haproxy_redirect),
        other("HAProxy server redir", "haproxy", haproxy_redir),
        other("Caddy redir", "caddy", caddy),
    ];
    if let Some(baseline) = baseline {
        contenders.push(own("baseline, 10 backends", baseline.to_owned(), 10));
    }
    contenders.retain(|contender| {
        let is_installed = contender.program.is_none_or(process::is_installed);
        if !is_installed {
            eprintln!("left out: {}, since it is not installed", contender.name);
        }
        is_installed
    });
    contenders
}

impl Contender {
    /// Starts it with its files in `folder`, and waits for a redirect.
    pub fn start(&self, folder: &Path) -> io::Result<Running> {
        let running = (self.start)(folder)?;
        let answer = process::first_answer(running.port, TARGET)?;
        assert!(answer.starts_with(b"HTTP/1.1 30"), "{}: {}", self.name, answer.escape_ascii());
        Ok(running)
    }
}

fn fingerpost(program: &str, backends: usize, folder: &Path) -> io::Result<Running> {
    let (servers, servers_port) = balancer::backend(folder)?;
    // A balancer follows its list, so each needs its own file.
    let list = folder.join(format!("list-{servers_port}.txt"));
    fs::write(&list, balancer::list(backends, servers_port))?;
    let Balancer { process, port, .. } = Balancer::start_program(program, &list, &["--workers", "1"])?;
    Ok(Running { port, process, _backends: Some(servers) })
}

/// Answers with the same bytes as fingerpost.
fn floor(folder: &Path) -> io::Result<Running> {
    let model = fingerpost(PROGRAM, 10, folder)?;
    let answer = process::first_answer(model.port, TARGET)?;
    let file = folder.join("floor-answer");
    fs::write(&file, answer)?;
    let (process, port) = process::canned_server(SERVER_CORE, &file)?;
    Ok(Running { port, process, _backends: None })
}

fn nginx(folder: &Path) -> io::Result<Running> {
    let port = process::free_port()?;
    let file = folder.join("nginx.conf");
    let folder = folder.display();
    fs::write(
        &file,
        format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit; worker_rlimit_nofile 20000;
             events {{ worker_connections 8192; }}
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
    start(port, "nginx", &["-c", text(&file)])
}

fn haproxy_redirect(folder: &Path) -> io::Result<Running> {
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
    haproxy(port, folder, &configuration)
}

fn haproxy_redir(folder: &Path) -> io::Result<Running> {
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
    haproxy(port, folder, &configuration)
}

fn haproxy(port: u16, folder: &Path, configuration: &str) -> io::Result<Running> {
    let file = folder.join(format!("haproxy-{port}.cfg"));
    fs::write(
        &file,
        format!(
            "global
                 nbthread 1
                 maxconn 8192
             defaults
                 mode http
                 timeout client 60s
                 timeout connect 5s
                 timeout server 60s
             {configuration}"
        ),
    )?;
    start(port, "haproxy", &["-db", "-f", text(&file)])
}

fn caddy(folder: &Path) -> io::Result<Running> {
    let port = process::free_port()?;
    let file = folder.join("Caddyfile");
    // Caddy has no random choice of its own; it always names the same backend.
    fs::write(
        &file,
        format!(
            "{{\n admin off\n auto_https off\n}}\nhttp://:{port} {{\n bind 127.0.0.1\n header Cache-Control no-store\n redir http://127.1.0.1:8081{{uri}} 301\n}}\n"
        ),
    )?;
    start(port, "caddy", &["run", "--adapter", "caddyfile", "--config", text(&file)])
}

fn start(port: u16, program: &str, arguments: &[&str]) -> io::Result<Running> {
    let process = Process::start(SERVER_CORE, program, arguments)?;
    Ok(Running { port, process, _backends: None })
}
