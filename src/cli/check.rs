//! The flags of `fingerpost check`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArguments, overrides, path, text_path};
use crate::settings::Override;

/// Flags of `fingerpost check`: those of the balancer that name files.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The list of servers, one host:port a line [default: balancer_server_list.txt]
    #[arg(long, value_name = "FILE", value_parser = text_path())]
    pub servers: Option<PathBuf>,
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
