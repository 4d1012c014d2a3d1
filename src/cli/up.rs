//! The flags of `fingerpost up`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{ConfigArguments, Override, overrides};

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
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The port of the balancer; 0 asks for a free one [default: 0]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// Where metrics and the status API are served [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// How a server is chosen
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
}

impl UpArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        overrides! {
            "server.root" => self.root.as_ref().map(|path| path.display().to_string()),
            "balancer.port" => self.port,
            "balancer.admin" => self.admin,
            "balancer.policy" => self.policy,
        }
    }
}
