//! The admin listener of both programs, and the metrics that both have. It is a separate listener, so that its pages
//! hide no file.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use actix_http::HttpService;
use actix_service::map_config;
use actix_web::dev::{AppConfig, Server, ServerHandle};
use actix_web::http::header;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, Route, guard};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::certificates::Certificates;
use super::https::Https;
use super::pages::{Dress, dress};
use super::stop::Phase;
use super::transport::Connections;
use crate::settings::reload::ReloadRecord;
use crate::telemetry::{exposition, metric, panics};

/// Returns the text of all metrics.
type Metrics = dyn Fn() -> String + Send + Sync;

/// The longest time in which a client of the pages may read nothing of its answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The limit of connections. Scrapes are rare. It prevents a forgotten poller from using descriptors that downloads need.
const MOST_CONNECTIONS: usize = 256;

/// The time for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `/metrics` and the pages that `pages` adds on `listener`, over TLS if there is a configuration for it.
pub(crate) fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    metrics: impl Fn() -> String + Send + Sync + 'static,
    pages: impl Fn(&mut ServiceConfig) + Send + Clone + 'static,
) -> io::Result<Server> {
    let metrics: Arc<Metrics> = Arc::new(metrics);
    let metrics = Data::from(metrics);
    let app = move || {
        App::new()
            .app_data(metrics.clone())
            .route("/metrics", page_route().to(show_metrics))
            .configure(pages.clone())
    };
    // A client that does not read would keep its connection and the unsent answer. Accepted connections inherit the option;
    // without it, TCP gives up later.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&listener, SEND_TIMEOUT.as_millis() as u32);
    let Some(tls) = tls else {
        let server = HttpServer::new(app)
            .workers(1)
            .max_connections(MOST_CONNECTIONS)
            .client_request_timeout(REQUEST_TIMEOUT)
            .shutdown_timeout(1)
            .disable_signals();
        return Ok(server.listen(listener)?.run());
    };
    // `HttpServer` would offer HTTP/2 over TLS.
    let server = Server::build()
        .workers(1)
        .max_concurrent_connections(MOST_CONNECTIONS)
        .shutdown_timeout(1)
        .disable_signals()
        .listen("admin", listener, move || {
            HttpService::build()
                .client_request_timeout(REQUEST_TIMEOUT)
                .h1(map_config(app(), |()| AppConfig::default()))
                .rustls_0_23(ServerConfig::clone(&tls))
        })?;
    Ok(server.run())
}

/// Closes an admin listener once another process accepts its connections.
pub(crate) async fn close_after_hand_over(server: ServerHandle, mut phases: watch::Receiver<Phase>) {
    if phases.wait_for(|phase| *phase == Phase::HandedOver).await.is_ok() {
        server.stop(true).await;
    }
}

/// The route of a page that a browser may request with GET or HEAD.
pub(crate) fn page_route() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A page of `program` for people, with links and style only: no scripts and no requests to other hosts. A browser
/// reloads it every five seconds. `content` is HTML; text from outside must be escaped.
pub(crate) fn page(program: &str, style: &str, content: &str) -> HttpResponse {
    let title = format!("fingerpost {program}");
    let heading = format!("<b>fingerpost</b> {program}");
    let page =
        Dress { title: title.as_bytes(), style, heading: heading.as_bytes(), content: content.as_bytes() };
    let html = dress(&page);
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, content_security_policy(&html)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("Refresh", "5"))
        .body(html)
}

/// A policy that allows the style of a page, by its digest, and nothing else.
fn content_security_policy(html: &[u8]) -> String {
    let (start, end) = ("<style>", "</style>");
    let style = memmem::find(html, start.as_bytes()).and_then(|found| {
        let rest = html.get(found + start.len()..)?;
        rest.get(..memmem::find(rest, end.as_bytes())?)
    });
    let digest = STANDARD.encode(Sha256::digest(style.unwrap_or_default()));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

async fn show_metrics(metrics: Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type(exposition::CONTENT_TYPE).body(metrics())
}

/// Registers the metrics that both programs have: those of their connections, and the panics of the process.
pub(crate) fn register(
    registry: &mut Registry,
    connections: Arc<Connections>,
    https: Option<&Https>,
    reloads: Arc<ReloadRecord>,
) {
    let certificates = https.map(Https::certificates);
    registry.register_collector(Box::new(Common { connections, certificates, reloads }));
}

#[derive(Debug)]
struct Common {
    connections: Arc<Connections>,
    certificates: Option<Arc<Certificates>>,
    reloads: Arc<ReloadRecord>,
}

impl Collector for Common {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let connections = &self.connections;
        for (name, help, count) in [
            ("connections_accepted", "Connections accepted", &connections.accepted),
            (
                "connections_refused",
                "Connections beyond a limit; they got the 503 page",
                &connections.refused,
            ),
            ("connection_bytes", "Bytes written to connections that have ended", &connections.sent),
            (
                "connections_not_accepted",
                "Attempts to accept a connection that failed for lack of descriptors or memory",
                &connections.not_accepted,
            ),
            (
                "workers_replaced",
                "HTTP workers that ended unexpectedly and were replaced",
                &connections.workers_replaced,
            ),
            ("late_heads", "Request heads that were incomplete at their deadline", &connections.late_heads),
            ("bad_heads", "Requests refused before they reached a handler", &connections.bad_heads),
            (
                "stalled_readers",
                "Connections closed because the client read too slowly",
                &connections.stalled,
            ),
        ] {
            metric::counter(&mut encoder, name, help, count.load(Relaxed))?;
        }
        let help = "Panics of this process, each a bug in fingerpost; the log has the details";
        metric::counter(&mut encoder, "panics", help, panics::count())?;
        if let Some(certificates) = &self.certificates {
            encode_https(certificates, connections, &mut encoder)?;
        }
        let results = [("applied", &self.reloads.applied), ("rejected", &self.reloads.rejected)];
        let results = results.into_iter();
        let results =
            results.map(|(result, count)| ([("result", result)], ConstCounter::new(count.load(Relaxed))));
        let help = "Times that the configuration was read again, by result";
        metric::family(&mut encoder, "configuration_reloads", help, results)?;
        let is_rejected = self.reloads.last().is_some_and(|last| !last.applied);
        let help =
            "1 if the last reading of the configuration was rejected, so that an older one is in force";
        metric::gauge(&mut encoder, "configuration_rejected", help, u64::from(is_rejected))?;
        metric::gauge(&mut encoder, "connections", "Open connections", connections.live() as u64)
    }
}

/// Encodes the metrics of a program with HTTPS.
fn encode_https(
    certificates: &Certificates,
    connections: &Connections,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    for (name, help, value) in [
        ("tls_handshakes", "TLS handshakes completed", &connections.handshakes),
        ("tls_handshakes_resumed", "Those that resumed a session", &connections.handshakes_resumed),
        ("tls_handshakes_failed", "TLS handshakes started and not completed", &connections.handshakes_failed),
        ("certificate_reloads", "Changes of certificates that took effect", &certificates.reloads),
        (
            "certificate_reloads_refused",
            "Changes of certificates that were not usable",
            &certificates.refused,
        ),
    ] {
        metric::counter(encoder, name, help, value.load(Relaxed))?;
    }
    let ends = certificates.ends().into_iter();
    let seconds = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let ends = ends.map(|(file, end)| ([("certificate", file)], ConstGauge::new(seconds(end))));
    let help = "The end of the validity of each certificate, in seconds since 1970";
    metric::family(encoder, "certificate_end_timestamp_seconds", help, ends)
}
