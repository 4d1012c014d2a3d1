use super::*;

const HOSTILE: &str = "<script>alert('\"')</script>{{events}}";

fn backend(address: &str, state: &str, reason: &str) -> BackendStatus {
    let status = serde_json::json!({
        "address": address, "state": state, "reason": reason, "since": "2026-01-01T00:00:00Z", "traffic": "yes",
        "share": 0.25, "redirects": 7, "load_report": "none", "weight": 1, "tier": 0, "response_ms": 1.25,
    });
    serde_json::from_value(status).unwrap()
}

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-01-01T00:03:10Z").unwrap()
}

fn page(backends: Vec<BackendStatus>, events: &[BackendEvent], files: &[&str]) -> String {
    let figures = BackendFigures { rate: 1.0, ..BackendFigures::default() };
    let (mode, warnings) = ("normal".to_owned(), vec![HOSTILE.to_owned()]);
    let report = StatusReport {
        mode,
        generation: 1,
        table_age_seconds: 0.0,
        warnings,
        last_reload: None,
        sources: Vec::new(),
        backends,
    };
    let rows =
        report.backends.iter().map(|backend| BackendRow::new(backend, &figures, 4.0, false, now())).collect();
    let count = DownloadCount { downloads: 3, bytes: 1500 };
    let files = files.iter().map(|name| StatisticsRow { name: (*name).to_owned(), count }).collect();
    let files = TopFiles { all: 4, is_sampled: false, files };
    let parts = parts(&report, None, 0, &FleetFigures::default(), events, &files);
    PageView { rows, parts }.document()
}

#[test]
fn a_row_shows_state_age_reason_latency_and_share() {
    let html = page(vec![backend("http://a:1", "up", "answers")], &[], &[]);
    for text in ["http://a:1/", ">up<", ">3 min<", "answers", "1.2 ms", "25.0 %", "1<small> of 1", "/readyz"]
    {
        assert!(html.contains(text), "{text} is not in {html}");
    }
}

#[test]
fn text_from_outside_is_escaped_and_is_never_a_placeholder() {
    let hostile = || HOSTILE.to_owned();
    let order = StandingOrder {
        effect: orders::Override::Drain,
        note: hostile(),
        until: None,
        given_at: now(),
        given_by: hostile(),
    };
    let mut backend = backend(HOSTILE, HOSTILE, HOSTILE);
    (backend.traffic, backend.zone, backend.orders) = (hostile(), Some(hostile()), vec![order]);
    let event = |change| BackendEvent {
        backend: hostile(),
        event: crate::balancer::history::HistoryEvent { time: now(), change, cause: hostile() },
    };
    let events = [event(Change::Orders { orders: hostile() })];
    let html = page(vec![backend], &events, &[HOSTILE]);
    assert!(html.contains(">3 · 1.5 kB · 75.0 %<"), "{html}");
    assert!(!html.contains("<script>"), "{html}");
    assert!(html.matches("&lt;script&gt;alert(&#39;&quot;").count() > 10, "{html}");
    assert_eq!(html.matches("{{events}}").count(), html.matches("&lt;script&gt;").count(), "{html}");
}

#[test]
fn the_balancers_of_a_fleet_are_listed() {
    let balancer = serde_json::json!({
        "name": HOSTILE, "zone": HOSTILE, "version": HOSTILE, "age_seconds": 1.25, "list": HOSTILE, "has_orders": false,
        "standing": "set aside",
    });
    let fleet = serde_json::json!({
        "name": "a", "engine": "up", "view": HOSTILE, "shares_probes": true, "orders": "applied on 1 of 2",
        "balancers": [balancer], "disagreements": [],
    });
    let html = balancer_list(&serde_json::from_value(fleet).unwrap());
    assert!(html.contains("applied on 1 of 2") && html.contains(">set aside<"), "{html}");
    assert!(!html.contains("<script>"), "{html}");
}

#[test]
fn faults_are_at_the_top_and_an_empty_list_is_explained() {
    let rows = vec![backend("http://a:1", "up", ""), backend("http://b:1", "down", "")];
    let html = page(rows, &[], &[]);
    assert!(html.find("http://b:1").unwrap() < html.find("http://a:1").unwrap());
    assert!(page(Vec::new(), &[], &[]).contains("no server"));
}

#[test]
fn a_screen_reader_hears_of_a_few_changes_only() {
    let change =
        Change::State { from: crate::balancer::health::State::Up, to: crate::balancer::health::State::Down };
    let event = crate::balancer::history::HistoryEvent { time: now(), change, cause: "refused".to_owned() };
    let event = BackendEvent { backend: "http://a:1".to_owned(), event };
    assert_eq!(announcement(&[]), "");
    assert_eq!(announcement(&[&event]), "http://a:1 is down: refused");
    assert!(announcement(&[&event; 1000]).ends_with("refused; 997 more changes"));
}
