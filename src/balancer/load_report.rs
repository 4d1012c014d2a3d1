//! What a server says of its own load on each probe answer, in the header of the Open Request Cost Aggregation
//! standard (ORCA): `endpoint-load-metrics: JSON {"named_metrics":{"in_flight":3}}`.
//!
//! The file server writes it, the prober reads it. Any other server may send it too; only `in_flight` is required.
//! Servers lie, so a value that cannot be true is clamped and counted, and nothing here can panic. Where it is `in_flight`,
//! the report is none: clamped to the most that can be, it would keep all clients away from the server for as long as it
//! says so.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// The name of the header.
pub const HEADER: &str = "endpoint-load-metrics";

/// A longer header is not looked at.
const LONGEST: usize = 4096;

/// No server answers more requests at once.
pub const MOST_IN_FLIGHT: u32 = 1_000_000;

/// 2^53 - 1, the greatest whole number that JSON carries exactly: the limit of every byte and request count.
pub const MOST_COUNTED: u64 = (1 << 53) - 1;

/// Ten years: as far as microseconds survive the way through a double of seconds.
const MOST_BUSY_MICROS: u64 = 10 * 365 * 86_400 * 1_000_000;

/// The load of one server at one moment. All counts start at zero when the server starts.
///
/// As text (`Display`) it is the value of the header [`HEADER`]; [`parse`] reads it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Requests being answered, the probe that asks included.
    pub in_flight: u32,
    /// Bytes of the bodies being sent that are not yet handed to the kernel.
    pub unsent_bytes: Option<u64>,
    /// Requests answered to their end; probes do not count.
    pub completed: Option<u64>,
    /// The time during which at least one request was in flight; probes do not count.
    pub busy: Option<Duration>,
    /// Bytes of bodies handed to the kernel.
    pub sent_bytes: Option<u64>,
    /// Bytes a second that left over about the last second.
    pub egress: Option<u64>,
    /// A number drawn at the server's start: another one means that everything counted starts anew.
    pub boot: Option<u64>,
}

/// A report as it was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// The report, every value within its limits.
    pub report: LoadReport,
    /// How many values beside `in_flight` were negative or too great to be true and were moved to the nearest limit.
    pub clamped: u32,
}

/// Why a header is no load report.
#[derive(Debug, thiserror::Error)]
pub enum LoadReportError {
    /// The header is longer than any report needs.
    #[error("the load report has {0} bytes, at most {LONGEST} are read")]
    TooLong(usize),
    /// Neither the JSON form nor anything else is understood.
    #[error("the load report does not start with `JSON `")]
    NotJson,
    /// The JSON is broken, or `named_metrics.in_flight` is missing.
    #[error("the load report cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// `in_flight` is negative, or more than any server answers at once.
    #[error("the load report says that {0} requests are in flight, which must be from 0 to {MOST_IN_FLIGHT}")]
    Unbelievable(f64),
}

#[derive(Deserialize)]
struct Raw {
    named_metrics: RawMetrics,
}

/// ORCA's metrics are doubles.
#[derive(Deserialize)]
struct RawMetrics {
    in_flight: f64,
    unsent_bytes: Option<f64>,
    completed: Option<f64>,
    busy_seconds: Option<f64>,
    sent_bytes: Option<f64>,
    egress_bytes_per_second: Option<f64>,
    boot: Option<f64>,
}

/// Reads the value of the header [`HEADER`].
pub fn parse(value: &[u8]) -> Result<Parsed, LoadReportError> {
    if value.len() > LONGEST {
        return Err(LoadReportError::TooLong(value.len()));
    }
    let json = value.strip_prefix(b"JSON ").ok_or(LoadReportError::NotJson)?;
    let raw = serde_json::from_slice::<Raw>(json)?.named_metrics;
    if !(0.0..=f64::from(MOST_IN_FLIGHT)).contains(&raw.in_flight) {
        return Err(LoadReportError::Unbelievable(raw.in_flight));
    }
    let mut limits = Limits { clamped: 0 };
    let report = LoadReport {
        in_flight: raw.in_flight.round() as u32,
        unsent_bytes: raw.unsent_bytes.map(|bytes| limits.whole(bytes, MOST_COUNTED)),
        completed: raw.completed.map(|requests| limits.whole(requests, MOST_COUNTED)),
        busy: raw
            .busy_seconds
            .map(|seconds| Duration::from_micros(limits.whole(seconds * 1e6, MOST_BUSY_MICROS))),
        sent_bytes: raw.sent_bytes.map(|bytes| limits.whole(bytes, MOST_COUNTED)),
        egress: raw.egress_bytes_per_second.map(|bytes| limits.whole(bytes, MOST_COUNTED)),
        boot: raw.boot.map(|boot| limits.whole(boot, MOST_COUNTED)),
    };
    Ok(Parsed { report, clamped: limits.clamped })
}

struct Limits {
    clamped: u32,
}

impl Limits {
    /// The whole number nearest to `value` from 0 to `most`.
    fn whole(&mut self, value: f64, most: u64) -> u64 {
        let most = most as f64;
        if value < 0.0 || value > most {
            self.clamped += 1;
        }
        // A cast from a float makes 0 of what is not a number.
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
            ("egress_bytes_per_second", self.egress),
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
    fn what_cannot_be_true_is_clamped_and_counted() {
        check("\"in_flight\":1e6,\"completed\":-1", MOST_IN_FLIGHT, 1);
        check("\"in_flight\":1,\"sent_bytes\":1e300,\"busy_seconds\":-1e300", 1, 2);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
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
