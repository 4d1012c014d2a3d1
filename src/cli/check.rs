//! The flags of `fingerpost check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ConfigArguments, overrides, path, text_path};
use crate::settings::Override;

/// Flags of `fingerpost check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// balancer or server [default: what --config configures, or what finds its list or folder here]
    #[arg(value_enum, value_name = "PROGRAM", hide_possible_values = true)]
    pub program: Option<Program>,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The list of servers, one host:port a line [default: balancer_server_list.txt]
    #[arg(long, value_name = "FILE", value_parser = text_path())]
    pub servers: Option<PathBuf>,
}

/// A program that reads settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// `fingerpost balancer`
    Balancer,
    /// `fingerpost server`
    Server,
}

impl CheckArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        overrides! {
            "balancer.servers" => path(self.servers.as_ref()),
        }
    }
}
