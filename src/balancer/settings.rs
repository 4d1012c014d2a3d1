//! The section `[balancer]`: raw values, and validated settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Uri;
use serde::Deserialize;
use url::Url;

use crate::balancer::fleet::record;
use crate::balancer::health::HealthCheckConfig;
use crate::balancer::policy::MOST_ALTERNATES;
use crate::balancer::presence::source::CatalogueSource;
use crate::balancer::probe::ProbeSettings;
use crate::balancer::probe::schedule::ProbeBudget;
use crate::balancer::ranking::RankingSettings;
use crate::balancer::redirect::answer::RedirectStatus;
use crate::balancer::redirect::client::TrustedProxies;
use crate::balancer::sources::{MAX_SOURCES, SourceAddress, SourceAddressError, SourceSettings};
use crate::balancer::webhook::Webhook;
use crate::engine::{EngineAddress, EngineUrlError};
use crate::hosting::{HostSettings, ProgramSettings, host_settings};
use crate::http::access_log::Format;
use crate::http::tls::Trust;
use crate::http::transport::{Limits, REFUSED_AT_ONCE};
use crate::open_files::{Need, SettingsOrigin};
use crate::settings::reload::FixedKeys;
use crate::settings::{self, SettingsError, at_least, at_least_one, host_and_port, parsed, path};

/// The keys of `[balancer]`; `config/default.toml` explains each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key")]
pub(crate) struct RawBalancerSettings {
    pub servers: String,
    #[serde(deserialize_with = "crate::settings::list")]
    pub backends: Vec<String>,
    #[serde(with = "crate::settings::time")]
    pub backends_interval: Duration,
    #[serde(with = "crate::settings::time")]
    pub backends_hold: Duration,
    pub dns_server: String,
    pub host: String,
    pub port: u16,
    pub unix_socket: PathBuf,
    pub unix_socket_mode: String,
    pub tls_cert: String,
    pub tls_key: String,
    pub tls_port: u16,
    pub admin_tls: bool,
    pub admin: String,
    pub admin_token: PathBuf,
    pub state: PathBuf,
    pub access_log: PathBuf,
    pub access_log_format: Format,
    pub catalogue: String,
    pub catalogue_root: PathBuf,
    #[serde(with = "crate::settings::time")]
    pub proof_interval: Duration,
    pub webhook: String,
    #[serde(with = "crate::settings::time")]
    pub webhook_after: Duration,
    pub workers: usize,
    pub max_connections: usize,
    pub max_connections_per_address: u32,
    pub status: u16,
    pub policy: String,
    #[serde(with = "crate::settings::time")]
    pub probe_interval: Duration,
    #[serde(with = "crate::settings::time")]
    pub probe_timeout: Duration,
    pub probe_path: String,
    pub probe_expect: String,
    pub probe_concurrency: usize,
    pub probe_budget: u32,
    pub fall: u32,
    pub rise: u32,
    #[serde(with = "crate::settings::time")]
    pub probe_backoff_max: Duration,
    #[serde(with = "crate::settings::time")]
    pub slow_start: Duration,
    #[serde(with = "crate::settings::time")]
    pub shutdown_timeout: Duration,
    pub alternates: usize,
    pub second_chance: bool,
    pub size_lookups: bool,
    pub trusted_proxies: String,
    pub acme_webroot: String,
    pub backend_ca: String,
    pub metrics_backends: usize,
    pub fault_injection: bool,
    pub zone: String,
    pub fleet: String,
    pub fleet_name: String,
    pub fleet_probers: usize,
}

