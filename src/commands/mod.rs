//! The commands of the command line, except `get`: each composes settings, programs, signals and the service manager.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::watch;

use crate::balancer::program::BalancerProgram;
use crate::balancer::settings::BalancerSettings;
use crate::cli::{Cli, Command, ConfigArguments};
use crate::configuration::{self, RawSettings};
use crate::engine::FleetSettings;
use crate::file_server::FileServer;
use crate::file_server::settings::ServerSettings;
use crate::hosting::{Addresses, Program, ProgramError, ProgramSettings};
use crate::http::access_log;
use crate::http::stop::{Interrupts, StopHandle};
use crate::settings::reload::SettingsReading;
use crate::settings::{Override, SettingsError};
use crate::systemd::{self, PassedSockets, ServiceState};
use crate::telemetry::{self, print_line};
use crate::{client, open_files};

mod admin_client;
mod check;
mod operate;
mod up;

/// Runs one command to its end and returns the exit code of the process.
///
/// Errors are written to standard error as `Error: ...`. A failed command exits with 1, except `get`, whose codes
/// are listed in `docs/download.md`.
pub(crate) fn run(cli: Cli) -> ExitCode {
    telemetry::start(cli.log.log_format, cli.log.log_level);
    match cli.command {
        Command::Up(arguments) => exit(up::command(&arguments)),
        Command::Balancer(arguments) => {
            let (config, flags) = (&arguments.config, arguments.overrides());
            exit(serve::<BalancerProgram>(config, flags, |raw| BalancerSettings::try_from(raw.balancer)))
        }
        Command::Server(arguments) => {
            let (config, flags) = (&arguments.config, arguments.overrides());
            exit(serve::<FileServer>(config, flags, |raw| ServerSettings::try_from(raw.server)))
        }
        Command::Get(arguments) => client::command(&arguments),
        Command::Status(arguments) => exit(operate::status(&arguments)),
        Command::Explain(arguments) => exit(operate::explain(&arguments)),
        Command::Events(arguments) => exit(operate::events(&arguments)),
        Command::Drain(arguments) => exit(operate::drain(&arguments)),
        Command::Enable(arguments) => exit(operate::enable(&arguments)),
        Command::Disable(arguments) => exit(operate::disable(&arguments)),
        Command::Weight(arguments) => exit(operate::weight(&arguments)),
        Command::Check(arguments) => check::command(&arguments),
        Command::Manual(arguments) => exit(arguments.print()),
        Command::Help(arguments) => exit(arguments.print()),
    }
}

fn exit(result: Result<(), ProgramError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::print_error(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Runs a program until a signal stops it. `validate` makes its settings.
fn serve<P: Program>(
    config: &ConfigArguments,
    flags: Vec<Override>,
    validate: fn(RawSettings) -> Result<P::Settings, SettingsError>,
) -> Result<(), ProgramError> {
    // Must be first: `take` changes the environment, and the passed descriptors must not be reused.
    let passed = PassedSockets::take()?;
    let file = config.config.as_deref();
    let first = |raw: RawSettings| Ok((FleetSettings::try_from(raw.fleet.clone())?, validate(raw)?));
    let SettingsReading { settings: (fleet, settings), values } =
        configuration::load(file, flags.clone(), first)?;
    let need = settings.open_files();
    let mut program = P::build(settings, &fleet, passed)?;
    program.host().reading = Some((configuration::reader(file.map(Path::to_owned), flags, validate), values));
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen().map_err(P::cannot_start)?;
        let host = program.host();
        access_log::reopen_on_signal(host.log.as_ref()).map_err(P::cannot_start)?;
        actix::spawn(stop_at_signal(interrupts, stop.clone(), host.grace.subscribe()));
        program.run(Addresses::announce, stop).await
    })
}

/// Stops `stop` at the first signal, with `grace` for current answers, and at once at the second signal.
///
/// Reports the stop on standard output, for people and scripts, and to the service manager.
async fn stop_at_signal(mut interrupts: Interrupts, stop: StopHandle, grace: watch::Receiver<Duration>) {
    interrupts.next().await;
    print_line("Interrupt received, shutting down ...");
    systemd::notify(ServiceState::Stopping);
    let grace = *grace.borrow();
    stop.stop(grace);
    interrupts.next().await;
    stop.stop(Duration::ZERO);
}
