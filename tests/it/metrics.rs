//! The admin pages of the balancer for monitoring systems.

use super::support::fleet::Balancer;
use super::support::http;
use super::support::misbehaving::{FileServer, Script};
use super::support::wait_until;

/// The samples of a metric, each with its labels.
fn samples(text: &str, name: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).map(str::to_owned).collect()
}

#[test]
fn each_server_has_metrics_of_its_own_up_to_a_limit() {
    let peers = [Script::prompt(), Script::status(500), Script::prompt()].map(Script::start);
    let list = peers.each_ref().map(FileServer::authority).join("\n");
    let balancer =
        Balancer::start_with_keys(&list, &[("METRICS_BACKENDS", "2"), ("PROBE_INTERVAL", "200ms")]);
    balancer.wait_for_state(&peers[0].authority(), "up");
    balancer.wait_for_state(&peers[1].authority(), "down");
    balancer.redirects(20);
    let [up, down] = [0, 1].map(|peer: usize| format!("backend=\"http://{}\"", peers[peer].authority()));
    let value = |name: &str| balancer.metric(name);
    wait_until("the metrics of the state", || {
        value(&format!("fingerpost_backend_state{{{down},state=\"down\"}}")) == Some(1.0)
    });
    assert_eq!(value(&format!("fingerpost_backend_state{{{up},state=\"up\"}}")), Some(1.0));
    assert_eq!(value(&format!("fingerpost_backend_state{{{up},state=\"down\"}}")), Some(0.0));
    assert!(value(&format!("fingerpost_backend_response_seconds{{{up}}}")).unwrap() > 0.0);
    assert!(value(&format!("fingerpost_redirects_total{{{up}}}")).unwrap() > 0.0);
    assert_eq!(value(&format!("fingerpost_redirects_total{{{down}}}")), Some(0.0));
    assert!(value("fingerpost_probes_total{outcome=\"status\"}").unwrap() >= 1.0);
    assert_eq!(value("fingerpost_probes_total{outcome=\"timed_out\"}"), Some(0.0));

    let text = http::get(balancer.admin_address(), "/metrics").text();
    for (name, count) in [
        ("fingerpost_backend_state", 8),
        ("fingerpost_backend_requests_in_flight", 2),
        ("fingerpost_redirects_total", 2),
        // A server that never answered has no response time.
        ("fingerpost_backend_response_seconds", 1),
    ] {
        assert_eq!(samples(&text, name).len(), count, "{name}: {text}");
    }
}

#[test]
fn every_admin_page_answers_head_as_it_answers_get() {
    let peer = Script::prompt().start();
    let balancer = Balancer::start(&peer.authority());
    let admin = balancer.admin_address();
    wait_until("the balancer to be ready", || http::get(admin, "/readyz").status == 200);
    for page in ["/healthz", "/readyz", "/metrics", "/api/v1/backends"] {
        let mut connection = http::Connection::open(admin).unwrap();
        connection.send(format!("HEAD {page} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
        let head = connection.answer(http::Expect::HeadOnly).unwrap();
        // Nothing of a body is left on the connection.
        let get = connection.get(page).unwrap();
        assert_eq!((head.status, head.header("Content-Type")), (200, get.header("Content-Type")), "{page}");
    }
    assert_eq!(
        http::request(admin, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status,
        404
    );
}
