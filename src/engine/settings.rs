//! The section `[fleet]`, and the URL of an engine.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::http::tls::Trust;
use crate::secret_file::{self, SecretFileError};
use crate::settings::{self, SettingsError};

/// The ports of an engine and of a Sentinel without one in the URL.
const ENGINE_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// The longest prefix of keys, in bytes.
const MAX_PREFIX_BYTES: usize = 64;

/// The keys of `[fleet]`; `config/default.toml` explains each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFleetSettings {
    pub prefix: String,
    pub password: Password,
    pub password_file: String,
    pub ca: String,
}

/// A password, which `Debug` does not show.
#[derive(Clone, Deserialize)]
pub(crate) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

/// Validated settings of the engines of a fleet.
#[derive(Debug, Clone)]
pub(crate) struct FleetSettings {
    /// The name of the fleet, with which each key starts.
    pub(super) prefix: String,
    password: Password,
    password_file: Option<PathBuf>,
    /// The authorities of a `rediss://` engine.
    pub(super) trust: Trust,
}

impl TryFrom<RawFleetSettings> for FleetSettings {
    type Error = SettingsError;

    fn try_from(raw: RawFleetSettings) -> Result<Self, SettingsError> {
        let is_prefix = (1..=MAX_PREFIX_BYTES).contains(&raw.prefix.len())
            && raw.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_prefix {
            let reason = "it must be 1 to 64 letters, digits, '-', '_' and '.'";
            return Err(SettingsError::value("fleet.prefix", raw.prefix, reason));
        }
        if !raw.password.0.is_empty() && !raw.password_file.is_empty() {
            let reason = "fleet.password is set too; keep one of both";
            return Err(SettingsError::value("fleet.password_file", raw.password_file, reason));
        }
        Ok(Self {
            prefix: raw.prefix,
            password: raw.password,
            password_file: settings::path(raw.password_file),
            trust: Trust { authorities: settings::path(raw.ca), ..Trust::default() },
        })
    }
}

impl FleetSettings {
    /// The settings of the engine at `address` in this fleet.
    pub(crate) fn at(&self, address: EngineAddress) -> EngineSettings {
        EngineSettings { address, fleet: self.clone() }
    }

    /// The password; empty if there is none.
    pub(super) fn password(&self) -> Result<String, SecretFileError> {
        match &self.password_file {
            Some(path) => secret_file::read(path),
            None => Ok(self.password.0.clone()),
        }
    }
}

/// The settings of one engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineSettings {
    /// The address.
    pub(super) address: EngineAddress,
    /// The settings of its fleet.
    pub(super) fleet: FleetSettings,
}

/// A name or an IP address without brackets, and a port.
pub(super) type HostPort = (String, u16);

/// The address of an engine, as in `redis://user@host:6379/0`, `rediss://host` or `redis+sentinel://host,host/name/0`. It has
/// no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineAddress {
    /// The engine, or its Sentinels; not empty.
    pub(super) hosts: Vec<HostPort>,
    /// The name by which the Sentinels know the engine; `None` without them.
    pub(super) primary: Option<String>,
    pub(super) uses_tls: bool,
    pub(super) user: Option<String>,
    pub(super) database: i64,
}

/// A text is not the URL of an engine. The message does not repeat the text, which may have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineUrlError {
    #[error(
        "it must be a URL such as redis://host:6379, redis://user@host/1, rediss://host or redis+sentinel://host,host/name"
    )]
    Form,
    #[error(
        "a password in a URL is visible in process lists and logs: write only the user, as in redis://user@host, and \
         give the password with fleet.password_file or the variable FINGERPOST__FLEET__PASSWORD"
    )]
    Password,
}

impl EngineAddress {
    /// Whether `text` has a scheme of engines.
    pub(crate) fn has_scheme(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| {
            matches!(scheme, "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel")
        })
    }
}

impl std::str::FromStr for EngineAddress {
    type Err = EngineUrlError;

    fn from_str(text: &str) -> Result<Self, EngineUrlError> {
        let (scheme, rest) =
            text.split_once("://").filter(|_| Self::has_scheme(text)).ok_or(EngineUrlError::Form)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority
            .rsplit_once('@')
            .map_or((String::new(), authority), |(user, hosts)| (format!("{user}@"), hosts));
        let has_sentinels = scheme.ends_with("+sentinel");
        let default_port = if has_sentinels { SENTINEL_PORT } else { ENGINE_PORT };
        let mut address = Self {
            hosts: Vec::new(),
            primary: None,
            uses_tls: scheme.starts_with("rediss"),
            user: None,
            database: 0,
        };
        for host in hosts.split(',') {
            let url = Url::parse(&format!("redis://{user}{host}")).map_err(|_| EngineUrlError::Form)?;
            if url.password().is_some() {
                return Err(EngineUrlError::Password);
            }
            let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            if name.is_empty() || url.query().is_some() || url.fragment().is_some() {
                return Err(EngineUrlError::Form);
            }
            let user = percent_encoding::percent_decode_str(url.username()).decode_utf8();
            let user = user.map_err(|_| EngineUrlError::Form)?.into_owned();
            address.user = Some(user).filter(|user| !user.is_empty());
            address.hosts.push((name.to_owned(), url.port().unwrap_or(default_port)));
        }
        let mut parts = path.split('/');
        let is_name = |name: &&str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if has_sentinels {
            let name = parts.next().filter(is_name).ok_or(EngineUrlError::Form)?;
            address.primary = Some(name.to_owned());
        } else if address.hosts.len() > 1 {
            return Err(EngineUrlError::Form);
        }
        let database = parts.next().filter(|database| !database.is_empty()).unwrap_or("0");
        let is_number = database.bytes().all(|byte| byte.is_ascii_digit()) && parts.next().is_none();
        address.database = database.parse().ok().filter(|_| is_number).ok_or(EngineUrlError::Form)?;
        Ok(address)
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.uses_tls { "rediss" } else { "redis" })?;
        let (kind, primary) = match &self.primary {
            Some(primary) => ("+sentinel", format!("{primary}/")),
            None => ("", String::new()),
        };
        let hosts = self.hosts.iter().map(|(host, port)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        write!(formatter, "{kind}://{hosts}/{primary}{}", self.database)
    }
}
