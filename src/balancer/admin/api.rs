//! The API of the admin listener below `/api/v1`: JSON, and errors as problem details.

use std::net::IpAddr;
use std::time::SystemTime;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Bytes, Data, Json, Path, PayloadConfig, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource, Route};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Admin;
use super::events::EventReport;
use super::fleet::FleetStatus;
use super::problem::Problem;
use super::status::StatusReport;
use crate::balancer::backends::BackendId;
use crate::balancer::orders::store::OrderError;
use crate::balancer::orders::{self, NameError, OrderRequest};
use crate::balancer::redirect::explain::Explanation;
use crate::http::admin::page_route;
use crate::settings::reload::ReloadReport;
use crate::telemetry::chain;

/// The largest body of a request, in bytes.
const LARGEST_BODY: usize = 16 << 10;

/// Adds the paths of the API.
pub(in crate::balancer) fn configure(pages: &mut ServiceConfig) {
    pages.service(
        web::scope("/api/v1")
            .app_data(PayloadConfig::new(LARGEST_BODY))
            .service(readable("/backends", page_route().to(backends)))
            .service(writable("/backends/{id}/orders", web::post().to(order_backend)))
            .service(writable("/zones/{zone}/orders", web::post().to(order_zone)))
            .service(readable("/fleet", page_route().to(fleet)))
            .service(readable("/explain", page_route().to(explain)))
            .service(readable("/events", page_route().to(events)))
            .service(readable("/openapi.json", page_route().to(openapi)))
            .service(writable("/reload", web::post().to(reload)))
            .service(writable("/session", web::post().to(begin_session)))
            .default_service(web::to(async || {
                HttpResponse::from_error(Problem::new(StatusCode::NOT_FOUND, "the API has no such path"))
            })),
    );
}

/// A path to read. Other methods get 405.
fn readable(path: &str, route: Route) -> Resource {
    web::resource(path).route(route).default_service(web::to(async || other_method("GET, HEAD")))
}

/// A path for changes. Other methods get 405.
fn writable(path: &str, route: Route) -> Resource {
    web::resource(path).route(route).default_service(web::to(async || other_method("POST")))
}

fn other_method(allowed: &'static str) -> HttpResponse {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("the path has the methods {allowed}"));
    let mut response = HttpResponse::from_error(problem);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}

async fn backends(admin: Data<Admin>) -> Json<StatusReport> {
    Json(admin.balancer.report(&admin.balancer.publisher.latest()))
}

async fn fleet(admin: Data<Admin>) -> Result<Json<FleetStatus>, Problem> {
    let alone = "this balancer works alone; --fleet redis://HOST:PORT makes it a member of a fleet";
    admin
        .balancer
        .fleet_status(&admin.balancer.publisher.latest())
        .map(Json)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, alone))
}

/// The query of `explain`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    path: String,
    client: Option<IpAddr>,
    #[serde(default)]
    scheme: ClientScheme,
}

/// The scheme that a client uses.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientScheme {
    #[default]
    Http,
    Https,
}

async fn explain(admin: Data<Admin>, request: HttpRequest) -> Result<Json<Explanation>, Problem> {
    let ExplainQuery { path, client, scheme } = query(&request)?;
    let explained = admin.balancer.explain(&path, client, scheme == ClientScheme::Https);
    explained
        .map(Json)
        .map_err(|error| Problem::bad_request(format!("the balancer answers 400 to this path: {error}")))
}

/// The query of `events`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    backend: Option<String>,
    limit: Option<usize>,
}

async fn events(admin: Data<Admin>, request: HttpRequest) -> Result<Json<EventReport>, Problem> {
    let EventsQuery { backend, limit } = query(&request)?;
    let id =
        backend.map(|name| orders::find(&name, &admin.listed(), &admin.balancer.orders.book())).transpose();
    let id = id.map_err(|error| of_name(&error))?;
    Ok(Json(EventReport::of(&admin.balancer.publisher.latest(), id.as_ref(), limit, SystemTime::now())))
}

fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    let query = Query::<T>::from_query(request.query_string());
    query.map(Query::into_inner).map_err(|error| Problem::bad_request(error.to_string()))
}

