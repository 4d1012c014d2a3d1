//! fingerpost, a redirect load balancer for downloads: it points the way and carries nobody.
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
//! - [`file_server`]: what the client is sent to.
//! - [`http`]: the HTTP client, and the parts that balancer and file server share: listeners, the connection, error pages.
//! - [`check`]: `fingerpost check`, which looks at configuration and list without running anything.
//! - [`settings`], [`cli`], [`supervision`], [`systemd`], [`open_files`], [`telemetry`]: what carries them.
//! - [`up`]: `fingerpost up`, a balancer and some servers in one process.
//!
//! A *backend* is a server as the balancer sees it; *file server* is this project's own program.

use std::process::ExitCode;

pub mod balancer;
pub mod check;
pub mod cli;
pub mod client;
pub mod file_server;
pub mod http;
pub mod open_files;
pub mod settings;
pub mod supervision;
pub mod systemd;
pub mod telemetry;
pub mod up;

use cli::{Cli, Command};

/// Runs one command to its end and gives the code the process is to exit with.
///
/// Errors are written to standard error as `Error: ...`; 1 is the code of every failed command but `get`,
/// whose codes are listed in `docs/download.md`.
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
            telemetry::complain(&error);
            ExitCode::FAILURE
        }
    }
}
