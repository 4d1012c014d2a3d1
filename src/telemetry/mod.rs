//! Logs: to standard error always, as text for a person or as JSON for a collector.

pub mod exposition;
pub mod panics;

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};

use tracing_subscriber::EnvFilter;

use crate::cli::{LogArguments, LogFormat};

/// Sends every log line of this process to standard error in the format and at the level asked for.
///
/// Panics are lines of it, too. `FINGERPOST_LOG` (the syntax of `RUST_LOG`) wins over the flag. A second call does nothing.
pub fn start(arguments: &LogArguments) {
    let asked = std::env::var_os("FINGERPOST_LOG").map(|_| EnvFilter::try_from_env("FINGERPOST_LOG"));
    let (asked, misunderstood) = match asked.transpose() {
        Ok(filter) => (filter, None),
        Err(error) => (None, Some(error)),
    };
    let filter = asked.unwrap_or_else(|| {
        EnvFilter::new(format!("{},actix_server=warn,actix_http=off", arguments.log_level))
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say on standard error that nothing can be said there, and panic over it.
        .log_internal_errors(false);
    let started = match arguments.log_format {
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

/// Writes a line to standard output, for the person or script that waits for it.
///
/// Whoever started the program may have closed the other end of the pipe. That must not end it, as `println!` would.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes an error and its causes to standard error, if anybody reads that.
pub fn complain(error: &dyn Error) {
    let _ = writeln!(io::stderr(), "Error: {}", chain(error));
}

/// Writes a whole text to standard output. A reader that has had enough, such as `head`, is no error.
pub fn print(text: &[u8]) -> Result<(), OutputError> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError(error)),
        _ => Ok(()),
    }
}

/// The terminal or file takes nothing more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct OutputError(#[source] io::Error);

/// An error with all its causes in one line, each after a colon.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors already repeat their cause; saying it twice helps nobody.
        if !text.contains(&inner_text) {
            let _ = write!(text, ": {inner_text}");
        }
        cause = inner.source();
    }
    text
}
