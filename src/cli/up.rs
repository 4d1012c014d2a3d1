//! The flags of `fingerpost up`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::balancer::BalancingArguments;
use super::{ConfigArguments, LISTENING, overrides, path, text_path};
use crate::settings::Override;

const SERVERS: &str = "Servers";

const EXAMPLES: &str = "\
Examples:
  fingerpost up                         then open a printed address
  fingerpost up --servers 5 --root /srv/files --port 8080

Everything listens on 127.0.0.1. Ctrl-C ends it. Probes expect the content
of plshelp.txt.
Exit codes: 0 stopped, 1 failure, 2 wrong flags";

/// Flags of `fingerpost up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArguments {
    /// Number of servers, 1 to 64
    #[arg(long, value_name = "N", help_heading = SERVERS, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub servers: usize,
    /// Folder that all of them serve [default: files, or built-in samples if it does not exist]
    #[arg(long, value_name = "DIR", value_parser = text_path(), help_heading = SERVERS)]
    pub root: Option<PathBuf>,
    /// Port of the balancer; 0 selects a free port [default: 0]
    #[arg(long, value_name = "P", help_heading = LISTENING)]
    pub port: Option<u16>,
    /// The way of balancing.
    #[command(flatten)]
    pub balancing: BalancingArguments,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
}

impl UpArguments {
    /// The settings that these flags override.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let mut list = self.balancing.overrides();
        list.extend(overrides! {
            "server.root" => path(self.root.as_ref()),
            "balancer.port" => self.port,
        });
        list
    }
}
