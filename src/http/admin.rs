//! What operators and monitoring systems see of either program: a listener of its own, so that no file name is
//! shadowed, and the metrics that both have.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::transport::Connections;
use crate::telemetry::{exposition, panics};

/// Makes the text of all metrics.
type Metrics = dyn Fn() -> String + Send + Sync;

/// Serves `/metrics`, and what `pages` adds, on `listener`.
pub fn serve(
    listener: TcpListener,
    metrics: impl Fn() -> String + Send + Sync + 'static,
    pages: impl Fn(&mut ServiceConfig) + Send + Clone + 'static,
) -> io::Result<Server> {
    let metrics: Arc<Metrics> = Arc::new(metrics);
    let metrics = Data::from(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(metrics.clone())
            .route("/metrics", web::get().to(show_metrics))
            .configure(pages.clone())
    })
    // One scrape now and then; the cap keeps a forgotten poller from holding descriptors that downloads need.
    .workers(1)
    .max_connections(256)
    .client_request_timeout(Duration::from_secs(5))
    .shutdown_timeout(1)
    .disable_signals();
    Ok(server.listen(listener)?.run())
}

async fn show_metrics(metrics: Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type(exposition::CONTENT_TYPE).body(metrics())
}

/// Adds the metrics that both programs have: those of their connections, and the panics of the process.
pub fn register(registry: &mut Registry, connections: Arc<Connections>) {
    registry.register_collector(Box::new(Common { connections }));
}

#[derive(Debug)]
struct Common {
    connections: Arc<Connections>,
}

impl Collector for Common {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let connections = &self.connections;
        for (name, help, value) in [
            ("connections_accepted", "Connections accepted", connections.accepted.load(Relaxed)),
            (
                "connections_refused",
                "Connections beyond a limit; most of them got the 503 page",
                connections.refused.load(Relaxed),
            ),
            (
                "connection_bytes",
                "Bytes written to connections that have ended",
                connections.sent.load(Relaxed),
            ),
            (
                "connections_not_accepted",
                "Attempts to accept a connection that failed for lack of descriptors or memory",
                connections.not_accepted.load(Relaxed),
            ),
            (
                "workers_replaced",
                "HTTP workers that ended unasked and were replaced",
                connections.workers_replaced.load(Relaxed),
            ),
            ("late_heads", "Request heads that did not come in time", connections.late_heads.load(Relaxed)),
            ("bad_heads", "Requests refused before a handler saw them", connections.bad_heads.load(Relaxed)),
            (
                "stalled_readers",
                "Connections cut because the client took too little",
                connections.stalled.load(Relaxed),
            ),
            (
                "panics",
                "Panics of this process, each a fault of fingerpost; the log has them",
                panics::count(),
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let gauge = ConstGauge::new(connections.live() as u64);
        gauge.encode(encoder.encode_descriptor(
            "connections",
            "Connections open",
            None,
            gauge.metric_type(),
        )?)
    }
}