/// Validated settings of a balancer.
#[derive(Debug, Clone)]
pub(crate) struct BalancerSettings {
    /// The sources of backends.
    pub sources: SourceSettings,
    /// The settings that the file server has, too.
    pub host: HostSettings,
    /// Host and port of the admin listener.
    pub admin: (String, u16),
    /// The file of the token for changes over the admin listener.
    pub admin_token: Option<PathBuf>,
    /// The folder with the state that survives a restart.
    pub state: Option<PathBuf>,
    /// The list of all files.
    pub catalogue: Option<CatalogueSource>,
    /// The time between two proofs of a mirror.
    pub proof_interval: Duration,
    /// The receiver of notifications.
    pub webhook: Option<Webhook>,
    /// The status of a redirect.
    pub status: RedirectStatus,
    /// The rules for choice, states and probe intervals.
    pub ranking: RankingSettings,
    /// The requests of probes.
    pub probes: ProbeSettings,
    /// The number of other servers in the `Link` lines of a redirect.
    pub alternates: usize,
    /// Whether a client that requests the same file again is sent to another server.
    pub second_chance: bool,
    /// Whether the sizes of files are looked up at the servers.
    pub size_lookups: bool,
    /// The largest number of backends with separate metrics.
    pub metrics_backends: usize,
    /// The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
    pub trusted_proxies: TrustedProxies,
    /// The folder whose challenges are served to certificate authorities, as that of `certbot --webroot`.
    pub acme_webroot: Option<PathBuf>,
    /// The authorities of the certificates of https backends.
    pub trust: Trust,
    /// Whether a request to the admin listener may make an actor panic.
    pub fault_injection: bool,
    /// The zone of the balancer, whose backends come first in each tier.
    pub zone: Option<Arc<str>>,
    /// The membership in a fleet; `None` for a balancer that works alone.
    pub fleet: Option<Membership>,
}

/// The membership of a balancer in a fleet.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// The engine through which the balancers share.
    pub engine: EngineAddress,
    /// The name of the balancer; `None` for host name and port.
    pub name: Option<Arc<str>>,
    /// The number of balancers that probe each backend at the full rate.
    pub probers: usize,
}

/// The keys whose change needs a restart.
pub(crate) const FIXED_KEYS: FixedKeys = FixedKeys {
    section: "balancer",
    fixed: "servers backends backends_interval backends_hold dns_server host port unix_socket unix_socket_mode tls_port \
            admin_tls admin state access_log_format catalogue catalogue_root proof_interval webhook webhook_after workers \
            size_lookups acme_webroot metrics_backends fault_injection zone fleet fleet_name fleet_probers",
    switches: &["tls_cert", "access_log"],
};

/// The shortest probe interval. With shorter ones, a probe measures mainly the scheduler.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);

/// The shortest time between two proofs of a mirror.
const SHORTEST_PROOF_INTERVAL: Duration = Duration::from_millis(100);

/// The number of local ports, and so the limit of concurrent probes.
const MOST_PROBES: usize = 65_535;

impl TryFrom<RawBalancerSettings> for BalancerSettings {
    type Error = SettingsError;

