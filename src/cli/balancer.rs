//! The flags of `fingerpost balancer`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArguments, ListenArguments, Override, overrides, path, text_path};

/// Flags of `fingerpost balancer`; each overrides the key of the same name under `[balancer]`.
#[derive(Debug, Clone, Args)]
pub struct BalancerArguments {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The list of servers, one host:port a line [default: balancer_server_list.txt]
    #[arg(long, value_name = "FILE", value_parser = text_path())]
    pub servers: Option<PathBuf>,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArguments,
    /// How to balance.
    #[command(flatten)]
    pub balancing: BalancingArguments,
}

/// The flags that say how a balancer balances, wherever it runs.
#[derive(Debug, Clone, Args)]
pub struct BalancingArguments {
    /// Where metrics and the status API are served [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// How a server is chosen: adaptive, ranked, two-choices, round-robin, random or hash [default: adaptive]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// The time between two probes of one server [default: 2s]
    #[arg(long, value_name = "D")]
    pub probe_interval: Option<humantime::Duration>,
    /// The path that probes ask for [default: /files/plshelp.txt]
    #[arg(long, value_name = "PATH")]
    pub probe_path: Option<String>,
    /// The content of the probed file, text:SUBSTRING or sha-256:DIGITS; other content is a failure [default: any]
    #[arg(long, value_name = "VALUE")]
    pub probe_expect: Option<String>,
    /// Proxies whose X-Forwarded-For and X-Forwarded-Proto count [default: 127.0.0.0/8,::1]
    #[arg(long, value_name = "CIDR,...")]
    pub trusted_proxies: Option<String>,
    /// The status of a redirect: 301, 302, 307 or 308 [default: 301]
    #[arg(long, value_name = "CODE")]
    pub status: Option<u16>,
}

impl BalancerArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        let mut list = self.balancing.overrides();
        list.extend(overrides! {
            "balancer.servers" => path(self.servers.as_ref()),
            "balancer.host" => self.listen.host,
            "balancer.port" => self.listen.port,
            "balancer.unix_socket" => path(self.listen.unix_socket.as_ref()),
            "balancer.workers" => self.listen.workers,
        });
        list
    }
}

impl BalancingArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        overrides! {
            "balancer.admin" => self.admin,
            "balancer.policy" => self.policy,
            "balancer.probe_interval" => self.probe_interval,
            "balancer.probe_path" => self.probe_path,
            "balancer.probe_expect" => self.probe_expect,
            "balancer.status" => self.status,
            "balancer.trusted_proxies" => self.trusted_proxies,
        }
    }
}
