//! Metrics and health of a running file server, on a listener of their own.

use std::net::TcpListener;

use actix_web::HttpResponse;
use actix_web::dev::Server;
use actix_web::web::Data;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::http;
use crate::http::stop::Phase;
use crate::telemetry::exposition;

/// Serves the admin pages on `listener`.
///
/// - `/metrics`: the metrics, as Prometheus reads them
/// - `/healthz`: 200 while new downloads are welcome, 503 once the server drains
pub fn serve(
    listener: TcpListener,
    registry: Registry,
    phases: watch::Receiver<Phase>,
) -> std::io::Result<Server> {
    let phases = Data::new(phases);
    let metrics = move || exposition::encode(&registry);
    http::admin::serve(listener, metrics, move |pages| {
        pages.app_data(phases.clone()).route("/healthz", http::admin::page_route().to(health));
    })
}

async fn health(phases: Data<watch::Receiver<Phase>>) -> HttpResponse {
    if *phases.borrow() == Phase::Running {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("draining\n")
    }
}
