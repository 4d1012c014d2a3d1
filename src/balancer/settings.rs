//! The section `[balancer]`: raw values, and validated settings.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Uri;
use serde::Deserialize;
use url::Url;

use crate::balancer::admin::FaultInjection;
use crate::balancer::expectation::{Expectation, NotAnExpectation};
use crate::balancer::fleet::record;
use crate::balancer::geography::network::NotANetwork;
use crate::balancer::geography::{GeographySettings, MOST_DATABASES};
use crate::balancer::health::HealthCheckConfig;
use crate::balancer::policy::{MOST_ALTERNATES, PolicyName};
use crate::balancer::presence::source::CatalogueSource;
use crate::balancer::probe::ProbeSettings;
use crate::balancer::probe::schedule::ProbeBudget;
use crate::balancer::ranking::RankingSettings;
use crate::balancer::redirect::answer::RedirectStatus;
use crate::balancer::redirect::client::TrustedProxies;
use crate::balancer::redirect::service::RetryRouting;
use crate::balancer::sources::{MAX_SOURCES, SourceAddress, SourceAddressError, SourceSettings};
use crate::balancer::webhook::Webhook;
use crate::engine::{EngineAddress, EngineUrlError};
use crate::http::access_log::Format;
use crate::http::https::HttpsSettings;
use crate::http::listener::ListenAddress;
use crate::http::tls::Trust;
use crate::http::transport::{Limits, REFUSED_AT_ONCE};
use crate::open_files::{Need, SettingsOrigin};
use crate::settings::reload::FixedKeys;
use crate::settings::{self, SettingsError, host_and_port, worker_threads};

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
    #[serde(deserialize_with = "crate::settings::list")]
    pub geo: Vec<String>,
    pub networks: PathBuf,
    pub spill_factor: u32,
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
    /// The address for clients.
    pub listen: ListenAddress,
    /// HTTPS beside it.
    pub https: HttpsSettings,
    /// Host and port of the admin listener.
    pub admin: (String, u16),
    /// The file of the token for changes over the admin listener.
    pub admin_token: Option<PathBuf>,
    /// The folder with the state that survives a restart.
    pub state: Option<PathBuf>,
    /// The file that gets a line for each answer.
    pub access_log: Option<PathBuf>,
    /// The format of its lines.
    pub access_log_format: Format,
    /// The list of all files.
    pub catalogue: Option<CatalogueSource>,
    /// The time between two proofs of a mirror.
    pub proof_interval: Duration,
    /// The receiver of notifications.
    pub webhook: Option<Webhook>,
    /// The number of HTTP worker threads; at least 1.
    pub workers: usize,
    /// The limit of connections; one more gets the 503 page.
    pub max_connections: usize,
    /// The limit of connections from one address; one more gets the 503 page.
    pub max_connections_per_address: u32,
    /// The status of a redirect.
    pub status: RedirectStatus,
    /// The rule for the choice of a server.
    pub policy: PolicyName,
    /// The path that probes request; starts with a slash.
    pub probe_path: String,
    /// The content that probes expect, unless the line of a backend names another.
    pub probe_expect: Option<Arc<Expectation>>,
    /// The time limit of one probe.
    pub probe_timeout: Duration,
    /// The limit of concurrent probes.
    pub probe_concurrency: usize,
    /// The rules for states and probe intervals.
    pub health_check: HealthCheckConfig,
    /// The limit of probes per second over all backends.
    pub probe_budget: ProbeBudget,
    /// The time limit for unfinished answers at a stop.
    pub shutdown_timeout: Duration,
    /// The number of other servers in the `Link` lines of a redirect.
    pub alternates: usize,
    /// The target of a client that requests the same file again.
    pub retry_routing: RetryRouting,
    /// Whether the sizes of files are looked up at the servers.
    pub size_lookups: bool,
    /// The largest number of backends with separate metrics.
    pub metrics_backends: usize,
    /// The places of addresses.
    pub geography: GeographySettings,
    /// The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
    pub trusted_proxies: TrustedProxies,
    /// The folder whose challenges are served to certificate authorities, as that of `certbot --webroot`.
    pub acme_webroot: Option<PathBuf>,
    /// The authorities of the certificates of https backends.
    pub trust: Trust,
    /// Whether a request to the admin listener may make an actor panic.
    pub fault_injection: FaultInjection,
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
    fixed: &[
        "servers",
        "backends",
        "backends_interval",
        "backends_hold",
        "dns_server",
        "host",
        "port",
        "unix_socket",
        "unix_socket_mode",
        "tls_port",
        "admin_tls",
        "admin",
        "state",
        "access_log_format",
        "catalogue",
        "catalogue_root",
        "proof_interval",
        "webhook",
        "webhook_after",
        "workers",
        "size_lookups",
        "geo",
        "networks",
        "spill_factor",
        "acme_webroot",
        "metrics_backends",
        "fault_injection",
        "zone",
        "fleet",
        "fleet_name",
        "fleet_probers",
    ],
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
        let at_least_one = |key, value: u64| {
            if value == 0 { Err(SettingsError::value(key, value, "it must be at least 1")) } else { Ok(()) }
        };
        at_least_one("balancer.max_connections", raw.max_connections as u64)?;
        at_least_one("balancer.max_connections_per_address", raw.max_connections_per_address.into())?;
        at_least_one("balancer.fall", raw.fall.into())?;
        at_least_one("balancer.rise", raw.rise.into())?;
        at_least_one("balancer.probe_concurrency", raw.probe_concurrency as u64)?;
        at_least_one("balancer.probe_budget", raw.probe_budget.into())?;
        if raw.probe_concurrency > MOST_PROBES {
            let reason = format!("each probe is a connection; it must be at most {MOST_PROBES}");
            return Err(SettingsError::value("balancer.probe_concurrency", raw.probe_concurrency, reason));
        }
        if raw.probe_interval < SHORTEST_INTERVAL {
            let value = humantime::format_duration(raw.probe_interval);
            return Err(SettingsError::value("balancer.probe_interval", value, "it must be at least 20ms"));
        }
        if raw.probe_timeout.is_zero() {
            return Err(SettingsError::value(
                "balancer.probe_timeout",
                "0s",
                "it must be more than 0s, such as 1s",
            ));
        }
        if !is_probe_path(&raw.probe_path) {
            let reason = "it must be the path of a URL and start with a slash, such as /files/plshelp.txt";
            return Err(SettingsError::value("balancer.probe_path", raw.probe_path, reason));
        }
        if raw.alternates > MOST_ALTERNATES {
            let reason = format!("a redirect names at most {MOST_ALTERNATES} other servers");
            return Err(SettingsError::value("balancer.alternates", raw.alternates, reason));
        }
        let probe_expect = match raw.probe_expect.as_str() {
            "" => None,
            value => Some(value.parse().map(Arc::new).map_err(|reason: NotAnExpectation| {
                SettingsError::value("balancer.probe_expect", value, reason.to_string())
            })?),
        };
        Ok(Self {
            zone: fleet_name("balancer.zone", &raw.zone)?,
            fleet: membership(&raw)?,
            sources: sources(&raw)?,
            geography: geography(&raw)?,
            trust: trust(&raw),
            probe_expect,
            admin: host_and_port("balancer.admin", &raw.admin)?,
            admin_token: Some(raw.admin_token).filter(|path| !path.as_os_str().is_empty()),
            access_log: Some(raw.access_log).filter(|path| !path.as_os_str().is_empty()),
            access_log_format: raw.access_log_format,
            catalogue: catalogue(&raw.catalogue, raw.catalogue_root)?,
            proof_interval: raw.proof_interval.max(SHORTEST_PROOF_INTERVAL),
            webhook: webhook(&raw.webhook, raw.webhook_after)?,
            state: Some(raw.state).filter(|path| !path.as_os_str().is_empty()),
            status: RedirectStatus::try_from(raw.status)
                .map_err(|reason| SettingsError::value("balancer.status", raw.status, reason))?,
            policy: PolicyName::from_str(&raw.policy)
                .map_err(|reason| SettingsError::value("balancer.policy", raw.policy, reason.to_string()))?,
            probe_timeout: raw.probe_timeout.min(raw.probe_interval / 2),
            health_check: HealthCheckConfig {
                fall: raw.fall,
                rise: raw.rise,
                interval: raw.probe_interval,
                backoff_max: raw.probe_backoff_max,
                slow_start: raw.slow_start,
            },
            probe_budget: ProbeBudget { per_second: raw.probe_budget },
            https: HttpsSettings {
                certificates: raw.tls_cert,
                keys: raw.tls_key,
                host: raw.host.clone(),
                port: raw.tls_port,
                is_for_admin: raw.admin_tls,
            },
            listen: ListenAddress::new(raw.host, raw.port, raw.unix_socket, &raw.unix_socket_mode).map_err(
                |reason| SettingsError::value("balancer.unix_socket_mode", &raw.unix_socket_mode, reason),
            )?,
            max_connections: raw.max_connections,
            max_connections_per_address: raw.max_connections_per_address,
            workers: worker_threads("balancer.workers", raw.workers)?,
            probe_path: raw.probe_path,
            probe_concurrency: raw.probe_concurrency,
            shutdown_timeout: raw.shutdown_timeout,
            alternates: raw.alternates,
            retry_routing: if raw.second_chance {
                RetryRouting::OtherBackend
            } else {
                RetryRouting::AnyBackend
            },
            size_lookups: raw.size_lookups,
            metrics_backends: raw.metrics_backends,
            acme_webroot: Some(raw.acme_webroot).filter(|path| !path.is_empty()).map(PathBuf::from),
            trusted_proxies: raw.trusted_proxies.parse().map_err(|reason: NotANetwork| {
                SettingsError::value("balancer.trusted_proxies", &raw.trusted_proxies, reason.to_string())
            })?,
            fault_injection: if raw.fault_injection {
                FaultInjection::Allowed
            } else {
                FaultInjection::Forbidden
            },
        })
    }
}

