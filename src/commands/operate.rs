//! The commands of operators for a running balancer: `status`, `explain`, `events`, `drain`, `enable`, `disable`, `weight`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::admin_client::{AdminClient, QueryError};
use crate::balancer::admin::api::OrderAnswer;
use crate::balancer::admin::events::EventReport;
use crate::balancer::admin::fleet::FleetStatus;
use crate::balancer::admin::status::{BackendStatus, StatusReport, severity};
use crate::balancer::orders::{OrderName, OrderRequest};
use crate::balancer::redirect::explain::Explanation;
use crate::cli::{
    AdminArguments, DisableArguments, DrainArguments, EnableArguments, EventsArguments, ExplainArguments,
    OrderArguments, OrderedWeight, StatusArguments, WeightArguments,
};
use crate::telemetry::{self, OutputError};

/// The interval at which `drain --wait` asks for the downloads in flight.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// The interval of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `fingerpost status`.
pub(crate) fn status(arguments: &StatusArguments) -> Result<(), QueryError> {
    let admin = AdminArguments {
        admin: arguments.address.clone().or_else(|| arguments.admin.admin.clone()),
        ..arguments.admin.clone()
    };
    if arguments.watch {
        return watch(&admin);
    }
    if arguments.fleet {
        let (body, report): (_, FleetStatus) = get(&admin, "/fleet")?;
        return print(&admin, body, || report.text());
    }
    let (body, report): (_, StatusReport) = get(&admin, "/backends")?;
    print(&admin, body, || report.text(terminal_size().map(|(columns, _)| columns)))
}

/// Columns and lines of the terminal; `None` if standard output is not a terminal.
fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some((size.ws_col.into(), size.ws_row.into())).filter(|(columns, lines)| *columns > 0 && *lines > 0)
}

/// Prints the status every second until a signal ends the process, or a pipe is closed. Only the first error ends it.
fn watch(admin: &AdminArguments) -> Result<(), QueryError> {
    actix::System::new().block_on(async {
        let client = AdminClient::new(admin)?;
        let mut answer: Result<(_, StatusReport), QueryError> = Ok(client.get("/backends").await?);
        loop {
            let size = terminal_size();
            let text = match answer {
                Ok((body, _)) if admin.json => String::from_utf8_lossy(&body).into_owned() + "\n",
                Ok((_, report)) => watched(report, size),
                Err(error) => format!("No answer, trying again: {}\n", telemetry::chain(&*error)),
            };
            // A whole frame at once, without a hidden cursor or another screen: Ctrl-C has nothing to restore.
            let frame = if size.is_some() { frame(&text) } else { text };
            let mut output = std::io::stdout().lock();
            match output.write_all(frame.as_bytes()).and_then(|()| output.flush()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(OutputError)?,
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
            answer = client.get("/backends").await;
        }
    })
}

/// The report with faults at the top. In a terminal, it has no more lines than fit.
fn watched(mut report: StatusReport, size: Option<(usize, usize)>) -> String {
    report.backends.sort_by_key(|backend| severity(&backend.state));
    let Some((columns, lines)) = size else { return report.text(None) };
    let text = report.text(Some(columns));
    // The cursor needs the last line, and must not wrap in the last column.
    let most = lines.saturating_sub(1).max(1);
    let all = text.lines().count();
    let fit = if all > most { most - 1 } else { all };
    let mut shown: String =
        text.lines().take(fit).flat_map(|line| line.chars().take(columns - 1).chain(['\n'])).collect();
    if all > most {
        let _ = writeln!(shown, "{} more lines do not fit", all - fit);
    }
    shown
}

/// A text that replaces the content of the terminal without flicker: each line clears its own rest.
fn frame(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
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
    actix::System::new().block_on(async { AdminClient::new(arguments)?.get(path).await })
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
        None => Err(format!(
            "{} gets no new clients, but it sends no load report, so the end of its downloads is not known; look at its own log",
            backend.address
        )
        .into()),
    }
}
