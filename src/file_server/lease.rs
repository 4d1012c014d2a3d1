//! The registration of this server in an engine, from which balancers read their servers.
//!
//! A lease ends without renewals. Times are those of the monotonic clock and of the engine, so jumps of the clock of this
//! machine have no effect. A failure of the engine affects neither downloads nor the stop of the server.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::sleep;
use url::Url;

use super::settings::RawServerSettings;
use crate::engine::{Backoff, EngineAddress, EngineClient, EngineError, EngineUrlError};
use crate::http::stop::Phase;
use crate::registration::{CHANGES_KEY, FAREWELL, LEASE, RENEWAL, SERVER_KEYS};
use crate::settings::SettingsError;
use crate::telemetry::chain;

/// Sets the value of the server, renews it, or announces that the server leaves.
///
/// Keys: the value, and the key that changes with it. Arguments: boot identity, generation or 0 for the next one, line
/// with a leading space or nothing, time to live in milliseconds. Returns the generation, or 0 if a later boot has the
/// address: the order of first registrations decides, not the clocks of the servers. A renewal writes no value, so it
/// works if the memory of the engine is full.
const SCRIPT: &str = r"
local old = redis.pcall('GET', KEYS[1])
local generation, boot, line = 0, '', ''
if type(old) == 'string' then
  local number, identity, rest = string.match(old, '^(%d+) (%d+)(.*)')
  generation, boot, line = tonumber(number) or 0, identity, rest
  if generation > 1e9 then generation, line = 0, '' end
end
local own = tonumber(ARGV[2])
if own == 0 then own = generation + 1 end
if line ~= '' and boot ~= ARGV[1] and generation >= own then return 0 end
local new = string.format('%d %s%s', own, ARGV[1], ARGV[3])
if new == old then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], new, 'PX', ARGV[4])
  if type(redis.pcall('INCR', KEYS[2])) ~= 'number' then redis.call('SET', KEYS[2], 1) end
end
redis.call('PEXPIRE', KEYS[2], 86400000)
return own
";

/// The time in which balancers read that a server leaves.
const NOTICE: Duration = Duration::from_millis(500);
/// The largest weight that a balancer accepts.
const MAX_WEIGHT: u32 = 1000;
/// The longest zone, in bytes.
const MAX_ZONE_BYTES: usize = 64;

/// The registration of a server.
#[derive(Debug, Clone)]
pub(crate) struct RegistrationSettings {
    /// The engine.
    pub engine: EngineAddress,
    /// The URL at which clients reach the server; its port is 0 for the port of the server.
    advertise: Url,
    /// Weight, tier and zone in the syntax of the list of servers.
    attributes: String,
}

impl RegistrationSettings {
    /// `None` if the server does not register.
    pub(super) fn new(raw: &RawServerSettings) -> Result<Option<Self>, SettingsError> {
        if raw.register.is_empty() {
            return Ok(None);
        }
        let engine = raw.register.parse().map_err(|error: EngineUrlError| {
            // The text may have a password.
            SettingsError::value("server.register", "...", error.to_string())
        })?;
        let is_address = |url: &Url| {
            let rest = &url[url::Position::AfterPath..];
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && rest.is_empty()
        };
        let advertise = Url::parse(&raw.advertise).ok().filter(is_address).ok_or_else(|| {
            let reason =
                "it must be the URL at which clients reach this server, such as http://192.0.2.7:8081";
            SettingsError::value("server.advertise", &raw.advertise, reason)
        })?;
        if !(1..=MAX_WEIGHT).contains(&raw.weight) {
            return Err(SettingsError::value("server.weight", raw.weight, "it must be from 1 to 1000"));
        }
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if raw.zone.len() > MAX_ZONE_BYTES || !raw.zone.bytes().all(is_sign) {
            let reason = "it must be 1 to 64 letters, digits, '-', '_' and '.'";
            return Err(SettingsError::value("server.zone", &raw.zone, reason));
        }
        let zone = if raw.zone.is_empty() { String::new() } else { format!(" zone={}", raw.zone) };
        let attributes = format!("weight={} tier={}{zone}", raw.weight, raw.tier);
        Ok(Some(Self { engine, advertise, attributes }))
    }
}

/// The metrics of a lease.
#[derive(Debug, Default)]
struct LeaseMetrics {
    held: Gauge,
    failures: Counter,
}

/// The lease of this server.
pub(super) struct Lease {
    engine: EngineClient,
    boot: String,
    /// Scheme, host, port and base path.
    address: String,
    attributes: String,
    /// The number of this boot among those of its address; 0 before the first registration.
    generation: u64,
    state: LeaseState,
    metrics: LeaseMetrics,
}

/// The result of the latest attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaseState {
    New,
    Held,
    Superseded,
    Failed,
}