    fn try_from(raw: RawBalancerSettings) -> Result<Self, SettingsError> {
        at_least_one("balancer.max_connections", raw.max_connections)?;
        at_least_one("balancer.max_connections_per_address", raw.max_connections_per_address)?;
        at_least_one("balancer.fall", raw.fall)?;
        at_least_one("balancer.rise", raw.rise)?;
        at_least_one("balancer.probe_concurrency", raw.probe_concurrency)?;
        at_least_one("balancer.probe_budget", raw.probe_budget)?;
        if raw.probe_concurrency > MOST_PROBES {
            let reason = format!("each probe is a connection; it must be at most {MOST_PROBES}");
            return Err(SettingsError::value("balancer.probe_concurrency", raw.probe_concurrency, reason));
        }
        at_least("balancer.probe_interval", raw.probe_interval, SHORTEST_INTERVAL)?;
        if raw.probe_timeout.is_zero() {
            let reason = "it must be more than 0s, such as 1s";
            return Err(SettingsError::value("balancer.probe_timeout", "0s", reason));
        }
        if !is_probe_path(&raw.probe_path) {
            let reason = "it must be the path of a URL and start with a slash, such as /files/plshelp.txt";
            return Err(SettingsError::value("balancer.probe_path", raw.probe_path, reason));
        }
        if raw.alternates > MOST_ALTERNATES {
            let reason = format!("a redirect names at most {MOST_ALTERNATES} other servers");
            return Err(SettingsError::value("balancer.alternates", raw.alternates, reason));
        }
        let expectation = match raw.probe_expect.as_str() {
            "" => None,
            value => Some(Arc::new(parsed("balancer.probe_expect", value)?)),
        };
        let trust = trust(&raw);
        let limits = Limits {
            connections: raw.max_connections,
            connections_per_address: raw.max_connections_per_address,
            ..Limits::default()
        };
        Ok(Self {
            zone: fleet_name("balancer.zone", &raw.zone)?,
            fleet: membership(&raw)?,
            sources: sources(&raw)?,
            trust: trust.clone(),
            host: host_settings!("balancer", raw, limits, raw.shutdown_timeout),
            admin: host_and_port("balancer.admin", &raw.admin)?,
            admin_token: path(raw.admin_token),
            catalogue: catalogue(&raw.catalogue, raw.catalogue_root)?,
            proof_interval: raw.proof_interval.max(SHORTEST_PROOF_INTERVAL),
            webhook: webhook(&raw.webhook, raw.webhook_after)?,
            state: path(raw.state),
            status: RedirectStatus::try_from(raw.status)
                .map_err(|reason| SettingsError::value("balancer.status", raw.status, reason))?,
            ranking: RankingSettings {
                policy: parsed("balancer.policy", &raw.policy)?,
                health_check: HealthCheckConfig {
                    fall: raw.fall,
                    rise: raw.rise,
                    interval: raw.probe_interval,
                    backoff_max: raw.probe_backoff_max,
                    slow_start: raw.slow_start,
                },
                probe_budget: ProbeBudget { per_second: raw.probe_budget },
            },
            probes: ProbeSettings {
                trust,
                path: raw.probe_path,
                timeout: raw.probe_timeout.min(raw.probe_interval / 2),
                expectation,
                interval: raw.probe_interval,
                concurrency: raw.probe_concurrency,
            },
            alternates: raw.alternates,
            second_chance: raw.second_chance,
            size_lookups: raw.size_lookups,
            metrics_backends: raw.metrics_backends,
            acme_webroot: path(raw.acme_webroot),
            trusted_proxies: parsed("balancer.trusted_proxies", &raw.trusted_proxies)?,
            fault_injection: raw.fault_injection,
        })
    }
}

impl ProgramSettings for BalancerSettings {
    const FIXED_KEYS: &'static FixedKeys = &FIXED_KEYS;

    fn host(&self) -> &HostSettings {
        &self.host
    }

    /// One for each connection and probe.
    fn open_files(&self) -> Need {
        let defaults = settings::section("balancer", Vec::new());
        let is_default = defaults.is_ok_and(|defaults: RawBalancerSettings| {
            (self.host.limits.connections, self.probes.concurrency)
                == (defaults.max_connections, defaults.probe_concurrency)
        });
        let connections = self.host.limits.connections.saturating_add(REFUSED_AT_ONCE);
        let most = (connections as u64).saturating_add(self.probes.concurrency as u64);
        let origin = if is_default { SettingsOrigin::Default } else { SettingsOrigin::Set };
        Need::new(self.host.workers, most, origin)
    }
}

fn catalogue(place: &str, root: PathBuf) -> Result<Option<CatalogueSource>, SettingsError> {
    if place.is_empty() {
        return Ok(path(root).map(CatalogueSource::Folder));
    }
    if !root.as_os_str().is_empty() {
        let reason = "only one of catalogue and catalogue_root can be set";
        return Err(SettingsError::value("balancer.catalogue_root", root.display(), reason));
    }
    let source = CatalogueSource::parse(place);
    source.map(Some).map_err(|error| SettingsError::value("balancer.catalogue", place, error.to_string()))
}

