//! The live page of the balancer, and `status --watch`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::support::fleet::{Balancer, Fleet};
use super::support::http;
use super::support::misbehaving::Script;
use super::support::operated::Operated;
use super::support::program::fingerpost;
use super::support::{DEADLINE, wait_until};

/// A browser that shows the page.
struct Listener {
    stream: BufReader<TcpStream>,
}

impl Listener {
    /// Returns the first line of the answer, too.
    fn open(admin: SocketAddr) -> (Self, String) {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(http::get_request("/page/stream").as_bytes()).unwrap();
        let mut listener = Self { stream: BufReader::new(stream) };
        let status = listener.line();
        (listener, status)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the stream has ended");
        line
    }

    /// Waits for a line with these words.
    fn wait_for(&mut self, words: &[&str]) -> String {
        let begin = Instant::now();
        loop {
            let line = self.line();
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            assert!(begin.elapsed() < DEADLINE, "{words:?} did not arrive");
        }
    }
}

#[test]
fn the_page_shows_each_server_with_its_reason_without_javascript() {
    let peers = [Script::prompt(), Script::status(500)].map(Script::start);
    let (up, down) = (peers[0].authority(), peers[1].authority());
    let list = format!("{up} zone=eu\n{down}\n");
    let balancer = Balancer::start_with(&list, &["--probe-interval", "200ms"]);
    balancer.wait_for_state(&down, "down");
    balancer.redirects(20);
    let page = http::get(balancer.admin_address(), "/");
    let html = page.text();
    for text in [
        format!("data-key=\"http://{up}\""),
        format!("data-key=\"http://{down}\""),
        "class=\"down\">down".to_owned(),
        "500".to_owned(),
        "<noscript><meta http-equiv=\"refresh\"".to_owned(),
        "fingerpost drain HOST:PORT".to_owned(),
    ] {
        assert!(html.contains(&text), "{text} is not in {html}");
    }
    assert!(html.find(&down).unwrap() < html.find(&up).unwrap());
    assert!(html.contains("zone eu"), "{html}");
    wait_until("the event and the path of the redirects", || {
        let html = http::get(balancer.admin_address(), "/").text();
        html.contains("unknown → down") && html.contains("<code>/plshelp.txt</code>")
    });
}

#[test]
fn the_page_loads_only_files_of_its_own_listener() {
    let balancer = Operated::start(&[]);
    let page = http::get(balancer.admin(), "/");
    let policy = page.header("Content-Security-Policy").unwrap();
    for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = page.text();
    assert!(!html.contains(" style=") && !html.contains("<style") && !html.contains(" onclick"), "{html}");
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/live.js", "text/javascript; charset=utf-8"),
    ] {
        let file = http::get(balancer.admin(), path);
        assert_eq!((file.status, file.header("Content-Type")), (200, Some(kind)), "{path}");
        assert_eq!(file.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        assert!(path == "/" || html.contains(&format!("\"{path}\"")), "{path}");
    }
}

#[test]
fn a_killed_server_is_visible_within_three_seconds() {
    let mut fleet = Fleet::start(2);
    let admin = fleet.balancer().admin_address();
    wait_until("ready", || http::get(admin, "/readyz").status == 200);
    let (mut listener, status) = Listener::open(admin);
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    listener.wait_for(&["content-type: text/event-stream"]);
    listener.wait_for(&["event: snapshot"]);
    let killed = fleet.authority(0);
    let snapshot = listener.wait_for(&["data: ", &killed]);
    assert!(snapshot.contains(&fleet.authority(1)), "{snapshot}");
    let begin = Instant::now();
    fleet.kill(0);
    let change = listener.wait_for(&["data: ", "connection refused", &format!("{killed} is ")]);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(change.contains("suspect") || change.contains("down"), "{change}");
}

#[test]
fn an_order_and_an_edit_of_the_list_reach_the_page() {
    let balancer = Operated::start(&[]);
    let (mut listener, _) = Listener::open(balancer.admin());
    listener.wait_for(&["event: snapshot"]);
    balancer.succeed(&["drain", &balancer.name(0), "--note", "<i>new</i> disk"]);
    let change = listener.wait_for(&["data: ", "order: drain"]);
    assert!(change.contains("drain: &lt;i&gt;new&lt;/i&gt; disk") && change.contains("Enable"), "{change}");
    std::fs::write(balancer.folder.path().join("list"), format!("{}\n", balancer.name(1))).unwrap();
    listener.wait_for(&["event: snapshot"]);
    assert!(!listener.wait_for(&["data: "]).contains(&format!("\"http://{}\"", balancer.name(0))));
}

#[test]
fn the_number_of_listeners_is_limited_and_each_end_frees_a_place() {
    let balancer = Operated::start(&[]);
    let mut listeners: Vec<Listener> = Vec::new();
    for _ in 0..32 {
        let (listener, status) = Listener::open(balancer.admin());
        assert_eq!(status, "HTTP/1.1 200 OK\r\n");
        listeners.push(listener);
    }
    let refused = http::get(balancer.admin(), "/page/stream");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("too many browsers"), "{refused:?}");
    wait_until("the metrics", || balancer.metric("fingerpost_page_listeners") == Some(32.0));
    assert_eq!(balancer.metric("fingerpost_page_listeners_refused_total"), Some(1.0));
    assert_eq!(http::get(balancer.admin(), "/").status, 200);
    drop(listeners);
    wait_until("a free place", || balancer.metric("fingerpost_page_listeners") == Some(0.0));
    assert_eq!(Listener::open(balancer.admin()).1, "HTTP/1.1 200 OK\r\n");
}

#[test]
fn status_watch_prints_again_until_it_is_stopped() {
    let mut balancer = Operated::start(&[]);
    let admin = format!("http://{}/", balancer.admin());
    let mut watch = fingerpost();
    let mut watch = watch.args(["status", "--watch", &admin]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(watch.stdout.take().unwrap());
    let mut wait_for = |words: &str| {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "no {words}");
            assert!(!line.contains('\x1b'), "a pipe gets no control characters: {line:?}");
        }
    };
    wait_for("servers: 2");
    balancer.succeed(&["drain", &balancer.name(0)]);
    wait_for("order: drain");
    balancer.program.kill();
    wait_for("No answer, trying again");
    watch.kill().unwrap();
    watch.wait().unwrap();
    let mut lone = fingerpost();
    let failed = lone.args(["status", "--watch", &admin]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
}
