//! `fingerpost server`: a file server with signals and the service manager.

use super::{CommandError, stop_at_signal};
use crate::cli::ServerArguments;
use crate::file_server::settings::ServerSettings;
use crate::file_server::{FileServer, ServerAddresses, ServerError};
use crate::http::stop::{Interrupts, StopHandle};
use crate::systemd::PassedSockets;
use crate::{configuration, open_files};

/// Runs `fingerpost server` until a signal stops it.
pub(super) fn command(arguments: &ServerArguments) -> Result<(), CommandError> {
    // The sockets come first, because other code may open descriptors or start threads that read the environment.
    let passed = PassedSockets::take()?;
    let raw = configuration::load(arguments.config.config.as_deref(), arguments.overrides())?;
    let (settings, fleet) = (ServerSettings::try_from(raw.server)?, raw.fleet.try_into()?);
    let (grace, need) = (settings.drain_timeout, settings.open_files());
    let server = FileServer::build(settings, &fleet, passed)?;
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen().map_err(ServerError::System)?;
        server.reopen_log_on_signal().map_err(ServerError::System)?;
        actix::spawn(stop_at_signal(interrupts, stop.clone(), grace));
        Ok(server.run(ServerAddresses::announce, stop).await?)
    })
}
