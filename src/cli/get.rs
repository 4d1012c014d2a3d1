//! The flags of `fingerpost get`. A flag has its name from curl or aria2 if either has a flag for the purpose.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgAction, Args, ValueEnum};

const OUTPUT: &str = "Output";
const SOURCES: &str = "Sources and speed";
const FAILURES: &str = "Failures";
const TRUST: &str = "Integrity and trust";
const REQUESTS: &str = "Requests";
const MESSAGES: &str = "Messages";

const EXAMPLES: &str = "\
Examples:
  fingerpost get http://127.0.0.1:8080/plshelp.txt
  fingerpost get -o - http://127.0.0.1:8080/plshelp.txt | less
  fingerpost get --checksum sha-256=HEX http://mirror.example/big.iso
  fingerpost get -i list.txt --output-dir downloads

Exit codes, those of curl (docs/download.md lists all):
  0 complete           7 cannot connect     28 timeout
  2 wrong flags       18 incomplete         32 wrong checksum
  3 invalid URL       22 HTTP error         60 untrusted certificate
  6 unknown host      23 cannot write      130 interrupted";

/// Flags of `fingerpost get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "a flag without a value is a bool until it is validated")]
pub(crate) struct GetArguments {
    /// Address of the file, or a Metalink file (FILE.meta4)
    #[arg(value_name = "URL", required_unless_present = "input_file")]
    pub urls: Vec<String>,
    /// Write to this file; - is standard output
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["output_dir", "input_file"], help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
    /// Name the file like the last part of the URL (the default)
    #[arg(short = 'O', long, conflicts_with = "output", help_heading = OUTPUT, hide_short_help = true)]
    pub remote_name: bool,
    /// Use the file name of Content-Disposition
    #[arg(short = 'J', long, conflicts_with = "output", help_heading = OUTPUT)]
    pub remote_header_name: bool,
    /// Write the files into this folder
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub output_dir: Option<PathBuf>,
    /// Resume an interrupted download (the default); - is the only value
    #[arg(short = 'C', long, value_name = "-", value_parser = ["-"], help_heading = OUTPUT, hide_short_help = true)]
    pub continue_at: Option<String>,
    /// Do not resume an interrupted download
    #[arg(long, conflicts_with = "continue_at", help_heading = OUTPUT)]
    pub no_resume: bool,
    /// Keep a file that already exists
    #[arg(long, help_heading = OUTPUT)]
    pub no_clobber: bool,
    /// Do not wait until finished files are on the disk: faster, but a power failure can lose them
    #[arg(long, help_heading = OUTPUT, hide_short_help = true)]
    pub no_sync: bool,
    /// Interval at which received data is saved so that a crash loses no more
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, help_heading = OUTPUT, hide_short_help = true)]
    pub checkpoint_interval: Duration,
    /// Download the addresses in this file, one per line; - is standard input
    #[arg(short, long, value_name = "FILE", help_heading = SOURCES)]
    pub input_file: Option<PathBuf>,
    /// Files downloaded at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = SOURCES)]
    pub jobs: u16,
    /// Servers used at once for one file
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = SOURCES)]
    pub sources: u16,
    /// Maximum bytes per second in all, such as 500K or 2M
    #[arg(long, value_name = "RATE", help_heading = SOURCES)]
    pub limit_rate: Option<ByteSize>,
    /// Use several servers for a smaller file only if more than 10 s remain
    #[arg(long, value_name = "SIZE", default_value = "8MiB", help_heading = SOURCES, hide_short_help = true)]
    pub parallel_size: ByteSize,
    /// Use several servers for a large file if at least this time remains
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, help_heading = SOURCES, hide_short_help = true)]
    pub parallel_time: Duration,
    /// Wait for a response head this long before a second server is asked too
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, help_heading = SOURCES, hide_short_help = true)]
    pub head_after: Duration,
    /// Wait for a silent server this long before a second server is asked too
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, help_heading = SOURCES, hide_short_help = true)]
    pub hedge_after: Duration,
    /// Wait for a silent server this long before it is dropped
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds, help_heading = SOURCES, hide_short_help = true)]
    pub drop_after: Duration,
    /// Failures in a row that drop a server [default: 5]
    #[arg(long, value_name = "N", help_heading = FAILURES)]
    pub retry: Option<u32>,
    /// Initial retry delay; doubles after each failure
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds, help_heading = FAILURES, hide_short_help = true)]
    pub retry_delay: Duration,
    /// Do not retry after this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = FAILURES, hide_short_help = true)]
    pub retry_max_time: Option<Duration>,
    /// If the balancer has no server (503), wait and retry
    #[arg(long, help_heading = FAILURES)]
    pub wait: bool,
    /// Time limit for connecting
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = FAILURES, hide_short_help = true)]
    pub connect_timeout: Duration,
    /// Time limit for each download
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, help_heading = FAILURES)]
    pub max_time: Option<Duration>,
    /// Expected digest, such as sha-256=HEX
    #[arg(long, value_name = "TYPE=DIGEST", help_heading = TRUST)]
    pub checksum: Option<String>,
    /// Trust the certificates in this PEM file only
    #[arg(long, value_name = "FILE", help_heading = TRUST)]
    pub cacert: Option<PathBuf>,
    /// Do not verify certificates
    #[arg(short = 'k', long, help_heading = TRUST)]
    pub insecure: bool,
    /// Add a request header; credentials stay with the host of the URL
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", help_heading = REQUESTS)]
    pub headers: Vec<String>,
    /// Maximum number of redirects
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = REQUESTS, hide_short_help = true)]
    pub max_redirs: usize,
    /// Connect over IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = REQUESTS, hide_short_help = true)]
    pub ipv4: bool,
    /// Connect over IPv6 only
    #[arg(short = '6', long, help_heading = REQUESTS, hide_short_help = true)]
    pub ipv6: bool,
    /// Show neither redirects nor progress; errors are still shown
    #[arg(short, long, help_heading = MESSAGES)]
    pub silent: bool,
    /// Explain which servers were offered, chosen and dropped
    #[arg(short = 'v', long, help_heading = MESSAGES)]
    pub explain: bool,
    /// Print one JSON object per file
    #[arg(long, help_heading = MESSAGES)]
    pub json: bool,
    /// Form of progress: bar, plain, json or none
    #[arg(long, value_enum, value_name = "FORM", hide_possible_values = true, help_heading = MESSAGES)]
    pub progress: Option<ProgressMode>,
    /// Flags of curl.
    #[command(flatten)]
    pub curl: CurlArguments,
}

/// Flags of curl whose effect `get` has anyway. They are accepted so that command lines written for curl work.
#[derive(Debug, Clone, Args)]
pub(crate) struct CurlArguments {
    /// Redirects are followed in any case
    #[arg(short = 'L', long = "location", hide = true, action = ArgAction::Count)]
    location: u8,
    /// An HTTP error is a failure in any case
    #[arg(short = 'f', long = "fail", hide = true, action = ArgAction::Count)]
    fail: u8,
    /// Errors are shown in any case
    #[arg(short = 'S', long = "show-error", hide = true, action = ArgAction::Count)]
    show_error: u8,
    /// The configuration of curl is not read in any case
    #[arg(short = 'q', long = "disable", hide = true, action = ArgAction::Count)]
    disable: u8,
}

/// The form of the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar for each file and a row for each server.
    Bar,
    /// A line every few seconds.
    Plain,
    /// A JSON object every few seconds.
    Json,
    /// No progress.
    None,
}

/// Parses a number of seconds, as curl takes it, or a time with its unit, such as `500ms`.
fn seconds(text: &str) -> Result<Duration, String> {
    if let Ok(number) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(number).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}
