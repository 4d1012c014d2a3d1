//! The live page of a balancer, for browsers.
//!
//! The server renders each fragment of the page: for the page itself, which works without JavaScript, and for the
//! [stream](live) of changes, which the module `page.js` puts into the page. Text from outside is escaped here and nowhere
//! else.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use bytesize::ByteSize;

use super::events::BackendEvent;
use super::fleet::FleetStatus;
use super::status::{BackendStatus, SeenBy, StatusReport, severity};
use crate::balancer::history::Change;
use crate::balancer::orders::{self, StandingOrder};
use crate::balancer::statistics::day::DownloadCount;
use crate::balancer::statistics::report::{StatisticsRow, TopFiles};
use crate::http::pages::escape;
use trend::{Trend, figure};

pub(super) mod live;
mod trend;

const TEMPLATE: &str = include_str!("page.html");
pub(super) const STYLE: &str = include_str!("page.css");
pub(super) const SCRIPT: &str = include_str!("page.js");

/// Only the files of this listener, so that markup in the name of a server could do nothing.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The number of cells of a row.
const CELLS: usize = 11;

/// The classes of the cells, in order.
const CLASSES: [&str; CELLS] = [
    "server", "state", "since", "reason", "share", "number", "number", "graph", "number", "graph", "actions",
];

/// The number of events that a screen reader announces at a time.
const MOST_ANNOUNCED: usize = 3;

/// A name of a part of the page outside of the table, and its HTML.
type PagePart = (&'static str, String);

/// The changing fragments of the page.
#[derive(Debug, Default, PartialEq)]
struct PageView {
    rows: Vec<BackendRow>,
    parts: [PagePart; 5],
}

/// A backend in the table.
#[derive(Debug, Clone, PartialEq)]
struct BackendRow {
    /// The address of the backend.
    key: String,
    severity: u8,
    /// HTML.
    cells: [String; CELLS],
}

/// The recent figures of one backend.
#[derive(Debug, Clone, Default)]
struct BackendFigures {
    latency: Trend,
    in_flight: Trend,
    /// Redirects per second.
    rate: f64,
    /// The redirects at the latest tick.
    redirects: u64,
}

/// The recent figures of the whole balancer.
#[derive(Debug, Clone, Default)]
struct FleetFigures {
    redirects: CounterRate,
    /// Answers with status 503.
    refusals: CounterRate,
}

/// A counter and its growth.
#[derive(Debug, Clone, Default)]
struct CounterRate {
    total: u64,
    per_second: f64,
    trend: Trend,
    /// The total at the latest point of the trend.
    at_point: u64,
}

impl PageView {
    /// The page as a document, with the faults at the top.
    fn document(&self) -> String {
        let mut rows: Vec<&BackendRow> = self.rows.iter().collect();
        // The sort is stable, so backends of one state keep the order of the list.
        rows.sort_by_key(|row| row.severity);
        let mut pieces = TEMPLATE.split("{{");
        let mut html = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (name, text) = piece.split_once("}}").unwrap_or_default();
            match self.parts.iter().find(|part| part.0 == name) {
                Some((_, part)) => html.push_str(part),
                None => rows.iter().for_each(|row| row.put(&mut html)),
            }
            html.push_str(text);
        }
        html
    }
}

