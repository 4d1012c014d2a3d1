//! Panics are seen, wherever they happen: each is a line of the log, and counted.
//!
//! A panic ends the task it happens in and nothing else: one connection, one job of a thread pool, or the current life of
//! an actor, which its supervisor restarts.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Static, as the hook is: a process has one.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// How often this process has panicked since the log was started.
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// From now on panics go to the log, in its format, and not past it. `RUST_BACKTRACE=1` adds where each came from.
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
