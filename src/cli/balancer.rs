//! The flags of `fingerpost balancer`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArguments, Override, overrides};

/// Flags of `fingerpost balancer`; each overrides the key of the same name under `[balancer]`.
#[derive(Debug, Clone, Args)]
pub struct BalancerArguments {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The list of servers, one host:port a line [default: balancer_server_list.txt]
    #[arg(long, value_name = "FILE")]
    pub servers: Option<PathBuf>,
    /// The address to listen on [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "H")]
    pub host: Option<String>,
    /// The port to listen on; 0 asks for a free one [default: 0]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// A Unix socket to listen on in place of host and port [default: none]
    #[arg(long, value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
    /// Where metrics and the status API are served [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// How a server is chosen
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// The time between two probes of one server [default: 2s]
    #[arg(long, value_name = "D")]
    pub probe_interval: Option<humantime::Duration>,
    /// The path that probes ask for [default: /files/plshelp.txt]
    #[arg(long, value_name = "PATH")]
    pub probe_path: Option<String>,
    /// The status of a redirect: 301, 302, 307 or 308 [default: 301]
    #[arg(long, value_name = "CODE")]
    pub status: Option<u16>,
    /// HTTP worker threads; 0 means one for each processor [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
}

impl BalancerArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        overrides! {
            "balancer.servers" => self.servers.as_ref().map(|path| path.display().to_string()),
            "balancer.host" => self.host,
            "balancer.port" => self.port,
            "balancer.unix_socket" => self.unix_socket.as_ref().map(|path| path.display().to_string()),
            "balancer.admin" => self.admin,
            "balancer.policy" => self.policy,
            "balancer.probe_interval" => self.probe_interval,
            "balancer.probe_path" => self.probe_path,
            "balancer.status" => self.status,
            "balancer.workers" => self.workers,
        }
    }
}