fn membership(raw: &RawBalancerSettings) -> Result<Option<Membership>, SettingsError> {
    at_least_one("balancer.fleet_probers", raw.fleet_probers)?;
    let name = fleet_name("balancer.fleet_name", &raw.fleet_name)?;
    if raw.fleet.is_empty() {
        return Ok(None);
    }
    // The text may have a password.
    let shown = raw.fleet.split_once("//").map_or("...".to_owned(), |(scheme, _)| format!("{scheme}//..."));
    let engine = raw.fleet.parse();
    let engine = engine
        .map_err(|error: EngineUrlError| SettingsError::value("balancer.fleet", shown, error.to_string()))?;
    Ok(Some(Membership { engine, name, probers: raw.fleet_probers }))
}

/// Validates the name of a balancer or a zone; an empty one is `None`.
fn fleet_name(key: &'static str, text: &str) -> Result<Option<Arc<str>>, SettingsError> {
    if record::is_name(text) {
        return Ok(Some(text).filter(|text| !text.is_empty()).map(Arc::from));
    }
    let reason = format!("it must have at most {} letters, digits and signs of ASCII", record::LONGEST_NAME);
    Err(SettingsError::value(key, text, reason))
}

/// The list of servers without another source.
const DEFAULT_LIST: &str = "balancer_server_list.txt";

impl RawBalancerSettings {
    /// The list of servers, if one is a source.
    pub(crate) fn list_file(&self) -> Option<PathBuf> {
        let default = if self.backends.is_empty() { DEFAULT_LIST } else { "" };
        path(if self.servers.is_empty() { default } else { &self.servers })
    }
}

fn sources(raw: &RawBalancerSettings) -> Result<SourceSettings, SettingsError> {
    let mut addresses: Vec<_> = raw.list_file().map(SourceAddress::File).into_iter().collect();
    for text in &raw.backends {
        let address = text.parse().map_err(|error: SourceAddressError| {
            // The text may have a password.
            let shown = text.split_once("//").map_or(text.as_str(), |(scheme, _)| scheme);
            SettingsError::value("balancer.backends", format_args!("{shown}..."), error.to_string())
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.len() > MAX_SOURCES {
        let reason = format!("there must be at most {MAX_SOURCES} sources");
        return Err(SettingsError::value("balancer.backends", addresses.len(), reason));
    }
    at_least("balancer.backends_interval", raw.backends_interval, SHORTEST_INTERVAL)?;
    let dns_server = Some(raw.dns_server.as_str()).filter(|server| !server.is_empty());
    let dns_server = dns_server.map(|server| {
        let reason = "it must be an IP address and a port, such as 127.0.0.1:8600";
        server.parse().map_err(|_| SettingsError::value("balancer.dns_server", server, reason))
    });
    Ok(SourceSettings {
        addresses,
        interval: raw.backends_interval,
        hold: raw.backends_hold,
        dns_server: dns_server.transpose()?,
        trust: trust(raw),
    })
}

/// The authorities of https backends and sources.
fn trust(raw: &RawBalancerSettings) -> Trust {
    Trust { authorities: path(&raw.backend_ca), ..Trust::default() }
}

fn webhook(url: &str, down_after: Duration) -> Result<Option<Webhook>, SettingsError> {
    if url.is_empty() {
        return Ok(None);
    }
    match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(Webhook { url, down_after })),
        _ => Err(SettingsError::value("balancer.webhook", url, "it must be a URL with http:// or https://")),
    }
}

/// Whether a URL can hold the path without a change, so that probes request exactly this path.
fn is_probe_path(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && format!("http://localhost{path}")
            .parse::<Uri>()
            .is_ok_and(|url| url.path_and_query().is_some_and(|parsed| parsed.as_str() == path))
}

#[cfg(test)]
mod tests;
