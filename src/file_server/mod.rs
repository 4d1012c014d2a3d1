//! The file server: serves a folder, with an error page of its own for every error.

pub mod settings;

use crate::cli::ServerArguments;
use crate::settings::SettingsError;

/// Runs `fingerpost server` until it is told to stop.
pub fn command(arguments: &ServerArguments) -> Result<(), SettingsError> {
    crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    Ok(())
}
