//! The graceful stop of a file server.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::load::Load;
use crate::http::stop::{Phase, StopHandle};

/// Time for small answers, such as pages and heads, after the last download has ended.
const SMALL_ANSWERS_GRACE: Duration = Duration::from_secs(2);

/// Waits for a stop request, refuses probes while downloads finish, and then stops the connections. A download that
/// begins during this time may use all of the time that the stop allows, and so may the end of a download that still
/// `is_arriving`.
pub(super) async fn drain(
    mut phases: watch::Receiver<Phase>,
    transport: StopHandle,
    load: &Load,
    is_arriving: impl Fn() -> bool,
) {
    let Ok(asked) = phases.wait_for(|phase| *phase != Phase::Running).await.map(|phase| *phase) else {
        return;
    };
    if asked == Phase::HandedOver {
        // The new process answers probes, which must not be refused.
        transport.hand_over();
        if phases.wait_for(|phase| *phase != Phase::HandedOver).await.is_err() {
            return;
        }
    }
    transport.drain();
    if let (Phase::Stopping(limit), downloads @ 1..) = (asked, load.in_flight()) {
        let limit = humantime::format_duration(limit);
        tracing::info!(
            "waiting for {downloads} download(s), {limit} at most; a second signal or Ctrl-C ends at once"
        );
    }
    let began = Instant::now();
    let mut phase = *phases.borrow_and_update();
    let mut is_accepting = true;
    let mut last_words = None;
    loop {
        let left = match phase {
            Phase::Stopping(grace) => grace.saturating_sub(began.elapsed()),
            Phase::Running | Phase::Draining | Phase::HandedOver => Duration::MAX,
        };
        let is_stopping = matches!(phase, Phase::Stopping(_));
        tokio::select! {
            () = tokio::time::sleep(left), if is_stopping => return transport.stop(Duration::ZERO),
            () = load.idle(), if is_stopping && last_words.is_none() => {
                // Only once, because the transport measures the time from the first call.
                if std::mem::take(&mut is_accepting) {
                    transport.stop(left);
                }
                last_words = Some(Instant::now() + SMALL_ANSWERS_GRACE);
            }
            () = tokio::time::sleep_until(last_words.unwrap_or(began)), if last_words.is_some() => {
                if load.is_idle() && !is_arriving() {
                    return transport.stop(Duration::ZERO);
                }
                last_words = None;
            }
            changed = phases.changed() => match changed {
                Ok(()) => phase = *phases.borrow_and_update(),
                Err(_) => return transport.stop(Duration::ZERO),
            },
        }
    }
}

#[cfg(test)]
mod tests;
