//! The pages of a running balancer for operators and monitoring. They have their own listener, because their paths could
//! be names of files for clients.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};

use crate::balancer::backends::Backend;
use crate::balancer::health::OwnView;
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::redirect::BalancerState;
use crate::http;
use crate::http::admin::page_route;
use crate::http::https::Https;
use crate::http::stop::Phase;
use crate::http::transport::Connections;
use crate::settings::reload::ReloadReport;
use crate::supervision::{ActorKind, UnknownActor};
use crate::telemetry::exposition;

pub(crate) mod access;
pub(crate) mod api;
pub(crate) mod collector;
pub(crate) mod events;
pub(crate) mod fleet;
mod page;
mod problem;
pub(crate) mod status;

use access::Access;
use fleet::FleetStatus;
use page::live::{LivePage, Messages};
use problem::Problem;
use status::StatusReport;

impl BalancerState {
    /// The state of the backends of `table`.
    pub(in crate::balancer) fn report(&self, table: &RoutingTable) -> StatusReport {
        let last_reload = self.reloads.last().as_deref().cloned();
        StatusReport::of(table, &self.orders, &self.sources, &self.clock, last_reload)
    }

    /// The state of the fleet; `None` for a balancer that works alone.
    fn fleet_status(&self, table: &RoutingTable) -> Option<FleetStatus> {
        FleetStatus::of(table, self.name.as_deref()?, self.zone.as_deref(), &self.orders.book())
    }
}

/// Requests to read the configuration again. Each gets the result.
pub(in crate::balancer) type ReloadRequests = mpsc::Sender<oneshot::Sender<ReloadReport>>;

/// The state behind the pages.
pub(crate) struct Admin {
    pub(in crate::balancer) balancer: Arc<BalancerState>,
    pub(in crate::balancer) access: Arc<ArcSwap<Access>>,
    /// For a program with a configuration.
    pub(in crate::balancer) reload: Option<ReloadRequests>,
    /// Whether a request may make an actor panic.
    pub(in crate::balancer) fault_injection: bool,
}

impl Admin {
    /// Permits or refuses a change. Returns its author.
    fn authorize(&self, request: &HttpRequest) -> Result<String, Problem> {
        let permitted =
            self.access.load().authorize(request.headers(), request.peer_addr().map(|peer| peer.ip()));
        permitted.inspect_err(|problem| {
            let (path, peer) = (request.path(), request.peer_addr().map(tracing::field::display));
            tracing::warn!(path, peer, reason = problem.detail, "a change was refused");
        })
    }

    /// The backends of the latest table.
    fn listed(&self) -> Vec<Backend> {
        self.balancer.publisher.latest().entries.iter().map(|entry| entry.backend.clone()).collect()
    }
}

/// Serves the admin pages on `listener`.
///
/// Each page supports HEAD, too.
///
/// - `GET /`: the live page, for people, with its files and its stream of changes below `/page`
/// - `GET /metrics`: the metrics in the text format of Prometheus
/// - `GET /healthz`: 200
/// - `GET /readyz`: 503 until every backend of the first list has been probed, then 200, with a remark if the fleet or the
///   network has a fault
/// - `/api/v1/...`: the API, see [`api`]
/// - `POST /debug/panic/{actor}`: makes an actor panic, only with `fault_injection`
pub(crate) fn serve(
    listener: TcpListener,
    https: Option<&Https>,
    admin: Admin,
    connections: Arc<Connections>,
    phases: watch::Receiver<Phase>,
) -> std::io::Result<Server> {
    let metrics = Arc::clone(&admin.balancer.metrics);
    let mut common = Registry::with_prefix("fingerpost");
    let reloads = Arc::clone(&admin.balancer.reloads);
    http::admin::register(&mut common, connections, https, reloads);
    let live = Data::new(LivePage::start(&admin, &mut common, phases));
    let admin = Data::new(admin);
    let metrics = move || metrics.encode() + &exposition::encode(&common);
    http::admin::serve(listener, https.and_then(Https::admin_config), metrics, move |pages| {
        pages
            .app_data(admin.clone())
            .app_data(live.clone())
            .route("/", page_route().to(live_page))
            .route("/page/style.css", page_route().to(async || file("text/css; charset=utf-8", page::STYLE)))
            .route(
                "/page/live.js",
                page_route().to(async || file("text/javascript; charset=utf-8", page::SCRIPT)),
            )
            .route("/page/stream", web::get().to(stream))
            .route("/healthz", page_route().to(async || HttpResponse::Ok().body("ok\n")))
            .route("/readyz", page_route().to(ready))
            .configure(api::configure)
            .route("/debug/panic/{actor}", web::post().to(panic_on_request));
    })
}

async fn ready(admin: Data<Admin>) -> HttpResponse {
    let publisher = &admin.balancer.publisher;
    if publisher.is_first_round_complete() {
        let table = publisher.latest();
        let fleet = table.fleet.as_deref();
        // Clients are still served, so another balancer would not serve them better.
        let remark = match fleet.map(|fleet| (fleet.own_view, &fleet.engine_failure)) {
            Some((OwnView::CutOff, _)) => {
                "cut off: neither a server nor the engine of the fleet answers; the last table is used\n"
            }
            Some((OwnView::SetAside, _)) => {
                "set aside: the other balancers see far more servers up; their observations are used\n"
            }
            Some((_, Some(_))) => "alone: the engine of the fleet does not work\n",
            _ => "",
        };
        HttpResponse::Ok().body(format!("ready\n{remark}"))
    } else {
        HttpResponse::ServiceUnavailable().body("not ready: the first round of probes is not complete\n")
    }
}

async fn live_page(live: Data<LivePage>) -> Result<HttpResponse, Problem> {
    let document = live.document().await.ok_or_else(page_ended)?;
    let mut response = file("text/html; charset=utf-8", "");
    let policy = header::HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(header::REFERRER_POLICY, header::HeaderValue::from_static("no-referrer"));
    Ok(response.set_body(document).map_into_boxed_body())
}

fn page_ended() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the balancer ends, or the task of the page has failed")
}

/// A file of the page. It changes with each version of the program.
fn file(kind: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(content)
}

/// The changes of the page as server-sent events.
async fn stream(live: Data<LivePage>) -> Result<HttpResponse, Problem> {
    let messages = live.listen().await.ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many browsers show the live page; close one of them",
        )
    })?;
    let body = futures_util::stream::unfold(messages, |mut messages: Messages| async {
        let message = messages.next().await?;
        Some((Ok::<_, std::convert::Infallible>(message), messages))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .streaming(body))
}

async fn panic_on_request(admin: Data<Admin>, request: HttpRequest, actor: Path<String>) -> HttpResponse {
    if let Err(problem) = admin.authorize(&request) {
        return HttpResponse::from_error(problem);
    }
    if !admin.fault_injection {
        return HttpResponse::Forbidden().body("fault_injection is off\n");
    }
    match actor.parse::<ActorKind>() {
        Ok(kind) => {
            admin.balancer.supervisor.inject_panic(kind);
            HttpResponse::Accepted().body(format!("every {kind} will panic\n"))
        }
        Err(error @ UnknownActor) => HttpResponse::NotFound().body(format!("{error}\n")),
    }
}