impl BalancerSettings {
    /// The settings of the ranking.
    #[must_use]
    pub(crate) fn ranking(&self) -> RankingSettings {
        let Self { policy, health_check, probe_budget, .. } = *self;
        RankingSettings { policy, health_check, probe_budget }
    }

    /// The settings of the probes.
    #[must_use]
    pub(crate) fn probes(&self) -> ProbeSettings {
        ProbeSettings {
            path: self.probe_path.clone(),
            timeout: self.probe_timeout,
            expectation: self.probe_expect.clone(),
            interval: self.health_check.interval,
            concurrency: self.probe_concurrency,
            trust: self.trust.clone(),
        }
    }

    /// The limits of clients.
    #[must_use]
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address,
            ..Limits::default()
        }
    }

    /// The need of open files: one for each connection and probe.
    #[must_use]
    pub(crate) fn open_files(&self) -> Need {
        let defaults = settings::section("balancer", Vec::new());
        let is_default = defaults.is_ok_and(|defaults: RawBalancerSettings| {
            (self.max_connections, self.probe_concurrency)
                == (defaults.max_connections, defaults.probe_concurrency)
        });
        let connections = self.max_connections.saturating_add(REFUSED_AT_ONCE);
        let most = (connections as u64).saturating_add(self.probe_concurrency as u64);
        Need::new(self.workers, most, if is_default { SettingsOrigin::Default } else { SettingsOrigin::Set })
    }
}

