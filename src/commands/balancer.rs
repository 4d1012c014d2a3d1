//! `fingerpost balancer`: a balancer with signals and the service manager.

use std::path::Path;

use super::{CommandError, stop_at_signal};
use crate::balancer::program::{BalancerAddresses, BalancerError, Program};
use crate::balancer::settings::BalancerSettings;
use crate::cli::BalancerArguments;
use crate::configuration::{self, RawSettings};
use crate::engine::FleetSettings;
use crate::http::stop::{Interrupts, StopHandle};
use crate::open_files;
use crate::settings::reload::SettingsReading;
use crate::systemd::PassedSockets;

/// Runs `fingerpost balancer` until a signal stops it.
pub(super) fn command(arguments: &BalancerArguments) -> Result<(), CommandError> {
    // Must be first: `take` changes the environment, and the passed descriptors must not be reused.
    let passed = PassedSockets::take()?;
    let (file, flags) = (arguments.config.config.as_deref(), arguments.overrides());
    let validate: fn(RawSettings) -> _ = |raw| BalancerSettings::try_from(raw.balancer);
    let first = |raw: RawSettings| Ok((FleetSettings::try_from(raw.fleet.clone())?, validate(raw)?));
    let SettingsReading { settings: (fleet, settings), values } =
        configuration::load(file, flags.clone(), first)?;
    let need = settings.open_files();
    let read = configuration::reader(file.map(Path::to_owned), flags, validate);
    let program = Program::build(settings, &fleet, passed)?.reloading(read, values);
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen().map_err(BalancerError::System)?;
        program.reopen_log_on_signal().map_err(BalancerError::System)?;
        actix::spawn(stop_at_signal(interrupts, stop.clone(), program.grace()));
        Ok(program.run(BalancerAddresses::announce, stop).await?)
    })
}
