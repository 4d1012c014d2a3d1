//! Logs and counts every panic of the process.
//!
//! A panic ends only its own task: a connection, a job of a thread pool, or an actor, which its supervisor restarts.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Static because the panic hook is one for the whole process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The number of panics since [`super::start`].
pub(crate) fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// Installs a panic hook that writes each panic to the log. `RUST_BACKTRACE=1` adds a backtrace.
pub(super) fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        COUNT.fetch_add(1, Relaxed);
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            at = panic.location().map(tracing::field::display),
            reason = panic.payload_as_str().unwrap_or("unknown"),
            backtrace = backtrace.map(tracing::field::display),
            "panicked"
        );
    }));
}
