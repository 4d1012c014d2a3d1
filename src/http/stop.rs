//! Shutdown signals and graceful shutdown.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The state of a server with respect to a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The server serves requests.
    Running,
    /// The server still accepts connections, closes each after its current answer, and refuses probes.
    Draining,
    /// Another process accepts the connections, and this server closes each after its current answer. It waits for requests on
    /// idle connections, which clients may have sent already.
    HandedOver,
    /// The server accepts no more connections, and ends its current answers within this time.
    Stopping(Duration),
}

impl Phase {
    /// Whether the server accepts connections.
    pub(crate) fn accepts(self) -> bool {
        matches!(self, Self::Running | Self::Draining)
    }

    /// Whether the server leaves service, so that balancers should send no more clients to its address.
    pub(crate) fn refuses_probes(self) -> bool {
        matches!(self, Self::Draining | Self::Stopping(_))
    }
}

/// Requests the stop of a server. All clones control the same server.
///
/// A phase never goes back, and a second [`StopHandle::stop`] with a shorter time takes effect.
#[derive(Debug, Clone)]
pub(crate) struct StopHandle(watch::Sender<Phase>);

impl Default for StopHandle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl StopHandle {
    /// Begins to drain: connections close after their current answer, while new ones are still accepted.
    pub(crate) fn drain(&self) {
        self.0.send_if_modified(|phase| {
            let changed = *phase == Phase::Running;
            if changed {
                *phase = Phase::Draining;
            }
            changed
        });
    }

    /// Leaves the listening sockets to another process.
    pub(crate) fn hand_over(&self) {
        self.0.send_if_modified(|phase| {
            let changed = phase.accepts();
            if changed {
                *phase = Phase::HandedOver;
            }
            changed
        });
    }

    /// Stops: no connection is accepted any more, and current answers have `grace` to finish. With zero they end at
    /// once.
    pub(crate) fn stop(&self, grace: Duration) {
        self.0.send_if_modified(|phase| {
            let changed = !matches!(*phase, Phase::Stopping(earlier) if earlier <= grace);
            if changed {
                *phase = Phase::Stopping(grace);
            }
            changed
        });
    }

    /// A receiver of the current phase and its changes.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}

/// The signals that end a program: SIGINT (Ctrl-C), SIGTERM, and SIGHUP after the terminal was closed.
#[derive(Debug)]
pub(crate) struct Interrupts {
    signals: Vec<Signal>,
    hangups: Signal,
    on_hangup: OnHangup,
}

impl Interrupts {
    /// Installs handlers for a service: from now on the signals end the program only through [`Interrupts::next`].
    ///
    /// SIGHUP ends a service only if the service had a terminal at its start and the terminal is closed. Any other
    /// SIGHUP is a request to reload, which other code handles.
    pub(crate) fn listen() -> io::Result<Self> {
        let had_terminal = !hangup_is_ignored() && has_terminal();
        Self::with(if had_terminal { OnHangup::EndWithoutTerminal } else { OnHangup::Stay })
    }

    /// The same for a program that is only used from a terminal and has nothing to reload: SIGHUP always ends it.
    pub(crate) fn of_terminal() -> io::Result<Self> {
        Self::with(if hangup_is_ignored() { OnHangup::Stay } else { OnHangup::End })
    }

    fn with(on_hangup: OnHangup) -> io::Result<Self> {
        let signals = vec![signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
        Ok(Self { signals, hangups: signal(SignalKind::hangup())?, on_hangup })
    }

    /// Waits for the next signal that ends the program.
    pub(crate) async fn next(&mut self) {
        let Self { signals, hangups, on_hangup } = self;
        let interrupted = poll_fn(|cx| {
            let is_interrupted = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if is_interrupted { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = interrupted => {}
            () = on_hangup.end(hangups) => {}
        }
    }
}

/// The effect of SIGHUP on the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnHangup {
    /// The program ends.
    End,
    /// The program ends if its terminal is gone.
    EndWithoutTerminal,
    /// The program does not end.
    Stay,
}

impl OnHangup {
    /// Waits for a SIGHUP that ends the program.
    async fn end(self, hangups: &mut Signal) {
        loop {
            hangups.recv().await;
            match self {
                Self::End => return,
                Self::Stay => {}
                Self::EndWithoutTerminal => {
                    for wait in TERMINAL_CHECKS {
                        tokio::time::sleep(wait).await;
                        if !has_terminal() {
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// Delays before each check for the terminal. A shell that ends sends SIGHUP first and closes the terminal a moment
/// later.
const TERMINAL_CHECKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)];

/// Whether this process has a controlling terminal.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether SIGHUP was ignored when this process started, as `nohup` arranges. Must be called before a handler is
/// installed. Always false on a system without `/proc`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is signal 1, the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
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
