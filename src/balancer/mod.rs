//! The balancer: knows which backends are usable and how fast they are, and redirects to the best.

pub mod backends;
pub mod health;
pub mod load_report;
pub mod policy;
pub mod ranking;
pub mod redirect;
pub mod settings;

use crate::cli::BalancerArguments;
use crate::settings::SettingsError;

/// Runs `fingerpost balancer` until it is told to stop.
pub fn command(arguments: &BalancerArguments) -> Result<(), SettingsError> {
    crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    Ok(())
}
