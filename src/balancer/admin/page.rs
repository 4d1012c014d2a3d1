//! The status page of a balancer, for browsers. Pure.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;

use super::status::{BackendStatus, StatusReport};
use crate::http::pages::escape;

/// The style sheet of this page, in addition to the one of all pages.
pub(super) const STYLE: &str = include_str!("page.css");

/// The largest number of rows: a browser is slow with more. The JSON of the status API has every backend.
const MOST_ROWS: usize = 1000;

/// The content of the page below its heading. Text from outside is escaped.
pub(super) fn content(report: &StatusReport, now: SystemTime) -> String {
    let all = &report.backends;
    let taking = all.iter().filter(|backend| backend.traffic.starts_with("yes")).count();
    let redirects: u64 = all.iter().map(|backend| backend.redirects).sum();
    let mut html = String::new();
    for warning in &report.warnings {
        let _ = writeln!(html, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<div>{taking} of {} servers get downloads. Selection: {}. Redirects: {redirects}.</div>\n\
         <nav><a href=\"/metrics\">/metrics</a><a href=\"/api/v1/backends\">/api/v1/backends</a>\
         <a href=\"/healthz\">/healthz</a><a href=\"/readyz\">/readyz</a></nav>\n",
        all.len(),
        escaped(&report.mode),
    );
    if all.is_empty() {
        html.push_str(
            "<p>The list has no server, so every request gets the 503 page. Add lines such as \
                       <code>host:port</code> to the list; no restart is needed.</p>\n",
        );
        return html;
    }
    html.push_str(
        "<div class=\"box\"><table>\n<thead><tr><th>Server<th>State<th>Reason<th class=\"number\">Latency\
         <th>Share of redirects<th class=\"number\">Redirects</tr></thead>\n<tbody>\n",
    );
    let mut rows: Vec<_> = all.iter().collect();
    // Faults are at the top. The sort is stable, so backends of one state keep the order of the list.
    rows.sort_by_key(|backend| severity(&backend.state));
    for backend in rows.iter().take(MOST_ROWS) {
        put_row(&mut html, backend, now);
    }
    html.push_str("</tbody>\n</table></div>\n");
    if all.len() > MOST_ROWS {
        let _ = writeln!(
            html,
            "<p>{} more servers are not shown; <a href=\"/api/v1/backends\">/api/v1/backends</a> has all of them.</p>",
            all.len() - MOST_ROWS
        );
    }
    html.push_str("<p>The page reloads every 5 seconds. Latency is the estimate that ranks a server.</p>\n");
    html
}

fn put_row(html: &mut String, backend: &BackendStatus, now: SystemTime) {
    let BackendStatus {
        address,
        state,
        reason,
        since,
        traffic,
        share,
        redirects,
        response_ms,
        orders,
        drained_in_seconds,
        ..
    } = backend;
    let latency = response_ms.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"));
    let address = escaped(address);
    let class = match state.as_str() {
        known @ ("up" | "suspect" | "down") => known,
        _ => "unknown",
    };
    let _ = write!(
        html,
        "<tr><td><a href=\"{address}/\" rel=\"noreferrer\">{address}</a>\
         <td class=\"state {class}\" title=\"since {}\">{}{}\
         <td class=\"reason\">{}",
        escaped(since),
        escaped(state),
        age(since, now),
        escaped(reason),
    );
    if !matches!(traffic.as_str(), "yes" | "no") {
        let _ = write!(html, "; gets downloads: {}", escaped(traffic));
    }
    for order in orders {
        let _ = write!(html, "; order: {}", escaped(&order.to_string()));
    }
    if let Some(seconds) = drained_in_seconds {
        let _ = write!(html, "; its last download ends in about {seconds:.0} s");
    }
    let _ = writeln!(
        html,
        "<td class=\"number\">{latency}<td class=\"share\"><progress max=\"1\" value=\"{share:.4}\"></progress>\
         {:.1} %<td class=\"number\">{redirects}",
        share * 100.0
    );
}

/// The sort key of a row.
fn severity(state: &str) -> u8 {
    match state {
        "down" => 0,
        "suspect" => 1,
        "up" => 3,
        _ => 2,
    }
}

/// The time in the state in its largest unit, such as ` for 3 min`.
fn age(since: &str, now: SystemTime) -> String {
    let Ok(since) = humantime::parse_rfc3339(since) else { return String::new() };
    let seconds = now.duration_since(since).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..60 => format!(" for {seconds} s"),
        60..3600 => format!(" for {} min", seconds / 60),
        3600..86400 => format!(" for {} h", seconds / 3600),
        _ => format!(" for {} d", seconds / 86400),
    }
}

fn escaped(text: &str) -> String {
    let mut html = BytesMut::new();
    escape(text, &mut html);
    String::from_utf8_lossy(&html).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(address: &str, state: &str, reason: &str) -> BackendStatus {
        BackendStatus {
            address: address.to_owned(),
            state: state.to_owned(),
            reason: reason.to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            traffic: "yes".to_owned(),
            share: 0.25,
            redirects: 7,
            booked_bytes: None,
            expected_seconds: None,
            load_report: "none".to_owned(),
            response_ms: Some(1.25),
            connect_ms: None,
            first_byte_ms: None,
            total_ms: None,
            in_flight: None,
            drained_in_seconds: None,
            orders: Vec::new(),
            weight: 1,
            tier: 0,
            zone: None,
        }
    }

    fn page(backends: Vec<BackendStatus>) -> String {
        let now = humantime::parse_rfc3339("2026-01-01T00:03:10Z").unwrap();
        content(
            &StatusReport {
                mode: "normal".to_owned(),
                generation: 1,
                table_age_seconds: 0.0,
                warnings: Vec::new(),
                backends,
            },
            now,
        )
    }

    #[test]
    fn a_row_shows_state_reason_latency_and_share() {
        let html = page(vec![backend("http://a:1", "up", "answers")]);
        for text in
            ["http://a:1/", "up for 3 min", "answers", "1.2 ms", "25.0 %", "1 of 1 servers", "/readyz"]
        {
            assert!(html.contains(text), "{text} is not in {html}");
        }
    }

    #[test]
    fn text_from_a_server_is_escaped() {
        let html = page(vec![backend("http://a:1", "down", "<script>alert('\"')</script>")]);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(&#39;&quot;"), "{html}");
    }

    #[test]
    fn faults_are_at_the_top_and_the_number_of_rows_is_limited() {
        let html = page(vec![backend("http://a:1", "up", ""), backend("http://b:1", "down", "")]);
        assert!(html.find("http://b:1").unwrap() < html.find("http://a:1").unwrap());
        let html = page(vec![backend("http://a:1", "up", ""); MOST_ROWS + 5]);
        assert_eq!(html.matches("<tr><td>").count(), MOST_ROWS);
        assert!(html.contains("5 more servers"), "{html}");
        assert!(page(Vec::new()).contains("no server"));
    }
}
