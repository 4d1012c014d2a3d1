//! The flags of `fingerpost check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ConfigArguments, overrides, path, text_path};
use crate::settings::Override;

const EXAMPLES: &str = "\
Examples:
  fingerpost check                      in the folder of the list or files/
  fingerpost check balancer --config balancer.toml
  fingerpost check --servers list.txt

The port of a running program is busy, which is a problem: check only
the list (--servers) while it runs.
Exit codes: 0 no problem, 1 at least one problem, 2 wrong flags";

/// Flags of `fingerpost check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArguments {
    /// balancer or server [default: the programs in --config, or with a list or folder here]
    #[arg(value_enum, value_name = "PROGRAM", hide_possible_values = true)]
    pub program: Option<CheckedProgram>,
    /// List of servers, one host:port a line [default: balancer_server_list.txt]
    #[arg(long, value_name = "FILE", value_parser = text_path())]
    pub servers: Option<PathBuf>,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
}

/// A program that reads settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckedProgram {
    /// `fingerpost balancer`
    Balancer,
    /// `fingerpost server`
    Server,
}

impl CheckArguments {
    /// The settings that these flags override.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        overrides! {
            "balancer.servers" => path(self.servers.as_ref()),
        }
    }
}
