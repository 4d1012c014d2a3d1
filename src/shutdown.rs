//! How a running program is told to stop.

use std::io;

/// Says that a stop was asked for, on standard output where scripts look for it.
pub fn announce() {
    println!("Interrupt received, shutting down ...");
}

/// Waits for the request to stop: SIGINT (Ctrl-C) or SIGTERM.
#[cfg(unix)]
pub async fn requested() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Waits for the request to stop: Ctrl-C.
#[cfg(not(unix))]
pub async fn requested() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
