//! The flags of `fingerpost balancer`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{ConfigArguments, LISTENING, ListenArguments, overrides, path, path_list, text_path, time};
use crate::settings::Override;

const EXAMPLES: &str = "\
Examples:
  fingerpost balancer --port 8080       list: balancer_server_list.txt
  fingerpost balancer --servers list.txt --admin 127.0.0.1:9100
  fingerpost check balancer             report all problems of a start

Edits of the list take effect while the balancer runs. The page at the
admin address shows the servers. SIGTERM and Ctrl-C end the balancer.
Exit codes: 0 stopped, 1 failure, 2 wrong flags";

const BALANCING: &str = "Balancing";

/// Flags of `fingerpost balancer`; each overrides the key of the same name under `[balancer]`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BalancerArguments {
    /// List of servers, one host:port a line [default: balancer_server_list.txt]
    #[arg(long, value_name = "FILE", value_parser = text_path(), help_heading = BALANCING)]
    pub servers: Option<PathBuf>,
    /// Source of servers instead of the list: file:PATH, dns://name:port, dns+srv://name, a URL or redis://host; repeatable
    #[arg(long, value_name = "SOURCE", help_heading = BALANCING)]
    pub backends: Vec<String>,
    /// Folder for orders, health and counters, which then survive a restart [default: none]
    #[arg(long, value_name = "DIR", value_parser = text_path(), help_heading = BALANCING)]
    pub state: Option<PathBuf>,
    /// File that gets a line for each answer [default: none]
    #[arg(long, value_name = "FILE", value_parser = text_path(), help_heading = BALANCING)]
    pub access_log: Option<PathBuf>,
    /// List of all files, lines of sha256sum or JSON; only servers that have a file get requests for it [default: none]
    #[arg(long, value_name = "FILE|URL", help_heading = BALANCING)]
    pub catalogue: Option<String>,
    /// Folder with all files, instead of a list of them [default: none]
    #[arg(long, value_name = "DIR", value_parser = text_path(), help_heading = BALANCING, hide_short_help = true, conflicts_with = "catalogue")]
    pub catalogue_root: Option<PathBuf>,
    /// Webroot of certbot, from which challenges of authorities are served [default: none]
    #[arg(long, value_name = "DIR", value_parser = text_path(), help_heading = BALANCING, hide_short_help = true)]
    pub acme_webroot: Option<PathBuf>,
    /// Redis or Valkey through which balancers share observations and orders, redis://HOST:PORT [default: none]
    #[arg(long, value_name = "URL", help_heading = BALANCING)]
    pub fleet: Option<String>,
    /// Name of this balancer in the fleet [default: host name and port]
    #[arg(long, value_name = "NAME", help_heading = BALANCING, hide_short_help = true)]
    pub fleet_name: Option<String>,
    /// Zone of this balancer, whose servers come first in each tier [default: none]
    #[arg(long, value_name = "Z", help_heading = BALANCING)]
    pub zone: Option<String>,
    /// PEM file of authorities to trust for https servers [default: those of the system]
    #[arg(long, value_name = "FILE", value_parser = text_path(), help_heading = BALANCING)]
    pub backend_ca: Option<PathBuf>,
    /// The address.
    #[command(flatten)]
    pub listen: ListenArguments,
    /// The way of balancing.
    #[command(flatten)]
    pub balancing: BalancingArguments,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
}

/// The names of the policies, for help and completions.
const POLICIES: [&str; 6] = ["adaptive", "ranked", "two-choices", "round-robin", "random", "hash"];

/// The flags for the way of balancing.
#[derive(Debug, Clone, Args)]
pub(crate) struct BalancingArguments {
    /// Address of status page and metrics [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR", help_heading = LISTENING)]
    pub admin: Option<String>,
    /// File with a token that changes over the admin address need [default: none]
    #[arg(long, value_name = "FILE", value_parser = text_path(), help_heading = LISTENING)]
    pub admin_token: Option<PathBuf>,
    /// Selection of the server (docs/selection.md) [default: adaptive]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(POLICIES), help_heading = BALANCING)]
    pub policy: Option<String>,
    /// Interval between two probes of a server [default: 2s]
    #[arg(long, value_name = "D", value_parser = time(), help_heading = BALANCING)]
    pub probe_interval: Option<String>,
    /// Path that probes request [default: /files/plshelp.txt]
    #[arg(long, value_name = "PATH", help_heading = BALANCING)]
    pub probe_path: Option<String>,
    /// Content of the probed file, text:SUBSTRING or sha-256:DIGITS; other content is a failure [default: any]
    #[arg(long, value_name = "VALUE", help_heading = BALANCING)]
    pub probe_expect: Option<String>,
    /// Proxies whose X-Forwarded-For and X-Forwarded-Proto count [default: 127.0.0.0/8,::1]
    #[arg(long, value_name = "CIDR,...", help_heading = BALANCING)]
    pub trusted_proxies: Option<String>,
    /// Status of a redirect [default: 301]
    #[arg(long, value_name = "CODE", value_parser = PossibleValuesParser::new(["301", "302", "307", "308"]), help_heading = BALANCING)]
    pub status: Option<String>,
}

impl BalancerArguments {
    /// The settings that these flags override.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let mut list = self.balancing.overrides();
        list.extend(overrides! {
            "balancer.servers" => path(self.servers.as_ref()),
            "balancer.backends" => (!self.backends.is_empty()).then(|| self.backends.join("\n") + "\n"),
            "balancer.catalogue" => self.catalogue,
            "balancer.catalogue_root" => path(self.catalogue_root.as_ref()),
            "balancer.access_log" => path(self.access_log.as_ref()),
            "balancer.state" => path(self.state.as_ref()),
            "balancer.acme_webroot" => path(self.acme_webroot.as_ref()),
            "balancer.fleet" => self.fleet,
            "balancer.fleet_name" => self.fleet_name,
            "balancer.zone" => self.zone,
            "balancer.backend_ca" => path(self.backend_ca.as_ref()),
            "balancer.host" => self.listen.host,
            "balancer.port" => self.listen.port,
            "balancer.unix_socket" => path(self.listen.unix_socket.as_ref()),
            "balancer.tls_cert" => path_list(&self.listen.tls_cert),
            "balancer.tls_key" => path_list(&self.listen.tls_key),
            "balancer.tls_port" => self.listen.tls_port,
            "balancer.admin_tls" => self.listen.admin_tls.then_some(true),
            "balancer.workers" => self.listen.workers,
        });
        list
    }
}

impl BalancingArguments {
    /// The settings that these flags override.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        overrides! {
            "balancer.admin" => self.admin,
            "balancer.admin_token" => path(self.admin_token.as_ref()),
            "balancer.policy" => self.policy,
            "balancer.probe_interval" => self.probe_interval,
            "balancer.probe_path" => self.probe_path,
            "balancer.probe_expect" => self.probe_expect,
            "balancer.status" => self.status,
            "balancer.trusted_proxies" => self.trusted_proxies,
        }
    }
}
