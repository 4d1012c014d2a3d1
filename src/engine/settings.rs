//! The section `[fleet]`, and the URL of an engine.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::http::tls::Trust;
use crate::secret_file::{self, SecretFileError};
use crate::settings::{self, SettingsError};

/// The port of an engine without one in its URL.
const DEFAULT_PORT: u16 = 6379;
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

/// The address of an engine, as in `redis://user@host:6379/0` or `rediss://host`. It has no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineAddress {
    /// A name or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) uses_tls: bool,
    pub(super) user: Option<String>,
    pub(super) database: i64,
}

/// A text is not the URL of an engine. The message does not repeat the text, which may have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineUrlError {
    #[error("it must be a URL such as redis://host:6379, redis://user@host/1 or rediss://host")]
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
        text.starts_with("redis://") || text.starts_with("rediss://")
    }
}

impl std::str::FromStr for EngineAddress {
    type Err = EngineUrlError;

    fn from_str(text: &str) -> Result<Self, EngineUrlError> {
        let url = Url::parse(text).map_err(|_| EngineUrlError::Form)?;
        if url.password().is_some() {
            return Err(EngineUrlError::Password);
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let database = url.path().trim_start_matches('/');
        let database = if database.is_empty() { "0" } else { database };
        let is_form = Self::has_scheme(text)
            && !host.is_empty()
            && url.query().is_none()
            && url.fragment().is_none()
            && database.bytes().all(|byte| byte.is_ascii_digit());
        if !is_form {
            return Err(EngineUrlError::Form);
        }
        let user = percent_encoding::percent_decode_str(url.username()).decode_utf8();
        let user = user.map_err(|_| EngineUrlError::Form)?.into_owned();
        Ok(Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(DEFAULT_PORT),
            uses_tls: url.scheme() == "rediss",
            user: Some(user).filter(|user| !user.is_empty()),
            database: database.parse().map_err(|_| EngineUrlError::Form)?,
        })
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.uses_tls { "rediss" } else { "redis" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(formatter, "{scheme}://{open}{}{close}:{}/{}", self.host, self.port, self.database)
    }
}