impl BackendRow {
    fn new(
        backend: &BackendStatus,
        figures: &BackendFigures,
        all_rates: f64,
        shows_sources: bool,
        now: SystemTime,
    ) -> Self {
        let BackendStatus { address, state, reason, since, traffic, orders, .. } = backend;
        let name = escaped(address);
        let state = match state.as_str() {
            known @ ("up" | "suspect" | "down") => known,
            _ => "unknown",
        };
        let is_withdrawn = orders::withdrawal(orders).is_some();
        let mut server = format!("<a href=\"{name}/\" rel=\"noreferrer\">{name}</a>");
        let weight = orders::weight(orders).unwrap_or(backend.weight);
        for (is_shown, text) in [
            (
                backend.zone.is_some(),
                format!("zone {}", escaped(backend.zone.as_deref().unwrap_or_default())),
            ),
            (backend.tier != 0, format!("tier {}", backend.tier)),
            (weight != 1, format!("weight {weight}")),
            (shows_sources, format!("from {}", escaped(&backend.sources.join(", ")))),
        ] {
            if is_shown {
                let _ = write!(server, " <small>{text}</small>");
            }
        }
        let mut why = escaped(reason);
        if !is_withdrawn && !matches!(traffic.as_str(), "yes" | "no") {
            let _ = write!(why, "<br>gets clients: {}", escaped(traffic));
        }
        if let Some(SeenBy { up, of }) = backend.seen_by.filter(|seen| (1..seen.of).contains(&seen.up)) {
            let _ = write!(why, "<br>seen by {up} of {of}");
        }
        for order in orders {
            let _ = write!(why, "<br><b>order: {}</b>{}", escaped(&order.to_string()), author(order));
        }
        if let Some(seconds) = backend.drained_in_seconds {
            let end = rough(Duration::from_secs(seconds.ceil() as u64));
            let _ = write!(why, "<br>the last download ends in about {end}");
        }
        let share = if all_rates > 0.0 { figures.rate / all_rates } else { 0.0 };
        let number = |value: Option<f64>, unit: &str| match value {
            Some(value) => format!("<data value=\"{value:.2}\">{}{unit}</data>", figure(value)),
            None => "<data value=\"-1\">–</data>".to_owned(),
        };
        let seen = if is_withdrawn { format!("{state} withdrawn") } else { state.to_owned() };
        let action = if is_withdrawn { ("enable", "Enable") } else { ("drain", "Drain") };
        Self {
            key: address.clone(),
            severity: severity(state),
            cells: [
                server,
                format!("<data value=\"{}\" class=\"{seen}\">{state}</data>", severity(state)),
                age(since, now),
                why,
                format!(
                    "<data value=\"{share:.4}\"><svg viewBox=\"0 0 50 6\" aria-hidden=\"true\"><rect width=\"50\" \
                     height=\"6\"/><rect width=\"{:.0}\" height=\"6\"/></svg>{:.1} %</data>",
                    (share * 50.0).round(),
                    share * 100.0
                ),
                number(Some(figures.rate), ""),
                number(backend.response_ms, " ms"),
                figures.latency.svg("Latency", " ms"),
                number(backend.in_flight.map(|count| count as f64), ""),
                figures.in_flight.svg("In flight", ""),
                format!(
                    "<button data-order=\"{}\" aria-label=\"{1} {name}\">{1}</button><button data-order=\"weight\" \
                     aria-label=\"More orders for {name}\">More</button>",
                    action.0, action.1
                ),
            ],
        }
    }

    fn put(&self, html: &mut String) {
        let _ = write!(html, "<tr data-key=\"{}\">", escaped(&self.key));
        for (at, (cell, class)) in self.cells.iter().zip(CLASSES).enumerate() {
            let tag = if at == 0 { "th scope=\"row\"" } else { "td" };
            let _ = write!(html, "<{tag} class=\"{class}\">{cell}");
        }
        html.push_str("</tr>\n");
    }
}

fn author(order: &StandingOrder) -> String {
    let time = humantime::format_rfc3339_seconds(order.given_at);
    format!("<br><small>given {time} by {}</small>", escaped(&order.given_by))
}

