//! The client `fingerpost get`: follows redirects and downloads files.
//!
//! - `redirect`, `link`, `identity`: target of a redirect, its mirrors, and whether they have the same file.
//! - `address`: addresses for display, without credentials.
//! - `checksum`: digests of files.
//! - `plan`: assigns byte ranges to sources. Pure, tested with simulated servers.
//! - `sink`: part file, journal, digest.
//! - `download`: performs the plan for one file, from its address to its final name.
//! - `batch`: several files at a time; `metalink`: files described by a Metalink.
//! - `naming`: file names for addresses; `reserved_paths`: prevents two downloads of a run from writing to one path.
//! - `event`, `progress`, `report`: output for users and scripts.
//! - `error`, `exit_code`: failures.

mod address;
mod batch;
mod checksum;
mod download;
mod error;
mod event;
mod exit_code;
mod identity;
mod limit;
mod link;
mod metalink;
mod naming;
mod plan;
mod progress;
mod redirect;
mod report;
mod reserved_paths;
mod settings;
mod sink;

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use crate::cli::GetArguments;
use crate::telemetry;
use settings::Settings;

/// The `User-Agent` of the client.
pub(crate) const USER_AGENT: &str = concat!("fingerpost/", env!("CARGO_PKG_VERSION"));

/// Runs `fingerpost get` and returns its exit code.
#[must_use]
pub(crate) fn command(arguments: &GetArguments) -> ExitCode {
    match Settings::new(arguments) {
        Ok(settings) => {
            // Not dropped, because that would wait for a blocked write to a pipe without a reader.
            let system = ManuallyDrop::new(actix_rt::System::new());
            system.block_on(batch::run(settings)).into()
        }
        Err(error) => {
            telemetry::print_error(&error);
            error.code().into()
        }
    }
}
