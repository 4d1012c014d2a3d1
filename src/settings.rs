//! Settings in layers: the defaults of `config/default.toml`, a configuration file, environment variables
//! `FINGERPOST__SECTION__KEY`, flags. The later wins.
//!
//! What is read here is raw: each room turns its section into validated settings of its own.

use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat};
use serde::Deserialize;

use crate::balancer::settings::RawBalancerSettings;
use crate::cli::Override;
use crate::file_server::settings::RawServerSettings;

/// Every key with its default, as text.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file named by `--config` is not there or cannot be read.
    #[error("cannot read the configuration file {}: check that it exists and may be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A layer is not valid TOML, names an unknown key or holds a value of the wrong type.
    #[error("cannot use the settings: {0}; `fingerpost check` names the file and line of each such key")]
    Invalid(#[from] config::ConfigError),
    /// A key holds a value that makes no sense.
    #[error("{key} = {value}: {reason}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// The value as it was given.
        value: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// All sections as they were read, types checked, values not yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSettings {
    /// `[balancer]`
    pub balancer: RawBalancerSettings,
    /// `[server]`
    pub server: RawServerSettings,
}

/// The settings that a configuration file with this text gives by itself, without variables.
pub fn from_text(text: &str, flags: Vec<Override>) -> Result<RawSettings, SettingsError> {
    let mut builder = Config::builder()
        .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
        .add_source(File::from_str(text, FileFormat::Toml));
    for (key, value) in flags {
        builder = builder.set_override(key, value)?;
    }
    Ok(builder.build()?.try_deserialize()?)
}

/// Reads the layers. `file` is the one named by `--config`; `flags` win over everything.
pub fn load(file: Option<&Path>, flags: Vec<Override>) -> Result<RawSettings, SettingsError> {
    let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(path) = file {
        std::fs::File::open(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        builder = builder.add_source(File::from(path).format(FileFormat::Toml));
    }
    builder =
        builder.add_source(Environment::with_prefix("FINGERPOST").prefix_separator("__").separator("__"));
    for (key, value) in flags {
        builder = builder.set_override(key, value)?;
    }
    Ok(builder.build()?.try_deserialize()?)
}

/// The number of worker threads that a setting asks for; 0 means one for each processor.
#[must_use]
pub fn worker_threads(setting: usize) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::settings::BalancerSettings;
    use crate::file_server::settings::ServerSettings;

    #[test]
    fn the_defaults_are_valid_settings() {
        load(None, Vec::new()).unwrap();
    }

    #[test]
    fn the_examples_are_valid_settings() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples")).unwrap() {
            let path = entry.unwrap().path();
            let raw = load(Some(&path), Vec::new()).unwrap();
            BalancerSettings::try_from(raw.balancer).unwrap();
            ServerSettings::try_from(raw.server).unwrap();
        }
    }

    #[test]
    fn a_flag_wins_over_a_file_and_a_file_over_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nport = 1111\nfall = 7\n").unwrap();
        let settings = load(Some(&path), vec![("balancer.port", "2222".to_owned())]).unwrap();
        assert_eq!((settings.balancer.port, settings.balancer.fall), (2222, 7));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nprot = 1111\n").unwrap();
        let message = load(Some(&path), Vec::new()).unwrap_err().to_string();
        assert!(message.contains("prot"), "{message}");
    }
}
