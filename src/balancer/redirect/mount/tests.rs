use std::net::TcpListener;

use actix_web::{App, test, web};

use crate::balancer::Balancer;

/// A backend that never accepts a connection: it is unknown, and used, until its first probe times out.
fn silent_backend() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[actix_web::test]
async fn below_a_scope_the_undecoded_prefix_is_removed() {
    let (_listener, address) = silent_backend();
    let balancer = Balancer::builder().backend(&address).start().unwrap();
    let redirects = balancer.redirects().strip_prefix("/dl/");
    let app = test::init_service(
        App::new().service(web::scope("/dl").service(redirects)).route("/own", web::get().to(async || "own")),
    )
    .await;
    for (uri, status, location) in [
        ("/dl/a%20b/c?x=%2e", 301, Some("/a%20b/c?x=%2e")),
        ("/dl/", 301, Some("/")),
        ("/dl", 301, Some("/")),
        ("/dl?x", 301, Some("/?x")),
        ("/dl/dl/x", 301, Some("/dl/x")),
        ("/dl//evil.example", 400, None),
        ("/dl/../x", 400, None),
        ("/%64l/x", 404, None),
        ("/dlx", 404, None),
        ("/own", 200, None),
    ] {
        let answer = test::call_service(&app, test::TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(answer.status(), status, "{uri}");
        let found = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(found, location.map(|target| format!("http://{address}{target}")), "{uri}");
    }
    let request = test::TestRequest::post().uri("/dl/x").to_request();
    assert_eq!(test::call_service(&app, request).await.status(), 501);
}

#[actix_web::test]
async fn the_balancer_runs_until_the_last_service_is_dropped_and_unsubscribes_its_workers() {
    let (_listener, address) = silent_backend();
    let balancer = Balancer::builder().backend(&address).start().unwrap();
    let publisher = std::sync::Arc::clone(&balancer.0.publisher);
    let redirects = balancer.redirects();
    let [one, other] = [redirects.start_worker(), redirects.start_worker()];
    assert_eq!(publisher.workers(), 2);
    let counted = |worker: &super::RedirectService| worker.counters.answered(301);
    counted(&one);
    counted(&other);
    drop((one, balancer));
    // The counters of a worker that has ended are reused.
    let third = redirects.start_worker();
    counted(&third);
    assert!(third.shared.metrics.encode().contains("fingerpost_answers_total{status=\"301\"} 3\n"));
    while publisher.workers() > 2 {
        actix_rt::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