/// The parts of the page outside of the table.
fn parts(
    report: &StatusReport,
    fleet: Option<&FleetStatus>,
    hidden: usize,
    figures: &FleetFigures,
    events: &[BackendEvent],
    files: &TopFiles,
) -> [PagePart; 5] {
    let all = &report.backends;
    let taking = all.iter().filter(|backend| backend.traffic.starts_with("yes")).count();
    let ordered = all.iter().filter(|backend| !backend.orders.is_empty()).count();
    let mut warnings = String::new();
    for warning in &report.warnings {
        let _ = write!(warnings, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    if report.mode != "normal" {
        let _ = write!(warnings, "<p class=\"warning\">Selection: {}.</p>", escaped(&report.mode));
    }
    if all.is_empty() {
        warnings.push_str(
            "<p class=\"warning\">The list has no server, so every request gets the 503 page. Add lines such as \
             <code>host:port</code> to the list; no restart is needed.</p>",
        );
    }
    if hidden > 0 {
        let _ = write!(
            warnings,
            "<p>{hidden} more servers are not shown; <a href=\"/api/v1/backends\">/api/v1/backends</a> has all of them.</p>"
        );
    }
    let mut states = String::new();
    for state in ["up", "suspect", "down", "unknown"] {
        let count = all.iter().filter(|backend| backend.state == state).count();
        if count > 0 {
            let _ = write!(states, "<span class=\"{state}\">{count} {state}</span>");
        }
    }
    let rate = |name: &str, rate: &CounterRate| {
        let (value, total) = (figure(rate.per_second), rate.total);
        let graph = rate.trend.svg(name, " per second");
        format!("<dt>{name}</dt><dd>{value}<small>/s</small>{graph}<p>{total} since the start</p></dd>")
    };
    let summary = format!(
        "<div><dt>Servers with clients</dt><dd>{taking}<small> of {}</small><p>{states}</p></dd></div><div>{}</div>\
         <div class=\"{}\">{}</div><div><dt>Servers with orders</dt><dd>{ordered}<p>They override \
         the list.</p></dd></div>",
        all.len(),
        rate("Redirects", &figures.redirects),
        if figures.refusals.per_second >= 0.05 { "alarm" } else { "" },
        rate("Answers 503", &figures.refusals),
    );
    [
        ("warnings", warnings),
        ("summary", summary),
        ("fleet", fleet.map(balancer_list).unwrap_or_default()),
        ("events", event_list(events)),
        ("files", file_list(files)),
    ]
}

fn event_list(events: &[BackendEvent]) -> String {
    let mut html = String::new();
    for BackendEvent { backend, event } in events {
        let (class, change) = match &event.change {
            Change::State { from, to } => (to.to_string(), format!("{from} → {to}")),
            Change::Orders { orders } if orders.is_empty() => ("ordered".to_owned(), "no order".to_owned()),
            Change::Orders { orders } => ("ordered".to_owned(), format!("order: {}", escaped(orders))),
        };
        let time = humantime::format_rfc3339_seconds(event.time).to_string();
        let _ = write!(
            html,
            "<li><time datetime=\"{time}\">{}</time> <span class=\"{class}\">{change}</span> <b>{}</b> <span>{}</span>",
            time.replace(['T', 'Z'], " "),
            escaped(backend),
            escaped(&event.cause),
        );
    }
    if html.is_empty() { "<li>No event yet.".to_owned() } else { html }
}

/// The balancers of the fleet.
fn balancer_list(fleet: &FleetStatus) -> String {
    let mut html = format!(
        "<section aria-labelledby=\"fleet-title\"><h2 id=\"fleet-title\">Balancers <small>{}; orders: {}</small></h2>\
         <ol class=\"events\">",
        escaped(&fleet.view),
        escaped(&fleet.orders)
    );
    for balancer in &fleet.balancers {
        let class = match balancer.standing.as_str() {
            "self" | "counted" => "up",
            "set aside" => "suspect",
            _ => "down",
        };
        let _ = write!(
            html,
            "<li><b>{}</b> <span class=\"{class}\">{}</span> <span>zone {}, version {}, {:.0} s ago, list {}, orders {}</span>",
            escaped(&balancer.name),
            escaped(&balancer.standing),
            escaped(balancer.zone.as_deref().unwrap_or("–")),
            escaped(&balancer.version),
            balancer.age_seconds,
            escaped(&balancer.list),
            if balancer.has_orders { "applied" } else { "pending" },
        );
    }
    html + "</ol></section>"
}

fn file_list(TopFiles { all, is_sampled, files }: &TopFiles) -> String {
    let mut html = String::new();
    for StatisticsRow { name, count: DownloadCount { downloads, bytes } } in files {
        let share = *downloads as f64 / (*all).max(1) as f64;
        let _ = write!(html, "<li><code>{}</code> <data value=\"{share:.3}\">", escaped(name));
        if !is_sampled {
            let _ = write!(html, "{downloads} · {} · ", ByteSize::b(*bytes).display().si());
        }
        let _ = write!(html, "{:.1} %</data>", share * 100.0);
    }
    if html.is_empty() { "<li>No request yet.".to_owned() } else { html }
}

/// The changes of `later` for a screen reader; empty if there are no changes.
fn announcement(later: &[&BackendEvent]) -> String {
    let text = |BackendEvent { backend, event }: &BackendEvent| match &event.change {
        Change::State { to, .. } => format!("{backend} is {to}: {}", event.cause),
        Change::Orders { orders } if orders.is_empty() => format!("{backend} has no order"),
        Change::Orders { orders } => format!("{backend} has the order {orders}"),
    };
    let mut texts: Vec<String> = later.iter().take(MOST_ANNOUNCED).map(|event| text(event)).collect();
    if later.len() > MOST_ANNOUNCED {
        texts.push(format!("{} more changes", later.len() - MOST_ANNOUNCED));
    }
    texts.join("; ")
}

/// The time in the state in its largest unit, such as `3 min`.
fn age(since: &str, now: SystemTime) -> String {
    let Ok(time) = humantime::parse_rfc3339(since) else { return String::new() };
    let age = now.duration_since(time).unwrap_or(Duration::ZERO);
    format!("<time datetime=\"{since}\" title=\"{since}\">{}</time>", rough(age))
}

fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

fn escaped(text: &str) -> String {
    let mut html = BytesMut::new();
    escape(text, &mut html);
    String::from_utf8_lossy(&html).into_owned()
}

#[cfg(test)]
mod tests;
