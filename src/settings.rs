//! Settings in layers, in rising order of precedence: the defaults of `config/default.toml`, a configuration file,
//! environment variables `FINGERPOST__SECTION__KEY`, flags.
//!
//! This module reads raw values. Each program defines and validates its own section.

use std::borrow::Cow;
use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use config::{Config, Environment, File, FileFormat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub(crate) mod keys;
pub(crate) mod reload;
pub(crate) mod time;

/// Every key with its default, as text.
pub(crate) const DEFAULTS: &str = include_str!("../config/default.toml");

/// A larger number of worker threads is taken for a typing error.
const MOST_WORKERS: usize = 512;

/// An error in the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file named by `--config` does not exist or cannot be read.
    #[error("cannot read the configuration file {}: check that it exists and is readable", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A line of the file named by `--config` is not TOML, names an unknown key or holds a wrong value.
    #[error("{}:{line}: {reason}{}", path.display(), Others(*others))]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the first such line.
        line: usize,
        /// The error, and a correct value.
        reason: String,
        /// The number of other lines with errors.
        others: usize,
    },
    /// A variable names an unknown key, or a variable or flag holds a value of the wrong type.
    #[error("a variable FINGERPOST__... or a flag has a wrong value: {0}")]
    Invalid(#[from] config::ConfigError),
    /// The value of a key is invalid.
    #[error("{key} = {value}: {reason}")]
    Value {
        /// The key, with its section.
        key: Cow<'static, str>,
        /// The given value.
        value: String,
        /// The error, and a correct value.
        reason: String,
    },
}

impl SettingsError {
    /// The value of this key is invalid for this reason.
    pub(crate) fn value(
        key: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self::Value { key: key.into(), value: value.to_string(), reason: reason.into() }
    }
}

/// Displays the number of other lines with errors, if there are any.
struct Others(usize);

impl fmt::Display for Others {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            others => write!(formatter, "; `fingerpost check` names {others} more"),
        }
    }
}

/// The key that a flag overrides, and the value in the text form of the key.
pub(crate) type Override = (&'static str, String);

/// Whether variables `FINGERPOST__SECTION__KEY` override keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variables {
    /// They override keys, as at every start.
    Read,
    /// They are ignored, so that the result depends on the text alone.
    Ignored,
}

/// Merges all layers. `text` is the content of a configuration file; `flags` have the highest precedence. The result has
/// a value of the right type for every key.
pub(crate) fn merge(text: &str, variables: Variables, flags: Vec<Override>) -> Result<Config, SettingsError> {
    keys::check_kinds(text)?;
    let mut builder = Config::builder()
        .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
        .add_source(File::from_str(text, FileFormat::Toml));
    if variables == Variables::Read {
        let own = Environment::with_prefix("FINGERPOST").prefix_separator("__").separator("__");
        builder = builder.add_source(own);
    }
    for (key, value) in flags {
        builder = builder.set_override(key, value)?;
    }
    let settings = builder.build()?;
    for key in keys::known_keys() {
        let name = key.name();
        let text = settings.get_string(&name).unwrap_or_default();
        if let Err(reason) = key.kind.check_text(&text) {
            return Err(SettingsError::value(name, format_args!("{text:?}"), reason));
        }
    }
    Ok(settings)
}

/// The value of every key.
pub(crate) fn values(settings: &Config) -> reload::SettingValues {
    let names = keys::known_keys().into_iter().map(|key| key.name());
    let with_value = |name: String| {
        let value = settings.get_string(&name).unwrap_or_default();
        (name, value)
    };
    names.map(with_value).collect()
}

/// A section with its defaults, except for `changes`.
pub(crate) fn section<S: DeserializeOwned>(name: &str, changes: Vec<Override>) -> Result<S, SettingsError> {
    Ok(merge("", Variables::Ignored, changes)?.get(name)?)
}

/// Reads a list of texts: an array, or one text with a line break or, without any, a space between two; for
/// `#[serde(deserialize_with)]`.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::Many(texts) => texts,
        Texts::One(text) => {
            let separator = if text.contains('\n') { '\n' } else { ' ' };
            text.split(separator).filter(|text| !text.is_empty()).map(str::to_owned).collect()
        }
    })
}

/// Refuses 0.
pub(crate) fn at_least_one<N: fmt::Display + Default + PartialEq>(
    key: &'static str,
    value: N,
) -> Result<(), SettingsError> {
    if value == N::default() {
        Err(SettingsError::value(key, value, "it must be at least 1"))
    } else {
        Ok(())
    }
}

/// Refuses a time shorter than `least`.
pub(crate) fn at_least(key: &'static str, value: Duration, least: Duration) -> Result<(), SettingsError> {
    if value >= least {
        return Ok(());
    }
    let reason = format!("it must be at least {}", humantime::format_duration(least));
    Err(SettingsError::value(key, humantime::format_duration(value), reason))
}

/// The value of a key whose type has its own syntax.
pub(crate) fn parsed<T: FromStr<Err: fmt::Display>>(
    key: &'static str,
    text: &str,
) -> Result<T, SettingsError> {
    text.parse().map_err(|reason: T::Err| SettingsError::value(key, text, reason.to_string()))
}

/// A path that is set; an empty one is not.
pub(crate) fn path(path: impl Into<PathBuf>) -> Option<PathBuf> {
    Some(path.into()).filter(|path| !path.as_os_str().is_empty())
}

/// Validates a number of worker threads; 0 means one for each processor.
pub(crate) fn worker_threads(key: &'static str, setting: usize) -> Result<usize, SettingsError> {
    match setting {
        0 => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS)),
        1..=MOST_WORKERS => Ok(setting),
        _ => Err(SettingsError::value(key, setting, format!("it must be at most {MOST_WORKERS}"))),
    }
}

/// Splits `host:port` or `[v6]:port`. The host must resolve.
pub(crate) fn host_and_port(key: &'static str, text: &str) -> Result<(String, u16), SettingsError> {
    let reason = "it must be an address and a port, such as 127.0.0.1:9100";
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = split.ok_or_else(|| SettingsError::value(key, text, reason))?;
    text.to_socket_addrs().map_err(|error| SettingsError::value(key, text, format!("{reason} ({error})")))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_workers_has_a_limit() {
        assert_eq!(worker_threads("balancer.workers", 512).unwrap(), 512);
        let message = worker_threads("balancer.workers", 513).unwrap_err().to_string();
        assert_eq!(message, "balancer.workers = 513: it must be at most 512");
    }
}
