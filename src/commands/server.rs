//! `fingerpost server`: a file server with signals and the service manager.

use std::path::Path;

use super::{CommandError, stop_at_signal};
use crate::cli::ServerArguments;
use crate::configuration::{self, RawSettings};
use crate::engine::FleetSettings;
use crate::file_server::settings::ServerSettings;
use crate::file_server::{FileServer, ServerAddresses, ServerError};
use crate::http::stop::{Interrupts, StopHandle};
use crate::open_files;
use crate::settings::reload::SettingsReading;
use crate::systemd::PassedSockets;

/// Runs `fingerpost server` until a signal stops it.
pub(super) fn command(arguments: &ServerArguments) -> Result<(), CommandError> {
    // The sockets come first, because other code may open descriptors or start threads that read the environment.
    let passed = PassedSockets::take()?;
    let (file, flags) = (arguments.config.config.as_deref(), arguments.overrides());
    let validate: fn(RawSettings) -> _ = |raw| ServerSettings::try_from(raw.server);
    let first = |raw: RawSettings| Ok((FleetSettings::try_from(raw.fleet.clone())?, validate(raw)?));
    let SettingsReading { settings: (fleet, settings), values } =
        configuration::load(file, flags.clone(), first)?;
    let need = settings.open_files();
    let read = configuration::reader(file.map(Path::to_owned), flags, validate);
    let server = FileServer::build(settings, &fleet, passed)?.reloading(read, values);
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen().map_err(ServerError::System)?;
        server.reopen_log_on_signal().map_err(ServerError::System)?;
        actix::spawn(stop_at_signal(interrupts, stop.clone(), server.grace()));
        Ok(server.run(ServerAddresses::announce, stop).await?)
    })
}
