//! The commands of operators for a running balancer: `status`, `explain`, `events`, `drain`, `enable`, `disable`, `weight`.

use std::fmt::Write as _;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::admin_client::{AdminClient, AdminError};
use crate::balancer::admin::api::OrderAnswer;
use crate::balancer::admin::events::EventReport;
use crate::balancer::admin::status::{BackendStatus, StatusReport};
use crate::balancer::orders::{OrderName, OrderRequest};
use crate::balancer::redirect::explain::Explanation;
use crate::cli::{
    AdminArguments, DisableArguments, DrainArguments, EnableArguments, EventsArguments, ExplainArguments,
    OrderArguments, OrderedWeight, StatusArguments, WeightArguments,
};
use crate::telemetry::{self, OutputError};

/// The interval at which `drain --wait` asks for the downloads in flight.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// An error of a command for a running balancer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The number of downloads in flight is not known.
    #[error(
        "{0} gets no new clients, but it sends no load report, so the end of its downloads is not known; look at its own log"
    )]
    NoReport(String),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs `fingerpost status`.
pub(crate) fn status(arguments: &StatusArguments) -> Result<(), QueryError> {
    let admin = AdminArguments {
        admin: arguments.address.clone().or_else(|| arguments.admin.admin.clone()),
        ..arguments.admin.clone()
    };
    let (body, report): (_, StatusReport) = get(&admin, "/backends")?;
    print(&admin, body, || report.text(columns()))
}

/// The width of the terminal; `None` if standard output is not a terminal.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col.into()).filter(|columns| *columns > 0)
}

/// Runs `fingerpost explain`.
pub(crate) fn explain(arguments: &ExplainArguments) -> Result<(), QueryError> {
    let url = &arguments.url;
    let is_https = url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    let scheme = if is_https { "https" } else { "http" };
    let mut query = format!("/explain?scheme={scheme}&path={}", encoded(url));
    if let Some(client) = &arguments.client {
        // Writing to a string cannot fail.
        let _ = write!(query, "&client={client}");
    }
    let (body, explanation): (_, Explanation) = get(&arguments.admin, &query)?;
    print(&arguments.admin, body, || explanation.text())
}

/// Runs `fingerpost events`.
pub(crate) fn events(arguments: &EventsArguments) -> Result<(), QueryError> {
    let mut query = format!("/events?limit={}", arguments.limit);
    if let Some(backend) = &arguments.backend {
        let _ = write!(query, "&backend={}", encoded(backend));
    }
    let (body, report): (_, EventReport) = get(&arguments.admin, &query)?;
    print(&arguments.admin, body, || report.text())
}

fn get<T: DeserializeOwned>(arguments: &AdminArguments, path: &str) -> Result<(Vec<u8>, T), QueryError> {
    Ok(actix::System::new().block_on(async { AdminClient::new(arguments)?.get(path).await })?)
}

fn print(
    arguments: &AdminArguments,
    mut body: Vec<u8>,
    text: impl FnOnce() -> String,
) -> Result<(), QueryError> {
    body.push(b'\n');
    let output = if arguments.json { body } else { text().into_bytes() };
    Ok(telemetry::print(&output)?)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Runs `fingerpost drain`.
pub(crate) fn drain(arguments: &DrainArguments) -> Result<(), QueryError> {
    give(&arguments.order, OrderName::Drain, None, arguments.until.as_ref(), arguments.wait)
}

/// Runs `fingerpost enable`.
pub(crate) fn enable(arguments: &EnableArguments) -> Result<(), QueryError> {
    give(&arguments.order, OrderName::Enable, None, None, false)
}

/// Runs `fingerpost disable`.
pub(crate) fn disable(arguments: &DisableArguments) -> Result<(), QueryError> {
    give(&arguments.order, OrderName::Disable, None, arguments.until.as_ref(), false)
}

/// Runs `fingerpost weight`.
pub(crate) fn weight(arguments: &WeightArguments) -> Result<(), QueryError> {
    let weight = match arguments.weight {
        OrderedWeight::OfList => None,
        OrderedWeight::Number(weight) => Some(weight),
    };
    give(&arguments.order, OrderName::Weight, weight, arguments.until.as_ref(), false)
}

fn give(
    arguments: &OrderArguments,
    order: OrderName,
    weight: Option<u32>,
    until: Option<&String>,
    waits: bool,
) -> Result<(), QueryError> {
    let path = match arguments.backend.strip_prefix("zone=") {
        Some(zone) => format!("/zones/{}/orders", encoded(zone)),
        None => format!("/backends/{}/orders", encoded(&arguments.backend)),
    };
    let request = OrderRequest { order, weight, note: arguments.note.clone(), until: until.cloned() };
    // The request holds text and numbers, so serialization cannot fail.
    let request = serde_json::to_vec(&request).unwrap_or_default();
    actix::System::new().block_on(async {
        let client = AdminClient::new(&arguments.admin)?;
        let (body, answer): (_, OrderAnswer) = client.post(&path, request).await?;
        let line = |backend: &String| format!("{backend}: the order is in force\n");
        print(&arguments.admin, body, || answer.backends.iter().map(line).collect())?;
        if !answer.durable {
            tracing::warn!("the balancer has no --state, so a restart ends the order");
        }
        if waits { wait_until_drained(&client, &answer.backends).await } else { Ok(()) }
    })
}

/// Waits until two readings in a row show no download in flight: the first one may miss clients on their way.
async fn wait_until_drained(client: &AdminClient, backends: &[String]) -> Result<(), QueryError> {
    let mut quiet_readings = 0;
    while quiet_readings < 2 {
        tokio::time::sleep(WAIT_INTERVAL).await;
        let (_, report): (_, StatusReport) = client.get("/backends").await?;
        let mut in_flight = 0;
        for backend in report.backends.iter().filter(|backend| backends.contains(&backend.address)) {
            in_flight += downloads(backend)?;
        }
        tracing::info!(in_flight, "downloads of the drained servers");
        quiet_readings = if in_flight == 0 { quiet_readings + 1 } else { 0 };
    }
    Ok(())
}

/// The downloads in flight. A server that is down has none.
fn downloads(backend: &BackendStatus) -> Result<u64, QueryError> {
    match backend.in_flight {
        _ if backend.state == "down" => Ok(0),
        Some(in_flight) => Ok(in_flight),
        None => Err(QueryError::NoReport(backend.address.clone())),
    }
}
