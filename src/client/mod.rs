//! The client `fingerpost get`: follows redirects and downloads files.
//!
//! - `redirect`, `link`: target of a redirect, and its mirrors.
//! - `observed`, `identity`: properties of a file in an answer, and whether two answers have the same file.
//! - `address`: addresses for display, without credentials.
//! - `checksum`: digests of files; `range`: sets of bytes; `byte_map`: the state of every byte of a file.
//! - `plan`: assigns byte ranges to sources, and owns the facts about them. Pure, tested with simulated servers.
//! - `sink`: part file, journal, digest.
//! - `download`: performs the plan for one file, from its address to its final name.
//! - `batch`: several files at a time; `metalink`: files described by a Metalink.
//! - `naming`: file names for addresses; `reserved_paths`: prevents two downloads of a run from writing to one path.
//! - `event`, `screen`, `progress`, `report`: output for users and scripts.
//! - `error`, `exit_code`: failures.

mod address;
mod batch;
mod byte_map;
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
mod observed;
mod plan;
mod progress;
mod range;
mod redirect;
mod report;
mod reserved_paths;
mod screen;
mod settings;
mod sink;

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use crate::cli::GetArguments;
use crate::telemetry;
use settings::Settings;

/// Runs `fingerpost get` and returns its exit code.
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
