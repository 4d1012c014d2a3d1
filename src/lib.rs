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
//! - [`settings`], [`cli`], [`supervision`], [`systemd`], [`open_files`], [`telemetry`]: services for all commands.
//! - `commands`, [`configuration`]: the commands and their settings.
//!
//! A *backend* is a server in the list of a balancer, of any make. The *file server* is the server of this project.

use std::process::ExitCode;

use clap::Parser as _;

pub mod balancer;
mod cli;
mod client;
mod commands;
mod configuration;
pub mod file_server;
pub mod http;
#[doc(hidden)]
pub mod internals;
mod load_report;
mod open_files;
mod settings;
mod supervision;
mod systemd;
mod telemetry;

/// Runs the command on the command line and returns the exit code of the process.
#[must_use]
pub fn run() -> ExitCode {
    commands::run(cli::Cli::parse())
}
