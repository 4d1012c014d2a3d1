//! How a program hears that it should stop, and how its servers do so.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::systemd::ServiceState;
use crate::telemetry::say;

/// What a server has been asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Running,
    /// Accept connections still, close each after the answer under way, and let requests be told so.
    Draining,
    /// Accept nothing more, finish what is being answered for at most this long, and end.
    Stopping(Duration),
}

/// Asks a server to stop; every clone speaks to the same one.
///
/// A phase never goes back, and a second [`StopHandle::stop`] with a shorter time is heeded.
#[derive(Debug, Clone)]
pub struct StopHandle(watch::Sender<Phase>);

impl Default for StopHandle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl StopHandle {
    /// Announces the stop: connections close after their answer, while new ones are still accepted.
    pub fn drain(&self) {
        self.0.send_if_modified(|phase| {
            let changed = *phase == Phase::Running;
            if changed {
                *phase = Phase::Draining;
            }
            changed
        });
    }

    /// Stops: nothing more is accepted, and answers under way have `grace` to finish. Zero ends them now.
    pub fn stop(&self, grace: Duration) {
        self.0.send_if_modified(|phase| {
            let changed = !matches!(*phase, Phase::Stopping(earlier) if earlier <= grace);
            if changed {
                *phase = Phase::Stopping(grace);
            }
            changed
        });
    }

    /// What has been asked for so far, and what will be.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}

/// The signals that ask a program to stop: SIGINT (Ctrl-C) and SIGTERM.
#[derive(Debug)]
pub struct Interrupts {
    signals: Vec<Signal>,
}

impl Interrupts {
    /// Takes the signals over: from now on they end the program only through [`Interrupts::next`].
    pub fn listen() -> io::Result<Self> {
        Self::of(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// The same with SIGHUP, for a program that lives as long as its terminal does.
    pub fn of_terminal() -> io::Result<Self> {
        Self::of(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
    }

    fn of(kinds: &[SignalKind]) -> io::Result<Self> {
        let signals = kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>()?;
        Ok(Self { signals })
    }

    /// Asks `stop` to stop at the first signal, with `grace` for answers under way, and at once at the second.
    ///
    /// Says so on standard output, where people and scripts look for it, and to the service manager.
    pub async fn announce_and_stop(mut self, stop: StopHandle, grace: Duration) {
        self.next().await;
        say("Interrupt received, shutting down ...");
        crate::systemd::notify(ServiceState::Stopping);
        stop.stop(grace);
        self.next().await;
        stop.stop(Duration::ZERO);
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        poll_fn(|cx| {
            let came = self.signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_never_goes_back() {
        let handle = StopHandle::default();
        let phases = handle.phases();
        handle.drain();
        assert_eq!(*phases.borrow(), Phase::Draining);
        handle.stop(Duration::from_secs(5));
        handle.drain();
        handle.stop(Duration::from_secs(9));
        assert_eq!(*phases.borrow(), Phase::Stopping(Duration::from_secs(5)));
        handle.stop(Duration::ZERO);
        assert_eq!(*phases.borrow(), Phase::Stopping(Duration::ZERO));
    }
}
