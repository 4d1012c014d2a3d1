//! The flags of `fingerpost up`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::balancer::BalancingArguments;
use super::{ConfigArguments, overrides, path, text_path};
use crate::settings::Override;

/// Flags of `fingerpost up`.
#[derive(Debug, Clone, Args)]
pub struct UpArguments {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// How many servers to start, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub servers: usize,
    /// The folder that all of them serve [default: files, or built-in samples where there is no such folder]
    #[arg(long, value_name = "DIR", value_parser = text_path())]
    pub root: Option<PathBuf>,
    /// The port of the balancer; 0 asks for a free one [default: 0]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// How the balancer balances.
    #[command(flatten)]
    pub balancing: BalancingArguments,
}

impl UpArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        let mut list = self.balancing.overrides();
        list.extend(overrides! {
            "server.root" => path(self.root.as_ref()),
            "balancer.port" => self.port,
        });
        list
    }
}
