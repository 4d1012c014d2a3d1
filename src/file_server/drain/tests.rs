use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::load::RequestKind;
use super::*;

const GRACE: Duration = Duration::from_mins(1);
const MOMENT: Duration = Duration::from_millis(1);

/// A running drain, the handle that requested it, and the handle of the transport.
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
fn without_downloads_a_drain_takes_the_time_for_small_answers() {
    paused(async {
        let drain = Drain::begin(&Arc::new(Load::new(1))).await;
        assert_eq!(drain.pass(Duration::ZERO).await, Phase::Stopping(GRACE));
        assert_eq!(drain.pass(SMALL_ANSWERS_GRACE / 10 * 9).await, Phase::Stopping(GRACE));
        assert_eq!(drain.pass(SMALL_ANSWERS_GRACE / 10).await, Phase::Stopping(Duration::ZERO));
        assert!(drain.task.is_finished());
    });
}

#[test]
fn a_download_that_begins_late_may_use_all_remaining_time() {
    paused(async {
        let load = Arc::new(Load::new(1));
        let drain = Drain::begin(&load).await;
        let preparing = load.prepare();
        assert_eq!(drain.pass(2 * SMALL_ANSWERS_GRACE).await, Phase::Stopping(GRACE));
        let download = load.begin(RequestKind::Client, 1000);
        drop(preparing);
        assert_eq!(drain.pass(4 * SMALL_ANSWERS_GRACE).await, Phase::Stopping(GRACE));
        download.complete();
        assert_eq!(drain.pass(SMALL_ANSWERS_GRACE / 10 * 9).await, Phase::Stopping(GRACE));
        assert_eq!(drain.pass(SMALL_ANSWERS_GRACE / 5).await, Phase::Stopping(Duration::ZERO));
    });
}

#[test]
fn the_last_bytes_of_a_download_may_use_all_of_the_time() {
    paused(async {
        let is_arriving = Arc::new(AtomicBool::new(true));
        let drain = Drain::begin_while(&Arc::new(Load::new(1)), &is_arriving).await;
        assert_eq!(drain.pass(5 * SMALL_ANSWERS_GRACE).await, Phase::Stopping(GRACE));
        is_arriving.store(false, Ordering::Relaxed);
        assert_eq!(drain.pass(SMALL_ANSWERS_GRACE).await, Phase::Stopping(Duration::ZERO));
    });
}

#[test]
fn a_download_without_end_is_cut_at_the_timeout() {
    paused(async {
        let load = Arc::new(Load::new(1));
        let drain = Drain::begin(&load).await;
        let _download = load.begin(RequestKind::Client, 1000);
        assert_eq!(drain.pass(GRACE / 10 * 9).await, Phase::Stopping(GRACE));
        assert_eq!(drain.pass(GRACE / 10).await, Phase::Stopping(Duration::ZERO));
    });
}

#[test]
fn a_second_stop_with_a_shorter_time_applies() {
    paused(async {
        let load = Arc::new(Load::new(1));
        let _download = load.begin(RequestKind::Client, 1000);
        let drain = Drain::begin(&load).await;
        assert_eq!(drain.pass(SMALL_ANSWERS_GRACE * 2).await, Phase::Draining);
        drain.stop.stop(Duration::ZERO);
        assert_eq!(drain.pass(MOMENT).await, Phase::Stopping(Duration::ZERO));
    });
}