fn of_name(error: &NameError) -> Problem {
    let status = match error {
        NameError::Unknown(_) => StatusCode::NOT_FOUND,
        NameError::Ambiguous { .. } => StatusCode::CONFLICT,
    };
    Problem::new(status, error.to_string())
}

/// The answer to an order.
#[derive(Serialize, Deserialize)]
pub(crate) struct OrderAnswer {
    /// The servers for which the order is in force.
    pub backends: Vec<String>,
    /// Whether the order survives a restart.
    pub durable: bool,
}

type Body = Result<Bytes, actix_web::Error>;

async fn order_backend(
    admin: Data<Admin>,
    request: HttpRequest,
    id: Path<String>,
    body: Body,
) -> Result<Json<OrderAnswer>, Problem> {
    let author = admin.authorize(&request)?;
    let listed = admin.listed();
    let id = orders::find(&id, &listed, &admin.balancer.orders.book()).map_err(|error| of_name(&error))?;
    give(&admin, vec![id], body, author).await
}

async fn order_zone(
    admin: Data<Admin>,
    request: HttpRequest,
    zone: Path<String>,
    body: Body,
) -> Result<Json<OrderAnswer>, Problem> {
    let author = admin.authorize(&request)?;
    let listed = admin.listed();
    let of_zone = listed.iter().filter(|backend| backend.zone() == Some(zone.as_str()));
    let ids: Vec<BackendId> = of_zone.map(|backend| backend.id().clone()).collect();
    if ids.is_empty() {
        let detail = format!("no server of the list has the zone {}", zone.escape_debug());
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    give(&admin, ids, body, author).await
}

async fn give(
    admin: &Admin,
    ids: Vec<BackendId>,
    body: Body,
    author: String,
) -> Result<Json<OrderAnswer>, Problem> {
    let body = body.map_err(|error| {
        Problem::new(error.as_response_error().status_code(), format!("the body cannot be read: {error}"))
    })?;
    let request: OrderRequest = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is not an order: {error}")))?;
    let order = request.validate(SystemTime::now()).map_err(Problem::bad_request)?;
    let (text, names) = (order.to_string(), ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    let orders = &admin.balancer.orders;
    orders.give(ids, order, author.clone()).await.map_err(|error| {
        let status = match error {
            OrderError::TooMany(_) => StatusCode::CONFLICT,
            OrderError::NotStored(_) => StatusCode::INSUFFICIENT_STORAGE,
            OrderError::HandedOver | OrderError::Ended => StatusCode::SERVICE_UNAVAILABLE,
        };
        tracing::error!(order = text, author, error = chain(&error), "an order was not carried out");
        Problem::new(status, chain(&error))
    })?;
    for backend in &names {
        tracing::info!(order = text, backend, author, "an order is in force");
    }
    Ok(Json(OrderAnswer { backends: names, durable: orders.are_durable() }))
}

/// The description of the API. A test compares it with the answers.
async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(include_str!("openapi.json"))
}

/// Reads the configuration again, as SIGHUP does.
async fn reload(admin: Data<Admin>, request: HttpRequest) -> Result<Json<ReloadReport>, Problem> {
    let author = admin.authorize(&request)?;
    let Some(requests) = &admin.reload else {
        let detail = "this program has no configuration to read again; only fingerpost balancer has one";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    tracing::info!(author, "the configuration is to be read again");
    let (sender, report) = oneshot::channel();
    let ended = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the balancer ends");
    requests.send(sender).await.map_err(|_| ended())?;
    let report = report.await.map_err(|_| ended())?;
    match report.reason {
        Some(reason) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, reason)),
        None => Ok(Json(report)),
    }
}

/// Exchanges the token for a cookie, with which the page can give orders.
async fn begin_session(admin: Data<Admin>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    admin.authorize(&request)?;
    let mut response = HttpResponse::NoContent();
    if let Some(cookie) = admin.access.load().cookie() {
        response.insert_header((header::SET_COOKIE, cookie));
    }
    Ok(response.finish())
}