impl Lease {
    /// A lease of the server that listens on `port`. `boot` identifies this run.
    pub(super) fn new(
        settings: RegistrationSettings,
        engine: EngineClient,
        boot: u64,
        port: Option<u16>,
    ) -> Self {
        let RegistrationSettings { mut advertise, attributes, .. } = settings;
        if advertise.port() == Some(0) {
            // Cannot fail: the URL has a host.
            let _ = advertise.set_port(port);
        }
        // Balancers know a server by its address with the port.
        let port = advertise.port_or_known_default().unwrap_or_default();
        let host = advertise.host_str().unwrap_or_default();
        let path = advertise.path().trim_end_matches('/');
        let address = format!("{}://{host}:{port}{path}", advertise.scheme());
        Self {
            engine,
            boot: boot.to_string(),
            address,
            attributes,
            generation: 0,
            state: LeaseState::New,
            metrics: LeaseMetrics::default(),
        }
    }

    /// Adds its metrics to a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "1 while this server is registered, 0 otherwise";
        registry.register("registered", help, self.metrics.held.clone());
        let help = "Registrations and renewals that failed";
        registry.register("registration_failures", help, self.metrics.failures.clone());
    }

    /// Registers and renews until `phases` requests a stop, then announces that the server leaves, and gives balancers the
    /// time to notice it. A request to stop at once ends this time.
    ///
    /// After a hand-over, the new process has registered the address, or will do so.
    pub(super) async fn hold(&mut self, mut phases: watch::Receiver<Phase>) {
        while AssertUnwindSafe(self.renew(phases.clone())).catch_unwind().await.is_err() {
            tracing::error!("the registration panicked; it starts again");
            sleep(RENEWAL).await;
        }
        if *phases.borrow() == Phase::HandedOver {
            return;
        }
        let leaving = async {
            if self.leave().await {
                sleep(NOTICE).await;
            }
        };
        tokio::select! {
            () = leaving => {}
            _ = phases.wait_for(|phase| *phase == Phase::Stopping(Duration::ZERO)) => {}
        }
    }

    async fn renew(&mut self, mut phases: watch::Receiver<Phase>) {
        let mut backoff = Backoff::default();
        let renewals = async {
            loop {
                let pause = match self.write(&format!(" {} {}", self.address, self.attributes), LEASE).await {
                    Ok(generation) => {
                        backoff.reset();
                        self.renewed(generation);
                        RENEWAL
                    }
                    Err(error) => {
                        self.failed(&error);
                        backoff.next(rand::random())
                    }
                };
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = renewals => {}
            _ = phases.wait_for(|phase| *phase != Phase::Running) => {}
        }
    }

    /// Announces that the server leaves, so that balancers send no more clients. Returns whether they can read it.
    async fn leave(&mut self) -> bool {
        if self.generation == 0 {
            return false;
        }
        self.metrics.held.set(0);
        let left = self.write("", FAREWELL).await;
        match &left {
            Ok(_) => tracing::info!(address = self.address, "registration ended"),
            Err(error) => tracing::warn!(
                address = self.address,
                reason = chain(error),
                "cannot end the registration; balancers find the stop by their probes"
            ),
        }
        left.is_ok_and(|generation| generation > 0)
    }

    async fn write(&mut self, line: &str, ttl: Duration) -> Result<u64, EngineError> {
        let key = self.engine.key(&format!("{SERVER_KEYS}{}", self.address));
        let changes = self.engine.key(CHANGES_KEY);
        let (generation, ttl) = (self.generation.to_string(), ttl.as_millis().to_string());
        self.engine.eval(SCRIPT, &[&key, &changes], &[&self.boot, &generation, line, &ttl]).await
    }

    fn renewed(&mut self, generation: u64) {
        if generation == 0 {
            if self.change(LeaseState::Superseded) {
                tracing::error!(
                    address = self.address,
                    "a server that started later registered this address, so this server gets no clients: give each \
                     server an --advertise of its own"
                );
            }
            return;
        }
        self.generation = generation;
        if self.change(LeaseState::Held) {
            tracing::info!(address = self.address, engine = %self.engine.address(), "server registered");
        }
    }

    fn failed(&mut self, error: &EngineError) {
        self.metrics.failures.inc();
        if self.change(LeaseState::Failed) {
            tracing::warn!(
                address = self.address,
                engine = %self.engine.address(),
                reason = chain(error),
                "cannot register this server; downloads continue, and it tries again"
            );
        }
    }

    /// Returns whether the state is new.
    fn change(&mut self, state: LeaseState) -> bool {
        self.metrics.held.set(i64::from(state == LeaseState::Held));
        std::mem::replace(&mut self.state, state) != state
    }
}
