//! The commands of the command line, except `get`: each composes settings, programs, signals and the service manager.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::watch;

use crate::balancer::program::BalancerError;
use crate::cli::{Cli, Command};
use crate::client;
use crate::file_server::ServerError;
use crate::http::stop::{Interrupts, StopHandle};
use crate::open_files::TooFewFiles;
use crate::settings::SettingsError;
use crate::systemd::{self, PassedError, ServiceState};
use crate::telemetry::{self, print_line};

mod admin_client;
mod balancer;
mod check;
mod operate;
mod server;
mod up;

/// An error that prevents or ends a run of `balancer`, `server` or `up`.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// A setting is invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The service manager passed unusable sockets.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// The limit of open files is too low.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// A file server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The balancer failed.
    #[error(transparent)]
    Balancer(#[from] BalancerError),
    /// The list or the sample files of `up` cannot be written.
    #[error("cannot write the list of servers to the folder for temporary files")]
    Scratch(#[source] io::Error),
    /// The signal handlers of `up` cannot be installed.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// Runs one command to its end and returns the exit code of the process.
///
/// Errors are written to standard error as `Error: ...`. A failed command exits with 1, except `get`, whose codes
/// are listed in `docs/download.md`.
pub(crate) fn run(cli: Cli) -> ExitCode {
    telemetry::start(cli.log.log_format, cli.log.log_level);
    match cli.command {
        Command::Up(arguments) => exit(up::command(&arguments)),
        Command::Balancer(arguments) => exit(balancer::command(&arguments)),
        Command::Server(arguments) => exit(server::command(&arguments)),
        Command::Get(arguments) => client::command(&arguments),
        Command::Status(arguments) => exit(operate::status(&arguments)),
        Command::Explain(arguments) => exit(operate::explain(&arguments)),
        Command::Events(arguments) => exit(operate::events(&arguments)),
        Command::Mirrors(arguments) => exit(operate::mirrors(&arguments)),
        Command::Scan(arguments) => exit(operate::scan(&arguments)),
        Command::Drain(arguments) => exit(operate::drain(&arguments)),
        Command::Enable(arguments) => exit(operate::enable(&arguments)),
        Command::Disable(arguments) => exit(operate::disable(&arguments)),
        Command::Weight(arguments) => exit(operate::weight(&arguments)),
        Command::Check(arguments) => check::command(&arguments),
        Command::Manual(arguments) => exit(arguments.print()),
        Command::Help(arguments) => exit(arguments.print()),
    }
}

fn exit(result: Result<(), impl std::error::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::print_error(&error);
            ExitCode::FAILURE
        }
    }
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
