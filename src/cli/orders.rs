//! The flags of the commands that question a running balancer or give it orders.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::ConfigArguments;

const DRAIN_EXAMPLES: &str = "\
Examples:
  fingerpost drain mirror3.example:8080 --note 'new disk' --until 2h
  fingerpost drain --wait mirror3.example:8080 && ssh mirror3 reboot
  fingerpost drain zone=eu

The server gets no new clients. --wait needs a server with load reports.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const ENABLE_EXAMPLES: &str = "\
Examples:
  fingerpost enable mirror3.example:8080
  fingerpost enable zone=eu

Ends drain and disable. A weight stays.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const DISABLE_EXAMPLES: &str = "\
Examples:
  fingerpost disable mirror3.example:8080 --note 'moves to Ulm' --until 2026-12-24T18:00:00Z

The server gets neither clients nor probes.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const WEIGHT_EXAMPLES: &str = "\
Examples:
  fingerpost weight mirror3.example:8080 5
  fingerpost weight mirror3.example:8080 list

The word list returns to the weight of the list of servers.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  fingerpost explain http://lb.example/debian.iso --client 192.0.2.7
  fingerpost explain --json /debian.iso | jq .choice

Nothing is redirected or counted. Candidates are marked with +.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const EVENTS_EXAMPLES: &str = "\
Examples:
  fingerpost events
  fingerpost events mirror3.example:8080 --limit 10

Exit codes: 0 success, 1 failure, 2 wrong flags";

const STATS_EXAMPLES: &str = "\
Examples:
  fingerpost stats
  fingerpost stats --days 30 --by server
  fingerpost stats --days 7 --by directory --csv >directories.csv

The balancer counts downloads with --statistics-days. Days are those of UTC.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const MIRRORS_EXAMPLES: &str = "\
Examples:
  fingerpost mirrors
  fingerpost mirrors --json | jq '.mirrors[] | select(.lacking_files > 0).mirror'

Coverage is the part of the catalogue for which a server may get clients.
Exit codes: 0 success, 1 failure, 2 wrong flags";

const SCAN_EXAMPLES: &str = "\
Examples:
  fingerpost scan mirror3.example:8080
  fingerpost scan mirror3.example:8080 --now && fingerpost mirrors

Needs scan= in the line of the server. Without --now, the scan waits for the end of
scan_interval.
Exit codes: 0 success, 1 failure, 2 wrong flags";

/// The flags that name a running balancer.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArguments {
    /// Admin address of the balancer [default: variable FINGERPOST_ADMIN, else the key balancer.admin]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// File with the token of the balancer
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// PEM file of the certificates to trust at an https address [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print the answer of the API as JSON
    #[arg(long)]
    pub json: bool,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
}

/// The flags of every order.
#[derive(Debug, Clone, Args)]
pub(crate) struct OrderArguments {
    /// Server as host:port or as the URL in the list, or zone=NAME for all servers of a zone
    #[arg(value_name = "BACKEND")]
    pub backend: String,
    /// Reason, for other operators and the log
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// Flags of `fingerpost drain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub(crate) struct DrainArguments {
    /// The order.
    #[command(flatten)]
    pub order: OrderArguments,
    /// End of the order, such as 2h or 2026-12-24T18:00:00Z [default: none]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Wait until the server has no download in flight
    #[arg(long)]
    pub wait: bool,
}

/// Flags of `fingerpost disable`.
#[derive(Debug, Clone, Args)]
#[command(after_help = DISABLE_EXAMPLES)]
pub(crate) struct DisableArguments {
    /// The order.
    #[command(flatten)]
    pub order: OrderArguments,
    /// End of the order, such as 2h or 2026-12-24T18:00:00Z [default: none]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Flags of `fingerpost enable`.
#[derive(Debug, Clone, Args)]
#[command(after_help = ENABLE_EXAMPLES)]
pub(crate) struct EnableArguments {
    /// The order.
    #[command(flatten)]
    pub order: OrderArguments,
}

/// Flags of `fingerpost weight`.
#[derive(Debug, Clone, Args)]
#[command(after_help = WEIGHT_EXAMPLES)]
pub(crate) struct WeightArguments {
    /// The order.
    #[command(flatten)]
    pub order: OrderArguments,
    /// Weight from 1 to 1000, or list for the one of the list
    #[arg(value_name = "N", value_parser = weight)]
    pub weight: OrderedWeight,
    /// End of the order, such as 2h or 2026-12-24T18:00:00Z [default: none]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// A weight in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderedWeight {
    /// The one of the list.
    OfList,
    /// Another one.
    Number(u32),
}

fn weight(text: &str) -> Result<OrderedWeight, String> {
    match (text, text.parse()) {
        ("list", _) => Ok(OrderedWeight::OfList),
        (_, Ok(number)) => Ok(OrderedWeight::Number(number)),
        _ => Err("it must be a whole number from 1 to 1000, or the word list".to_owned()),
    }
}

/// Flags of `fingerpost explain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct ExplainArguments {
    /// URL or path that a client requests
    #[arg(value_name = "URL")]
    pub url: String,
    /// Address of the client [default: unknown]
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// Flags of `fingerpost events`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EVENTS_EXAMPLES)]
pub(crate) struct EventsArguments {
    /// Server as host:port or as the URL in the list [default: all]
    #[arg(value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Number of events, newest last
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// Flags of `fingerpost stats`.
#[derive(Debug, Clone, Args)]
#[command(after_help = STATS_EXAMPLES)]
pub(crate) struct StatsArguments {
    /// Number of days, the last one is today
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub days: u32,
    /// Meaning of the rows
    #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["file", "directory", "server", "day"]), default_value = "file")]
    pub by: String,
    /// Number of rows
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// Flags of `fingerpost mirrors`.
#[derive(Debug, Clone, Args)]
#[command(after_help = MIRRORS_EXAMPLES)]
pub(crate) struct MirrorsArguments {
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// Flags of `fingerpost scan`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SCAN_EXAMPLES)]
pub(crate) struct ScanArguments {
    /// Server as host:port or as the URL in the list
    #[arg(value_name = "MIRROR")]
    pub mirror: String,
    /// Scan at once, even if the last scan was a moment ago
    #[arg(long)]
    pub now: bool,
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}