fn catalogue(place: &str, root: PathBuf) -> Result<Option<CatalogueSource>, SettingsError> {
    if place.is_empty() {
        return Ok(Some(root).filter(|root| !root.as_os_str().is_empty()).map(CatalogueSource::Folder));
    }
    if !root.as_os_str().is_empty() {
        let reason = "only one of catalogue and catalogue_root can be set";
        return Err(SettingsError::value("balancer.catalogue_root", root.display(), reason));
    }
    let source = CatalogueSource::parse(place);
    source.map(Some).map_err(|error| SettingsError::value("balancer.catalogue", place, error.to_string()))
}

fn geography(raw: &RawBalancerSettings) -> Result<GeographySettings, SettingsError> {
    if raw.spill_factor == 0 {
        return Err(SettingsError::value("balancer.spill_factor", 0, "it must be at least 1"));
    }
    if raw.geo.len() > MOST_DATABASES {
        let reason = format!("there must be at most {MOST_DATABASES} databases");
        return Err(SettingsError::value("balancer.geo", raw.geo.len(), reason));
    }
    Ok(GeographySettings {
        databases: raw.geo.iter().map(PathBuf::from).collect(),
        table: Some(raw.networks.clone()).filter(|path| !path.as_os_str().is_empty()),
        spill_factor: raw.spill_factor,
    })
}

fn membership(raw: &RawBalancerSettings) -> Result<Option<Membership>, SettingsError> {
    if raw.fleet_probers == 0 {
        return Err(SettingsError::value("balancer.fleet_probers", 0, "it must be at least 1"));
    }
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
    #[must_use]
    pub(crate) fn list_file(&self) -> Option<PathBuf> {
        let default = if self.backends.is_empty() { DEFAULT_LIST } else { "" };
        let path = if self.servers.is_empty() { default } else { &self.servers };
        Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
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
    if raw.backends_interval < SHORTEST_INTERVAL {
        let value = humantime::format_duration(raw.backends_interval);
        return Err(SettingsError::value("balancer.backends_interval", value, "it must be at least 20ms"));
    }
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
    let authorities = Some(&raw.backend_ca).filter(|path| !path.is_empty()).map(PathBuf::from);
    Trust { authorities, ..Trust::default() }
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
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_need_a_restart_exist_and_are_documented() {
        let documented = FIXED_KEYS.fixed.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let text =
            include_str!("../../docs/configuration.md").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("`[balancer]`: {documented}.")), "{documented}");
        let known: Vec<_> = settings::keys::known_keys().into_iter().map(|key| key.name()).collect();
        for key in FIXED_KEYS.fixed.iter().chain(FIXED_KEYS.switches) {
            assert!(known.contains(&format!("balancer.{key}")), "{key}");
        }
    }

    fn with_probe_path(path: &str) -> Result<BalancerSettings, SettingsError> {
        let raw: RawBalancerSettings =
            settings::section("balancer", vec![("balancer.probe_path", path.to_owned())]).unwrap();
        raw.try_into()
    }

    #[test]
    fn a_probe_path_must_fit_into_a_url_without_a_change() {
        for path in ["/", "/files/plshelp.txt", "/a?b=c&d", "//a", "/%20%FF", "/~a;b=(1)@,!*'$+"] {
            assert_eq!(with_probe_path(path).unwrap().probe_path, path);
        }
        let endless = "/a".repeat(40_000);
        for path in ["", "a", "/a b", "/a<b", "/a>b", "/a#b", "/#", "/\u{e4}", &endless] {
            let message = with_probe_path(path).unwrap_err().to_string();
            assert!(message.starts_with("balancer.probe_path = "), "{message}");
        }
    }
}
