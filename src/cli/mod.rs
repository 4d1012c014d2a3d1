//! The command line: the single source of the help text, the man page and the shell completions.

#![allow(clippy::doc_markdown, reason = "a terminal shows these texts without formatting")]

use std::error::Error;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::settings;
use crate::telemetry::{self, LogFormat};

mod balancer;
mod check;
mod get;
mod manual;
mod orders;
mod server;
mod status;
mod up;

pub(crate) use balancer::BalancerArguments;
pub(crate) use check::{CheckArguments, CheckedProgram};
pub(crate) use get::{GetArguments, ProgressMode};
pub(crate) use manual::ManualArguments;
pub(crate) use orders::{
    AdminArguments, DisableArguments, DrainArguments, EnableArguments, EventsArguments, ExplainArguments,
    OrderArguments, OrderedWeight, WeightArguments,
};
pub(crate) use server::ServerArguments;
pub(crate) use status::StatusArguments;
pub(crate) use up::UpArguments;

const GENERAL: &str = "General";

const EXAMPLES: &str = "\
Examples:
  fingerpost up                    balancer and servers in one process
  fingerpost server --root /srv/files --port 8081
  fingerpost balancer --servers list.txt --port 8080
  fingerpost get http://127.0.0.1:8080/plshelp.txt

Exit codes: 0 success, 1 failure, 2 wrong flags; get has those of curl.
Logs go to standard error; --help-all shows --log-format and --log-level.";

/// A redirect load balancer for downloads.
#[derive(Debug, Parser)]
#[command(
    name = "fingerpost",
    version,
    about,
    after_help = EXAMPLES,
    propagate_version = true,
    max_term_width = 100,
    disable_help_flag = true,
    disable_help_subcommand = true,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Format and level of the log.
    #[command(flatten)]
    pub log: LogArguments,
    /// Help and version.
    #[command(flatten)]
    pub help: HelpArguments,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Format and level of the log.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogArguments {
    /// Format of log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", help_heading = GENERAL, hide_short_help = true)]
    pub log_format: LogFormat,
    /// Least severe level that is logged
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "LEVEL",
        help_heading = GENERAL,
        hide_short_help = true,
        value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
            .try_map(|level| level.parse::<tracing::Level>())
    )]
    pub log_level: tracing::Level,
}

/// Help and version. The parser handles these flags itself, so the fields stay empty.
#[derive(Debug, Clone, Args)]
pub(crate) struct HelpArguments {
    /// Print the usual flags, examples and exit codes
    #[arg(short, long, global = true, action = ArgAction::HelpShort, help_heading = GENERAL)]
    help: Option<bool>,
    /// Print every flag
    #[arg(long, global = true, action = ArgAction::HelpLong, help_heading = GENERAL)]
    help_all: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, global = true, action = ArgAction::Version, help_heading = GENERAL)]
    version: Option<bool>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a balancer and three servers in one process, for a first look
    Up(UpArguments),
    /// Redirect each download to one server of a list
    Balancer(BalancerArguments),
    /// Serve the files of a folder
    Server(ServerArguments),
    /// Download files through a balancer or directly from servers
    Get(Box<GetArguments>),
    /// Show the servers of a running balancer with state and reason
    Status(StatusArguments),
    /// Show the server that a client is sent to, and why not to the others
    Explain(ExplainArguments),
    /// Show the last state changes of the servers, and their availability
    Events(EventsArguments),
    /// Send no new clients to a server
    Drain(DrainArguments),
    /// Send clients to a server again, after drain or disable
    Enable(EnableArguments),
    /// Send neither clients nor probes to a server
    Disable(DisableArguments),
    /// Change the weight of a server
    Weight(WeightArguments),
    /// Check configuration, list, folders and ports without a start
    Check(CheckArguments),
    /// Print man pages and shell completions
    Manual(ManualArguments),
    /// Print the help of a command
    Help(CommandHelp),
}

/// Flags of `fingerpost help`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommandHelp {
    /// The command, such as get [default: the program]
    command: Option<String>,
}

impl CommandHelp {
    /// Writes the help to standard output.
    pub(crate) fn print(&self) -> Result<(), Box<dyn Error>> {
        let mut command = Cli::command();
        command.build();
        let text = match &self.command {
            None => command.render_help(),
            Some(name) => {
                let own = command.find_subcommand_mut(name);
                own.ok_or_else(|| manual::unknown_command(name))?.render_help()
            }
        };
        Ok(telemetry::print(text.to_string().as_bytes())?)
    }
}

/// The flag that names a configuration file.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArguments {
    /// Read settings from this TOML file; docs/configuration.md lists the keys
    #[arg(long, value_name = "FILE", help_heading = GENERAL)]
    pub config: Option<PathBuf>,
}

const LISTENING: &str = "Listening";

/// The flags that name the address of a balancer or server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListenArguments {
    /// Address to listen on [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "H", help_heading = LISTENING)]
    pub host: Option<String>,
    /// Port to listen on; 0 selects a free port [default: 0]
    #[arg(long, value_name = "P", help_heading = LISTENING)]
    pub port: Option<u16>,
    /// Certificate for HTTPS, a PEM file; repeat it for several, selected by name
    #[arg(long, value_name = "FILE", value_parser = listed_path(), help_heading = LISTENING)]
    pub tls_cert: Vec<PathBuf>,
    /// Key of the certificate, a PEM file; one for each certificate [default: in the file of the certificate]
    #[arg(long, value_name = "FILE", value_parser = listed_path(), help_heading = LISTENING)]
    pub tls_key: Vec<PathBuf>,
    /// Port for HTTPS beside the plain port; 0 selects a free port [default: 0]
    #[arg(long, value_name = "P", help_heading = LISTENING)]
    pub tls_port: Option<u16>,
    /// Use HTTPS for the admin address too
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    pub admin_tls: bool,
    /// Unix socket to listen on instead of host and port
    #[arg(long, value_name = "PATH", value_parser = text_path(), help_heading = LISTENING, hide_short_help = true)]
    pub unix_socket: Option<PathBuf>,
    /// Number of HTTP worker threads; 0 is one per processor [default: 0]
    #[arg(long, value_name = "N", help_heading = LISTENING, hide_short_help = true)]
    pub workers: Option<usize>,
}

/// Parses a time with its unit. The value keeps the text, because a key holds text.
fn time() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().try_map(|text| settings::time::parse(&text).map(|_| text))
}

/// Parses a path that a key can hold. Settings are UTF-8 text: a lossy conversion would name another file.
fn text_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|path| {
        path.into_string().map(PathBuf::from).map_err(|_| "a path that is a setting must be UTF-8")
    })
}

/// Parses a path of a list, in which a comma separates two paths.
fn listed_path() -> impl TypedValueParser<Value = PathBuf> {
    text_path().try_map(|path| {
        let has_comma = path.to_str().is_some_and(|text| text.contains(','));
        if has_comma { Err("a comma separates two paths here, so a path cannot have one") } else { Ok(path) }
    })
}

/// Joins the paths of [`listed_path`] to the value of a key.
fn path_list(paths: &[PathBuf]) -> Option<String> {
    let list: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    (!list.is_empty()).then(|| list.join(","))
}

/// Converts a path from [`text_path`] to the value of a key.
fn path(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// Converts the given flags to overrides, one `key => option` pair each.
macro_rules! overrides {
    ($($key:literal => $option:expr),* $(,)?) => {{
        let mut list: Vec<$crate::settings::Override> = Vec::new();
        $( if let Some(value) = &$option { list.push(($key, value.to_string())); } )*
        list
    }};
}
pub(crate) use overrides;
