//! Metrics and health of a running file server, on a separate listener.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::dev::Server;
use actix_web::web::Data;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::http;
use crate::http::stop::Phase;
use crate::telemetry::exposition;

/// Serves the admin pages on `listener`.
///
/// - `GET /`: a page with the state and links, for people
/// - `GET /metrics`: the metrics in the text format of Prometheus
/// - `GET /healthz`: 200 while the server accepts downloads, 503 once it drains
pub(super) fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    registry: Registry,
    phases: watch::Receiver<Phase>,
) -> std::io::Result<Server> {
    let phases = Data::new(phases);
    let metrics = move || exposition::encode(&registry);
    http::admin::serve(listener, tls, metrics, move |pages| {
        pages
            .app_data(phases.clone())
            .route("/", http::admin::page_route().to(status_page))
            .route("/healthz", http::admin::page_route().to(health));
    })
}

async fn status_page(phases: Data<watch::Receiver<Phase>>) -> HttpResponse {
    let state = match *phases.borrow() {
        Phase::Running => "The server accepts downloads.",
        _ => "The server drains: it finishes downloads and then stops.",
    };
    let content = format!(
        "<p>{state}</p>\n<p><a href=\"/metrics\">/metrics</a> for Prometheus, \
         <a href=\"/healthz\">/healthz</a> for health checks.</p>\n"
    );
    http::admin::page("file server", "a{color:inherit}", &content)
}

async fn health(phases: Data<watch::Receiver<Phase>>) -> HttpResponse {
    if *phases.borrow() == Phase::Running {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("draining\n")
    }
}
