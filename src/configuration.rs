//! The settings of all programs: the file after `--config` with variables and flags, and the check of such a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::balancer::settings::{BalancerSettings, RawBalancerSettings};
use crate::file_server::settings::{RawServerSettings, ServerSettings};
use crate::settings::reload::{ReadSettings, SettingsReading};
use crate::settings::{self, Override, SettingsError, Variables};

pub(crate) mod file;

/// A larger configuration file is refused.
const LARGEST: u64 = 1 << 20;

/// All sections. Types are checked, values are not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSettings {
    /// `[balancer]`
    pub balancer: RawBalancerSettings,
    /// `[server]`
    pub server: RawServerSettings,
}

/// Reads all layers, and validates a section with `validate`. `file` is the path after `--config`; `flags` have the highest
/// precedence.
pub(crate) fn load<S>(
    file: Option<&Path>,
    flags: Vec<Override>,
    validate: impl FnOnce(RawSettings) -> Result<S, SettingsError>,
) -> Result<SettingsReading<S>, SettingsError> {
    let text = file.map(read).transpose()?.unwrap_or_default();
    let read = || {
        let merged = settings::merge(&text, Variables::Read, flags)?;
        let values = settings::values(&merged);
        Ok(SettingsReading { settings: validate(merged.try_deserialize()?)?, values })
    };
    read().map_err(|error| {
        let problems = file::check(&text).problems;
        match (file, problems.into_iter().as_slice()) {
            (Some(path), [first, others @ ..]) => SettingsError::Line {
                path: path.to_owned(),
                line: first.line,
                reason: first.reason.clone(),
                others: others.len(),
            },
            _ => error,
        }
    })
}

/// The same as [`load`] for any number of readings. Those after the start need a regular file: a pipe has no second content.
pub(crate) fn reader<S: 'static>(
    file: Option<PathBuf>,
    flags: Vec<Override>,
    validate: fn(RawSettings) -> Result<S, SettingsError>,
) -> ReadSettings<S> {
    Arc::new(move || {
        if let Some(path) = file.as_ref().filter(|path| path.exists() && !path.is_file()) {
            let source = io::Error::other("it is not a regular file, so it cannot be read again");
            return Err(SettingsError::Unreadable { path: path.clone(), source });
        }
        load(file.as_deref(), flags.clone(), validate)
    })
}

/// The settings that result from a configuration file with this text.
pub(crate) fn from_text(
    text: &str,
    variables: Variables,
    flags: Vec<Override>,
) -> Result<RawSettings, SettingsError> {
    Ok(settings::merge(text, variables, flags)?.try_deserialize()?)
}

/// Reads a configuration file once, so that it may be a pipe.
pub(crate) fn read(path: &Path) -> Result<String, SettingsError> {
    let text = || {
        let mut text = String::new();
        let read = File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        if read as u64 > LARGEST {
            return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
        }
        Ok(text)
    };
    text().map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })
}

/// Validates each section with the rules of its program.
pub(crate) fn validate(raw: &RawSettings) -> Result<(), SettingsError> {
    BalancerSettings::try_from(raw.balancer.clone())?;
    ServerSettings::try_from(raw.server.clone())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(raw: RawSettings) -> Result<RawSettings, SettingsError> {
        validate(&raw).map(|()| raw)
    }

    #[test]
    fn the_defaults_are_valid_settings() {
        load(None, Vec::new(), valid).unwrap();
    }

    #[test]
    fn the_examples_are_valid_settings() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples")).unwrap() {
            let path = entry.unwrap().path();
            load(Some(&path), Vec::new(), valid).unwrap();
        }
    }

    #[test]
    fn a_flag_overrides_a_file_and_a_file_overrides_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nport = 1111\nfall = 7\n").unwrap();
        let flags = vec![("balancer.port", "2222".to_owned())];
        let settings = load(Some(&path), flags, valid).unwrap().settings;
        assert_eq!((settings.balancer.port, settings.balancer.fall), (2222, 7));
    }

    #[test]
    fn the_message_names_the_first_wrong_line_and_counts_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nprot = 1111\nport = true\n").unwrap();
        let message = load(Some(&path), Vec::new(), valid).unwrap_err().to_string();
        assert!(message.contains("own.toml:2: balancer.prot: "), "{message}");
        assert!(message.ends_with("; `fingerpost check` names 1 more"), "{message}");
    }

    #[test]
    fn the_message_for_an_invalid_value_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nrise = 1\nfall = 0\n").unwrap();
        let message = load(Some(&path), Vec::new(), valid).unwrap_err().to_string();
        assert!(message.ends_with("own.toml:3: balancer.fall = 0: it must be at least 1"), "{message}");
    }

    #[test]
    fn an_endless_file_and_a_directory_are_errors() {
        for (path, words) in [("/dev/zero", "larger than 1 MiB"), ("/", "directory")] {
            let message =
                crate::telemetry::chain(&load(Some(Path::new(path)), Vec::new(), valid).unwrap_err());
            assert!(message.contains(path) && message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_time_longer_than_a_year_is_an_error() {
        for time in ["366d", "500000000y"] {
            let flags = vec![("balancer.shutdown_timeout", time.to_owned())];
            let message = load(None, flags, valid).unwrap_err().to_string();
            assert!(message.contains("balancer.shutdown_timeout") && message.contains("365d"), "{message}");
        }
        load(None, vec![("balancer.shutdown_timeout", "365d".to_owned())], valid).unwrap();
    }
}
