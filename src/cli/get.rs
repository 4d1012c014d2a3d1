//! The flags of `fingerpost get`: those of curl and aria2 where these have one for the purpose.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

/// Flags of `fingerpost get`.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "a flag without a value is a bool until it is validated")]
pub struct GetArguments {
    /// What to download, such as http://127.0.0.1:8080/plshelp.txt, or a Metalink file (FILE.meta4)
    #[arg(value_name = "URL", required_unless_present = "input_file")]
    pub urls: Vec<String>,
    /// Write to this file instead of one named like the last part of the URL; - is standard output
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["output_dir", "input_file"])]
    pub output: Option<PathBuf>,
    /// Name the file like the last part of the URL, which is the default
    #[arg(short = 'O', long, conflicts_with = "output")]
    pub remote_name: bool,
    /// Name the file as the server's Content-Disposition says
    #[arg(short = 'J', long, conflicts_with = "output")]
    pub remote_header_name: bool,
    /// Write the files into this folder
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Go on with what an earlier run left, which is the default; only - is understood
    #[arg(short = 'C', long, value_name = "-", value_parser = ["-"])]
    pub continue_at: Option<String>,
    /// Begin anew, whatever an earlier run left
    #[arg(long, conflicts_with = "continue_at")]
    pub no_resume: bool,
    /// Leave a file that is there already as it is
    #[arg(long)]
    pub no_clobber: bool,
    /// Download the addresses in this file too, one a line; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
    /// How many files are downloaded at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// From how many servers one file is taken at once, where that saves time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sources: u16,
    /// The file's digest as sha-256=HEX, sha-512=HEX or sha-1=HEX; any other file is not kept
    #[arg(long, value_name = "TYPE=DIGEST")]
    pub checksum: Option<String>,
    /// Failures in a row after which a server is given up [default: 5, and none for the first request]
    #[arg(long, value_name = "N")]
    pub retry: Option<u32>,
    /// Try nothing again after this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub retry_max_time: Option<Duration>,
    /// Where the balancer has no server (503), wait as long as it says and ask again
    #[arg(long)]
    pub wait: bool,
    /// The most bytes a second, such as 500K or 2M, over all connections
    #[arg(long, value_name = "RATE")]
    pub limit_rate: Option<ByteSize>,
    /// How long connecting may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub connect_timeout: Duration,
    /// How long each download may take in all
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub max_time: Option<Duration>,
    /// How many redirects are followed
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub max_redirs: usize,
    /// Use IPv4 alone
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Use IPv6 alone
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Do not check certificates: what comes may be from anybody
    #[arg(short = 'k', long)]
    pub insecure: bool,
    /// Trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Send this header line too; credentials go to the URL's own host only
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// As of curl, so that its command lines work: redirects are followed anyway
    #[arg(short = 'L', long, hide = true)]
    pub location: bool,
    /// As of curl: an error answer is never saved anyway
    #[arg(short = 'f', long, hide = true)]
    pub fail: bool,
    /// As of curl: errors are shown anyway
    #[arg(short = 'S', long, hide = true)]
    pub show_error: bool,
    /// As of curl: there is no configuration file to be ignored
    #[arg(short = 'q', hide = true)]
    pub disable: bool,
    /// Show neither redirects nor progress
    #[arg(short, long)]
    pub silent: bool,
    /// Say on standard error which servers were offered, chosen and dropped, and why
    #[arg(short = 'v', long)]
    pub explain: bool,
    /// Print one JSON object for each file at its end
    #[arg(long)]
    pub json: bool,
    /// How progress is shown on standard error [default: bar on a terminal, else plain]
    #[arg(long, value_enum, value_name = "HOW")]
    pub progress: Option<ProgressMode>,
    /// Do not wait until finished files are on the disk: faster, but a power failure may take them
    #[arg(long)]
    pub no_sync: bool,
    /// How long the head of an answer may take before a second server is asked too
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, hide_short_help = true)]
    pub head_after: Duration,
    /// How long a server may be silent before a second one is asked too
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, hide_short_help = true)]
    pub hedge_after: Duration,
    /// How long a server may be silent before it is given up
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds, hide_short_help = true)]
    pub drop_after: Duration,
    /// How often what came is made safe against a crash
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, hide_short_help = true)]
    pub checkpoint_interval: Duration,
    /// The rest after a first failure; it doubles with each further one
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds, hide_short_help = true)]
    pub retry_delay: Duration,
    /// Smaller files are taken from several servers only where more than 10 s are left
    #[arg(long, value_name = "SIZE", default_value = "8MiB", hide_short_help = true)]
    pub parallel_size: ByteSize,
    /// The time left from which on a large file is taken from several servers
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, hide_short_help = true)]
    pub parallel_time: Duration,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar for each file and a row for each server.
    Bar,
    /// A line now and then.
    Plain,
    /// A JSON object now and then.
    Json,
    /// Not at all.
    None,
}

/// A plain number of seconds, as curl takes it, or a number with a unit, such as `500ms`.
fn seconds(text: &str) -> Result<Duration, String> {
    if let Ok(number) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(number).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}
