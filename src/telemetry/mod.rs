//! Logs to standard error, as text or as JSON, and the output to standard output.

pub(crate) mod exposition;
pub(crate) mod metric;
pub(crate) mod panics;

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::EnvFilter;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text per event, coloured on a terminal.
    Text,
    /// One JSON object per event.
    Json,
}

/// Starts logging to standard error with the given format and level.
///
/// Panics are logged too. `FINGERPOST_LOG` (with the syntax of `RUST_LOG`) overrides the level. A second call has no
/// effect.
pub(crate) fn start(format: LogFormat, level: Level) {
    let asked = std::env::var_os("FINGERPOST_LOG").map(|_| EnvFilter::try_from_env("FINGERPOST_LOG"));
    let (asked, misunderstood) = match asked.transpose() {
        Ok(filter) => (filter, None),
        Err(error) => (None, Some(error)),
    };
    let filter = asked.unwrap_or_else(|| EnvFilter::new(format!("{level},actix_server=warn,actix_http=off")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // After a failed write, the subscriber would report the failure with `eprintln!`, which panics.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    panics::watch();
    if let Some(error) = misunderstood {
        tracing::warn!(%error, "FINGERPOST_LOG is invalid and ignored");
    }
}

/// Writes a line to standard output.
///
/// The reader may have closed its end of the pipe. This must not end the program, as a panic of `println!` would.
pub(crate) fn print_line(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes an error and its causes to standard error. A failed write is ignored.
pub(crate) fn print_error(error: &dyn Error) {
    let _ = writeln!(io::stderr(), "Error: {}", chain(error));
}

/// Writes a whole text to standard output. A reader that closes the pipe early, such as `head`, is not an error.
pub(crate) fn print(text: &[u8]) -> Result<(), OutputError> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError(error)),
        _ => Ok(()),
    }
}

/// Standard output cannot be written, for instance because the disk is full.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(crate) struct OutputError(#[source] pub(crate) io::Error);

/// An error with all its causes in one line, separated by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // The message of some errors already contains their cause.
        if !text.contains(&inner_text) {
            let _ = write!(text, ": {inner_text}");
        }
        cause = inner.source();
    }
    text
}
