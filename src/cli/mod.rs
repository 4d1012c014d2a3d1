//! The command line: the one source of the help text, the man page and the shell completions.

#![allow(clippy::doc_markdown, reason = "these texts are shown in a terminal as they stand")]

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings;

mod balancer;
mod check;
mod get;
mod manual;
mod server;
mod status;
mod up;

pub use balancer::{BalancerArguments, BalancingArguments};
pub use check::{CheckArguments, Program};
pub use get::{GetArguments, ProgressMode};
pub use manual::ManualArguments;
pub use server::ServerArguments;
pub use status::StatusArguments;
pub use up::UpArguments;

/// A redirect load balancer for downloads.
#[derive(Debug, Parser)]
#[command(name = "fingerpost", version, about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Where logs go and how they look.
    #[command(flatten)]
    pub log: LogArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How logs look; they always go to standard error.
#[derive(Debug, Clone, Args)]
pub struct LogArguments {
    /// How log lines on standard error are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// The least important level that is logged: error, warn, info, debug or trace
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub log_level: tracing::Level,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text for each event, coloured on a terminal.
    Text,
    /// One JSON object for each event.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a balancer and three servers in this process, for a first look
    Up(UpArguments),
    /// Redirect each request to the best server of a list
    Balancer(BalancerArguments),
    /// Serve the files of a folder
    Server(ServerArguments),
    /// Download a file through a balancer or straight from a server
    Get(Box<GetArguments>),
    /// Show the servers of a running balancer, and why each is where it is
    Status(StatusArguments),
    /// Say what would run, and what is wrong with configuration and list
    Check(CheckArguments),
    /// Print the man page or the completions of a shell
    #[command(hide = true)]
    Manual(ManualArguments),
}

/// The flag that names a configuration file, which several commands have.
#[derive(Debug, Clone, Args)]
pub struct ConfigArguments {
    /// Read settings from this TOML file; docs/configuration.md lists the keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The flags that say where a program listens, which balancer and server have.
#[derive(Debug, Clone, Args)]
pub struct ListenArguments {
    /// The address to listen on [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "H")]
    pub host: Option<String>,
    /// The port to listen on; 0 asks for a free one [default: 0]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// A Unix socket to listen on in place of host and port [default: none]
    #[arg(long, value_name = "PATH", value_parser = text_path())]
    pub unix_socket: Option<PathBuf>,
    /// HTTP worker threads; 0 means one for each processor [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
}

/// A time with its unit, as the keys take it. The value keeps the text, since a key holds text.
fn time() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().try_map(|text| settings::time::parse(&text).map(|_| text))
}

/// Takes a path that a key can hold: settings are text, and another path would be that of another file.
fn text_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|path| {
        path.into_string().map(PathBuf::from).map_err(|_| "a path that is a setting must be UTF-8")
    })
}

/// A path from [`text_path`] as the value of a key.
fn path(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// Turns the flags that were given into overrides, one `key => option` pair each.
macro_rules! overrides {
    ($($key:literal => $option:expr),* $(,)?) => {{
        let mut list: Vec<$crate::settings::Override> = Vec::new();
        $( if let Some(value) = &$option { list.push(($key, value.to_string())); } )*
        list
    }};
}
pub(crate) use overrides;
