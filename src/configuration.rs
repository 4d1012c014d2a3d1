//! The settings of all programs: the file after `--config` with variables and flags, and the check of such a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use crate::balancer::settings::{BalancerSettings, RawBalancerSettings};
use crate::engine::{FleetSettings, RawFleetSettings};
use crate::file_server::settings::{RawServerSettings, ServerSettings};
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
    /// `[fleet]`
    pub fleet: RawFleetSettings,
}

/// Reads all layers. `file` is the path after `--config`; `flags` have the highest precedence.
pub(crate) fn load(file: Option<&Path>, flags: Vec<Override>) -> Result<RawSettings, SettingsError> {
    let text = file.map(read).transpose()?.unwrap_or_default();
    from_text(&text, Variables::Read, flags).map_err(|error| {
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
    FleetSettings::try_from(raw.fleet.clone())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_settings() {
        load(None, Vec::new()).unwrap();
    }

    #[test]
    fn the_examples_are_valid_settings() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples")).unwrap() {
            let path = entry.unwrap().path();
            validate(&load(Some(&path), Vec::new()).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_flag_overrides_a_file_and_a_file_overrides_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nport = 1111\nfall = 7\n").unwrap();
        let settings = load(Some(&path), vec![("balancer.port", "2222".to_owned())]).unwrap();
        assert_eq!((settings.balancer.port, settings.balancer.fall), (2222, 7));
    }

    #[test]
    fn the_message_names_the_first_wrong_line_and_counts_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, "[balancer]\nprot = 1111\nport = true\n").unwrap();
        let message = load(Some(&path), Vec::new()).unwrap_err().to_string();
        assert!(message.contains("own.toml:2: balancer.prot: "), "{message}");
        assert!(message.ends_with("; `fingerpost check` names 1 more"), "{message}");
    }

    #[test]
    fn an_endless_file_and_a_directory_are_errors() {
        for (path, words) in [("/dev/zero", "larger than 1 MiB"), ("/", "directory")] {
            let message = crate::telemetry::chain(&load(Some(Path::new(path)), Vec::new()).unwrap_err());
            assert!(message.contains(path) && message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_time_longer_than_a_year_is_an_error() {
        for time in ["366d", "500000000y"] {
            let flags = vec![("balancer.shutdown_timeout", time.to_owned())];
            let message = load(None, flags).unwrap_err().to_string();
            assert!(message.contains("balancer.shutdown_timeout") && message.contains("365d"), "{message}");
        }
        load(None, vec![("balancer.shutdown_timeout", "365d".to_owned())]).unwrap();
    }
}
