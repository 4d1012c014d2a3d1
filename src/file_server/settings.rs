//! The settings in `[server]`, raw and validated.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use actix_http::header::HeaderValue;
use bytesize::ByteSize;
use serde::Deserialize;

use super::digests::DigestPlan;
use super::lease::RegistrationSettings;
use super::memfd_copy;
use crate::hosting::{HostSettings, ProgramSettings, host_settings};
use crate::http::access_log::Format;
use crate::http::pages::{Pages, PagesError};
use crate::http::transport::{Limits, Passage, REFUSED_AT_ONCE};
use crate::open_files::{Need, SettingsOrigin};
use crate::settings::reload::FixedKeys;
use crate::settings::{self, SettingsError, at_least, host_and_port, path};

/// The keys of `[server]` as read; `config/default.toml` explains each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key")]
pub(crate) struct RawServerSettings {
    pub root: PathBuf,
    pub host: String,
    pub port: u16,
    pub unix_socket: PathBuf,
    pub unix_socket_mode: String,
    pub tls_cert: String,
    pub tls_key: String,
    pub tls_port: u16,
    pub admin_tls: bool,
    pub pages: String,
    pub workers: usize,
    pub cache_bytes: ByteSize,
    pub cache_control: String,
    pub listing: bool,
    pub precompressed: bool,
    pub digests: String,
    pub digest_rate: ByteSize,
    pub max_connections: usize,
    pub max_connections_per_address: u32,
    #[serde(with = "crate::settings::time")]
    pub head_timeout: Duration,
    #[serde(with = "crate::settings::time")]
    pub keep_alive: Duration,
    #[serde(with = "crate::settings::time")]
    pub write_timeout: Duration,
    pub minimum_rate: ByteSize,
    pub limit_rate: ByteSize,
    #[serde(with = "crate::settings::time")]
    pub drain_timeout: Duration,
    pub admin: String,
    pub sendfile: bool,
    pub access_log: String,
    pub access_log_format: Format,
    pub register: String,
    pub advertise: String,
    pub weight: u32,
    pub tier: u8,
    pub zone: String,
}

/// Validated settings of a file server.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    /// The folder whose files are served.
    pub root: PathBuf,
    /// The settings that the balancer has, too.
    pub host: HostSettings,
    /// A folder of pages that replace the built-in ones.
    pub pages: Option<PathBuf>,
    /// Limit of the cache of small files over all workers, in bytes.
    pub cache_bytes: u64,
    /// Value of `Cache-Control` for every file except the probe file.
    pub cache_control: Option<HeaderValue>,
    /// Whether folders without an index are listed.
    pub listing: bool,
    /// Whether precompressed files are sent to clients that accept them.
    pub precompressed: bool,
    /// How digests are computed; `None` if they are disabled.
    pub digests: Option<DigestPlan>,
    /// Host and port of the admin listener.
    pub admin: Option<(String, u16)>,
    /// How the bytes of large files get to the socket.
    pub passage: Passage,
    /// The registration of this server.
    pub registration: Option<RegistrationSettings>,
}

impl TryFrom<RawServerSettings> for ServerSettings {
    type Error = SettingsError;

    fn try_from(raw: RawServerSettings) -> Result<Self, SettingsError> {
        for (key, time) in [
            ("server.head_timeout", raw.head_timeout),
            ("server.keep_alive", raw.keep_alive),
            ("server.write_timeout", raw.write_timeout),
        ] {
            at_least(key, time, Duration::from_millis(1))?;
        }
        if raw.max_connections == 0 {
            let reason = "a server without connections serves nobody";
            return Err(SettingsError::value("server.max_connections", 0, reason));
        }
        if raw.max_connections_per_address == 0 {
            let reason = "no client could connect; for no limit, give that of max_connections";
            return Err(SettingsError::value("server.max_connections_per_address", 0, reason));
        }
        let cache_control = match raw.cache_control.as_str() {
            "" => None,
            text => Some(HeaderValue::try_from(text).map_err(|_| {
                let reason = "it must hold visible characters, such as max-age=3600";
                SettingsError::value("server.cache_control", text, reason)
            })?),
        };
        let limits = Limits {
            connections: raw.max_connections,
            connections_per_address: raw.max_connections_per_address,
            head_timeout: raw.head_timeout,
            keep_alive: raw.keep_alive,
            write_timeout: raw.write_timeout,
            minimum_rate: raw.minimum_rate.as_u64(),
            rate: NonZeroU64::new(raw.limit_rate.as_u64()),
            ..Limits::default()
        };
        Ok(Self {
            registration: RegistrationSettings::new(&raw)?,
            root: raw.root,
            host: host_settings!("server", raw, limits, raw.drain_timeout),
            pages: path(raw.pages),
            cache_bytes: raw.cache_bytes.as_u64(),
            cache_control,
            listing: raw.listing,
            precompressed: raw.precompressed,
            digests: digest_plan(&raw.digests, raw.digest_rate)?,
            admin: match raw.admin.as_str() {
                "" => None,
                address => Some(host_and_port("server.admin", address)?),
            },
            passage: if raw.sendfile { Passage::Kernel } else { Passage::Memory },
        })
    }
}

/// The keys whose change needs a restart.
pub(crate) const FIXED_KEYS: FixedKeys = FixedKeys {
    section: "server",
    fixed: "root host port unix_socket unix_socket_mode tls_port admin_tls workers cache_bytes cache_control listing \
            precompressed digests digest_rate sendfile admin access_log_format register advertise weight tier zone",
    switches: &["tls_cert", "access_log"],
};

/// Maximum number of descriptors of the thread that computes digests.
const DIGEST_FILES: u64 = 100;

impl ServerSettings {
    /// Reads the error pages.
    pub(crate) fn pages(&self) -> Result<Pages, PagesError> {
        self.pages.as_deref().map_or_else(|| Ok(Pages::built_in()), Pages::load)
    }
}

impl ProgramSettings for ServerSettings {
    const FIXED_KEYS: &'static FixedKeys = &FIXED_KEYS;

    fn host(&self) -> &HostSettings {
        &self.host
    }

    /// A download of a large file has two, and each walk, digest and in-memory copy of a frequently requested file has one or
    /// more.
    fn open_files(&self) -> Need {
        let digests = if self.digests.is_some() { DIGEST_FILES } else { 0 };
        let copies = if self.passage == Passage::Kernel { memfd_copy::MOST * self.host.workers } else { 0 };
        let downloads = (self.host.limits.connections as u64).saturating_mul(2);
        let is_default = settings::section("server", Vec::new()).is_ok_and(|defaults: RawServerSettings| {
            self.host.limits.connections == defaults.max_connections
        });
        let origin = if is_default { SettingsOrigin::Default } else { SettingsOrigin::Set };
        let refused = REFUSED_AT_ONCE as u64;
        let most = [digests, copies as u64, refused].into_iter().fold(downloads, u64::saturating_add);
        Need::new(self.host.workers, most, origin)
    }
}

fn digest_plan(file: &str, rate: ByteSize) -> Result<Option<DigestPlan>, SettingsError> {
    let file = match file {
        "off" => return Ok(None),
        "memory" => None,
        "" => {
            let reason = "give off, memory, or a file that keeps them";
            return Err(SettingsError::value("server.digests", "\"\"", reason));
        }
        file => Some(PathBuf::from(file)),
    };
    Ok(Some(DigestPlan { file, rate: NonZeroU64::new(rate.as_u64()) }))
}

#[cfg(test)]
mod tests;
