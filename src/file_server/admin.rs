//! What an operator and a monitoring system see of a running file server, on a listener of its own.

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
/// - `GET /metrics`: the metrics, as Prometheus reads them
/// - `GET /healthz`: 200 as long as new downloads are welcome, 503 once the server drains
pub fn serve(
    listener: TcpListener,
    registry: Registry,
    phases: watch::Receiver<Phase>,
) -> std::io::Result<Server> {
    let phases = Data::new(phases);
    let metrics = move || exposition::encode(&registry);
    http::admin::serve(listener, metrics, move |pages| {
        pages.app_data(phases.clone()).route("/healthz", http::admin::read().to(health));
    })
}

async fn health(phases: Data<watch::Receiver<Phase>>) -> HttpResponse {
    if *phases.borrow() == Phase::Running {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("draining\n")
    }
}
