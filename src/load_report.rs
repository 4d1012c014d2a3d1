//! The load report of a server in each probe answer, in the header of the Open Request Cost Aggregation standard (ORCA):
//! `endpoint-load-metrics: JSON {"named_metrics":{"in_flight":3}}`.
//!
//! The file server writes the report, the prober reads it. Any other server may send one too; only `in_flight` is
//! required. Reports may be wrong or hostile: a value outside of its limits is clamped and counted, and no input causes a
//! panic. An `in_flight` outside of its limits makes the whole report invalid, because a clamped value would keep all
//! clients away from the server.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of the header.
pub const HEADER: &str = "endpoint-load-metrics";

/// The longest header that is parsed, in bytes.
const LONGEST: usize = 4096;

/// The largest valid `in_flight`.
pub const MOST_IN_FLIGHT: u32 = 1_000_000;

/// 2^53 - 1, the limit of every byte and request count: JSON readers store numbers as doubles, which represent integers
/// exactly only up to this value.
pub const MOST_COUNTED: u64 = (1 << 53) - 1;

/// Ten years. A longer time would lose microseconds in a double of seconds.
const MOST_BUSY_MICROS: u64 = 10 * 365 * 86_400 * 1_000_000;

/// The load of one server. All counts start at zero when the server starts.
///
/// The text (`Display`) is the value of the header [`HEADER`]; [`parse`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Unfinished requests, including the current probe.
    pub in_flight: u32,
    /// Bytes of unfinished bodies that are not yet passed to the kernel.
    pub unsent_bytes: Option<u64>,
    /// Finished requests, without probes.
    pub completed: Option<u64>,
    /// The total time with at least one request in flight, without probes.
    pub busy: Option<Duration>,
    /// Bytes of bodies passed to the kernel.
    pub sent_bytes: Option<u64>,
    /// A random number of the server process. If it changes, all counts have restarted from zero.
    pub boot: Option<u64>,
}

/// A valid report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedReport {
    /// The report, with every value within its limits.
    pub report: LoadReport,
    /// The number of values that were outside of their limits and were clamped.
    pub clamped: u32,
}

/// An error in a load report.
#[derive(Debug, thiserror::Error)]
pub enum LoadReportError {
    /// The header is too long.
    #[error("the load report has {0} bytes, at most {LONGEST} are read")]
    TooLong(usize),
    /// The header has another form than JSON.
    #[error("the load report does not start with `JSON `")]
    NotJson,
    /// The JSON is invalid, or `named_metrics.in_flight` is missing.
    #[error("the load report cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// `in_flight` is negative or larger than [`MOST_IN_FLIGHT`].
    #[error("the load report has in_flight = {0}, which must be from 0 to {MOST_IN_FLIGHT}")]
    OutOfRange(f64),
}

#[derive(Deserialize)]
struct Raw {
    named_metrics: RawMetrics,
}

/// The metrics of ORCA are doubles.
#[derive(Deserialize)]
struct RawMetrics {
    in_flight: f64,
    unsent_bytes: Option<f64>,
    completed: Option<f64>,
    busy_seconds: Option<f64>,
    sent_bytes: Option<f64>,
    boot: Option<f64>,
}

/// Reads the value of the header [`HEADER`].
pub fn parse(value: &[u8]) -> Result<ParsedReport, LoadReportError> {
    if value.len() > LONGEST {
        return Err(LoadReportError::TooLong(value.len()));
    }
    let json = value.strip_prefix(b"JSON ").ok_or(LoadReportError::NotJson)?;
    let raw = serde_json::from_slice::<Raw>(json)?.named_metrics;
    if !(0.0..=f64::from(MOST_IN_FLIGHT)).contains(&raw.in_flight) {
        return Err(LoadReportError::OutOfRange(raw.in_flight));
    }
    let mut counter = ClampCounter { clamped: 0 };
    let report = LoadReport {
        in_flight: raw.in_flight.round() as u32,
        unsent_bytes: raw.unsent_bytes.map(|bytes| counter.whole(bytes, MOST_COUNTED)),
        completed: raw.completed.map(|requests| counter.whole(requests, MOST_COUNTED)),
        busy: raw
            .busy_seconds
            .map(|seconds| Duration::from_micros(counter.whole(seconds * 1e6, MOST_BUSY_MICROS))),
        sent_bytes: raw.sent_bytes.map(|bytes| counter.whole(bytes, MOST_COUNTED)),
        boot: raw.boot.map(|boot| counter.whole(boot, MOST_COUNTED)),
    };
    Ok(ParsedReport { report, clamped: counter.clamped })
}

struct ClampCounter {
    clamped: u32,
}

impl ClampCounter {
    /// Clamps `value` to 0..=`most` and rounds it.
    fn whole(&mut self, value: f64, most: u64) -> u64 {
        let most = most as f64;
        if value < 0.0 || value > most {
            self.clamped += 1;
        }
        // The cast converts NaN to 0.
        value.clamp(0.0, most).round() as u64
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JSON {{\"named_metrics\":{{\"in_flight\":{}", self.in_flight)?;
        let counts = [
            ("unsent_bytes", self.unsent_bytes),
            ("completed", self.completed),
            ("sent_bytes", self.sent_bytes),
            ("boot", self.boot),
        ];
        for (name, value) in counts {
            if let Some(value) = value {
                write!(formatter, ",\"{name}\":{}", value.min(MOST_COUNTED))?;
            }
        }
        if let Some(busy) = self.busy {
            write!(formatter, ",\"busy_seconds\":{:.6}", busy.as_secs_f64())?;
        }
        formatter.write_str("}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metrics: &str, in_flight: u32, clamped: u32) {
        let parsed = parse(format!("JSON {{\"named_metrics\":{{{metrics}}}}}").as_bytes()).unwrap();
        assert_eq!((parsed.report.in_flight, parsed.clamped), (in_flight, clamped), "{metrics}");
    }

    #[test]
    fn a_report_of_the_requests_in_flight_alone_is_enough() {
        check("\"in_flight\":3", 3, 0);
        check("\"in_flight\":3,\"something_else\":9", 3, 0);
    }

    #[test]
    fn a_value_outside_of_its_limits_is_clamped_and_counted() {
        check("\"in_flight\":1e6,\"completed\":-1", MOST_IN_FLIGHT, 1);
        check("\"in_flight\":1,\"sent_bytes\":1e300,\"busy_seconds\":-1e300", 1, 2);
    }

    #[test]
    fn an_invalid_report_is_an_error() {
        let long = format!("JSON {{\"named_metrics\":{{\"in_flight\":1}}{}}}", " ".repeat(LONGEST));
        for value in [
            "",
            "JSON",
            "JSON {}",
            "JSON {\"named_metrics\":{}}",
            "JSON {\"named_metrics\":{\"in_flight\":NaN}}",
            "JSON {\"named_metrics\":{\"in_flight\":1e999}}",
            "JSON {\"named_metrics\":{\"in_flight\":\"1\"}}",
            "JSON {\"named_metrics\":{\"in_flight\":-1}}",
            "JSON {\"named_metrics\":{\"in_flight\":1e18}}",
            "TEXT in_flight=1",
            &long,
            &format!("JSON {}", "[".repeat(4000)),
        ] {
            assert!(parse(value.as_bytes()).is_err(), "{value}");
        }
    }
}
