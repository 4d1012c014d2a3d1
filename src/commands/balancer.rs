//! `fingerpost balancer`: a balancer with signals and the service manager.

use super::{CommandError, stop_at_signal};
use crate::balancer::program::{BalancerAddresses, BalancerError, Program};
use crate::balancer::settings::BalancerSettings;
use crate::cli::BalancerArguments;
use crate::http::stop::{Interrupts, StopHandle};
use crate::systemd::PassedSockets;
use crate::{configuration, open_files};

/// Runs `fingerpost balancer` until a signal stops it.
pub(super) fn command(arguments: &BalancerArguments) -> Result<(), CommandError> {
    // Must be first: `take` changes the environment, and the passed descriptors must not be reused.
    let passed = PassedSockets::take()?;
    let raw = configuration::load(arguments.config.config.as_deref(), arguments.overrides())?;
    let (settings, fleet) = (BalancerSettings::try_from(raw.balancer)?, raw.fleet.try_into()?);
    let (grace, need) = (settings.shutdown_timeout, settings.open_files());
    let program = Program::build(settings, fleet, passed)?;
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen().map_err(BalancerError::System)?;
        program.reopen_log_on_signal().map_err(BalancerError::System)?;
        actix::spawn(stop_at_signal(interrupts, stop.clone(), grace));
        Ok(program.run(BalancerAddresses::announce, stop).await?)
    })
}
