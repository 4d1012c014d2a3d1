//! The stop of a file server: downloads end first.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::load::Load;
use crate::http::stop::{Phase, StopHandle};

/// Once no download is under way, pages, other small answers and heads that are on their way have this long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Waits until a stop is asked for, lets downloads end while probes are told of it, and stops the connections. A
/// download that begins meanwhile has all the time that the stop leaves it, and so has the end of one that still
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
    transport.drain();
    let began = Instant::now();
    let mut phase = asked;
    let mut is_accepting = true;
    let mut last_words = None;
    loop {
        let left = match phase {
            Phase::Stopping(grace) => grace.saturating_sub(began.elapsed()),
            Phase::Running | Phase::Draining => Duration::MAX,
        };
        let is_stopping = matches!(phase, Phase::Stopping(_));
        tokio::select! {
            () = tokio::time::sleep(left), if is_stopping => return transport.stop(Duration::ZERO),
            () = load.idle(), if is_stopping && last_words.is_none() => {
                // Once only: the transport takes the time from the first call on.
                if std::mem::take(&mut is_accepting) {
                    transport.stop(left);
                }
                last_words = Some(Instant::now() + LAST_WORDS);
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::load::Work;
    use super::*;

    const GRACE: Duration = Duration::from_mins(1);
    const MOMENT: Duration = Duration::from_millis(1);

    /// A drain that has been asked for, the stop it was asked by, and what the transport is told.
    struct Drain {
        stop: StopHandle,
        transport: StopHandle,
        task: tokio::task::JoinHandle<()>,
    }

    impl Drain {
        async fn begin(load: &Arc<Load>) -> Self {
            Self::begin_while(load, &Arc::default()).await
        }

        async fn begin_while(load: &Arc<Load>, is_arriving: &Arc<AtomicBool>) -> Self {
            let is_arriving = Arc::clone(is_arriving);
            let is_arriving = move || is_arriving.load(Ordering::Relaxed);
            let (stop, transport) = (StopHandle::default(), StopHandle::default());
            let (phases, told, load) = (stop.phases(), transport.clone(), Arc::clone(load));
            let task = tokio::spawn(async move { drain(phases, told, &load, is_arriving).await });
            stop.stop(GRACE);
            let drain = Self { stop, transport, task };
            drain.pass(MOMENT).await;
            drain
        }

        async fn pass(&self, time: Duration) -> Phase {
            tokio::time::sleep(time).await;
            *self.transport.phases().borrow()
        }
    }

    fn paused(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn without_downloads_it_takes_as_long_as_the_last_words() {
        paused(async {
            let drain = Drain::begin(&Arc::new(Load::new(1))).await;
            assert_eq!(drain.pass(Duration::ZERO).await, Phase::Stopping(GRACE));
            assert_eq!(drain.pass(LAST_WORDS / 10 * 9).await, Phase::Stopping(GRACE));
            assert_eq!(drain.pass(LAST_WORDS / 10).await, Phase::Stopping(Duration::ZERO));
            assert!(drain.task.is_finished());
        });
    }

    #[test]
    fn a_download_that_begins_late_has_all_the_time_that_is_left() {
        paused(async {
            let load = Arc::new(Load::new(1));
            let drain = Drain::begin(&load).await;
            let preparing = load.prepare();
            assert_eq!(drain.pass(2 * LAST_WORDS).await, Phase::Stopping(GRACE));
            let download = load.begin(Work::Client, 1000);
            drop(preparing);
            assert_eq!(drain.pass(4 * LAST_WORDS).await, Phase::Stopping(GRACE));
            download.complete();
            assert_eq!(drain.pass(LAST_WORDS / 10 * 9).await, Phase::Stopping(GRACE));
            assert_eq!(drain.pass(LAST_WORDS / 5).await, Phase::Stopping(Duration::ZERO));
        });
    }

    #[test]
    fn the_end_of_a_download_may_arrive_as_late_as_the_stop_allows() {
        paused(async {
            let is_arriving = Arc::new(AtomicBool::new(true));
            let drain = Drain::begin_while(&Arc::new(Load::new(1)), &is_arriving).await;
            assert_eq!(drain.pass(5 * LAST_WORDS).await, Phase::Stopping(GRACE));
            is_arriving.store(false, Ordering::Relaxed);
            assert_eq!(drain.pass(LAST_WORDS).await, Phase::Stopping(Duration::ZERO));
        });
    }

    #[test]
    fn a_download_without_end_is_cut_when_the_time_is_over() {
        paused(async {
            let load = Arc::new(Load::new(1));
            let drain = Drain::begin(&load).await;
            let _download = load.begin(Work::Client, 1000);
            assert_eq!(drain.pass(GRACE / 10 * 9).await, Phase::Stopping(GRACE));
            assert_eq!(drain.pass(GRACE / 10).await, Phase::Stopping(Duration::ZERO));
        });
    }

    #[test]
    fn a_second_stop_is_heeded() {
        paused(async {
            let load = Arc::new(Load::new(1));
            let _download = load.begin(Work::Client, 1000);
            let drain = Drain::begin(&load).await;
            assert_eq!(drain.pass(LAST_WORDS * 2).await, Phase::Draining);
            drain.stop.stop(Duration::ZERO);
            assert_eq!(drain.pass(MOMENT).await, Phase::Stopping(Duration::ZERO));
        });
    }
}
