//! fingerpost, a redirect load balancer for downloads: it redirects clients to servers and transfers no file itself.
//!
//! The modules in the order in which data flows:
//!
//! ```text
//! balancer_server_list.txt -> backends -> ProbeActor (one per backend) -> RankingActor
//!     -> RedirectHandler (one per HTTP worker) -> 301 -> client -> file server
//!     -> its load report rides back on the next probe
//! ```
//!
//! - [`balancer`]: the list, the probes, the ranking, the redirects.
//! - [`client`]: `fingerpost get`, which follows the 301 and downloads.
//! - [`file_server`]: `fingerpost server`, which serves the files.
//! - [`http`]: the HTTP client, and the parts that balancer and file server share: listeners, the connection, error pages.
//! - [`check`]: `fingerpost check`, which checks configuration and list without starting a program.
//! - [`settings`], [`cli`], [`supervision`], [`systemd`], [`open_files`], [`telemetry`]: services for all commands.
//! - [`up`]: `fingerpost up`, a balancer and several servers in one process.
//!
//! A *backend* is a server in the list of a balancer, of any make. The *file server* is the server of this project.

use std::process::ExitCode;

pub mod balancer;
pub mod check;
pub mod cli;
pub mod client;
pub mod file_server;
pub mod http;
pub mod load_report;
pub mod open_files;
pub mod settings;
pub mod supervision;
pub mod systemd;
pub mod telemetry;
pub mod up;

use cli::{Cli, Command};

/// Runs one command to its end and returns the exit code of the process.
///
/// Errors are written to standard error as `Error: ...`. A failed command exits with 1, except `get`, whose codes
/// are listed in `docs/download.md`.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    telemetry::start(&cli.log);
    match cli.command {
        Command::Up(arguments) => exit(up::command(&arguments)),
        Command::Balancer(arguments) => exit(balancer::program::command(&arguments)),
        Command::Server(arguments) => exit(file_server::command(&arguments)),
        Command::Get(arguments) => client::command(&arguments),
        Command::Status(arguments) => exit(balancer::admin::query::command(&arguments)),
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
