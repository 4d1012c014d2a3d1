//! The settings of all programs: the file after `--config` with variables and flags, and the check of such a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::balancer::settings::{BalancerSettings, RawBalancerSettings};
use crate::engine::{FleetSettings, RawFleetSettings};
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
    /// `[fleet]`
    pub fleet: RawFleetSettings,
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
    FleetSettings::try_from(raw.fleet.clone())?;
    Ok(())
}

#[cfg(test)]
mod tests;
