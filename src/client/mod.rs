//! The client: follows the 301 and downloads, or shows why it cannot.
//!
//! - [`redirect`], [`link`], [`identity`]: where a redirect leads, which mirrors it names, whether they have the same file.
//! - `address`: addresses as they are shown, without credentials.
//! - [`checksum`]: digests of files.
//! - [`plan`]: who fetches which bytes. Pure, tested against simulated servers.
//! - [`sink`]: the part file, its journal, the digest.
//! - [`download`]: one file from address to final name: does what the plan says.
//! - [`batch`]: several files at a time; [`metalink`]: files described by one.
//! - [`naming`]: the file's name where the user gave none; [`claims`]: that no two files of a run have the same.
//! - [`event`], [`progress`], [`report`]: what a person, or a script, sees of it.
//! - [`error`], [`exit_code`]: how it ends.

pub mod address;
pub mod batch;
pub mod checksum;
pub mod claims;
pub mod download;
pub mod error;
pub mod event;
pub mod exit_code;
pub mod identity;
pub mod limit;
pub mod link;
pub mod metalink;
pub mod naming;
pub mod plan;
pub mod progress;
pub mod redirect;
pub mod report;
mod settings;
pub mod sink;

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use crate::cli::GetArguments;
use crate::telemetry;
use settings::Settings;

/// What the client calls itself.
pub(crate) const USER_AGENT: &str = concat!("fingerpost/", env!("CARGO_PKG_VERSION"));

/// Runs `fingerpost get` and gives its exit code.
#[must_use]
pub fn command(arguments: &GetArguments) -> ExitCode {
    match Settings::new(arguments) {
        Ok(settings) => {
            // Not dropped: that would wait for a write to a pipe that nobody reads.
            let system = ManuallyDrop::new(actix_rt::System::new());
            system.block_on(batch::run(settings)).into()
        }
        Err(error) => {
            telemetry::print_error(&error);
            error.code().into()
        }
    }
}
