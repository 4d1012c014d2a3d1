//! What an operator and a monitoring system see of a running file server, on a listener of its own.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

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
    let (registry, phases) = (Data::new(registry), Data::new(phases));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(registry.clone())
            .app_data(phases.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/healthz", web::get().to(health))
    })
    .workers(1)
    .max_connections(256)
    .client_request_timeout(Duration::from_secs(5))
    .shutdown_timeout(1)
    .disable_signals();
    Ok(server.listen(listener)?.run())
}

async fn metrics(registry: Data<Registry>) -> HttpResponse {
    HttpResponse::Ok().content_type(exposition::CONTENT_TYPE).body(exposition::encode(&registry))
}

async fn health(phases: Data<watch::Receiver<Phase>>) -> HttpResponse {
    if *phases.borrow() == Phase::Running {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("draining\n")
    }
}
