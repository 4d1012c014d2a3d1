//! Countdown, second by second, while a balancer has no server.

use std::time::Duration;

use tokio::time::Instant;

/// Maximum of one wait, even if `Retry-After` is longer; then the balancer is asked again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// A wait in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Countdown {
    until: Instant,
}

impl Countdown {
    /// Starts a wait of `wait`, at most [`LONGEST_WAIT`].
    pub(super) fn new(wait: Duration, now: Instant) -> Self {
        Self { until: now + wait.min(LONGEST_WAIT) }
    }

    /// Remaining time; zero at the end.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// Waits until the remaining time is a whole number of seconds. Returns whether time remains.
    pub(super) async fn tick(&self) -> bool {
        let left = self.left(Instant::now());
        // At a whole second, the next one is due.
        let to_boundary = match left.subsec_nanos() {
            0 => Duration::from_secs(1).min(left),
            nanos => Duration::from_nanos(nanos.into()),
        };
        tokio::time::sleep(to_boundary).await;
        !self.left(Instant::now()).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The displayed seconds, and the duration of the whole wait.
    async fn shown(wait: Duration) -> (Vec<u64>, Duration) {
        let began = Instant::now();
        let countdown = Countdown::new(wait, began);
        let mut shown = vec![countdown.left(began).as_secs()];
        while countdown.tick().await {
            // A sleep ends up to a millisecond late.
            shown.push(countdown.left(Instant::now()).as_secs_f64().round() as u64);
        }
        (shown, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn every_second_is_shown_once() {
        let (seconds, took) = shown(Duration::from_secs(4)).await;
        assert_eq!(seconds, [4, 3, 2, 1]);
        assert!(took >= Duration::from_secs(4) && took < Duration::from_millis(4010), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_wait_ends_at_once_and_a_long_one_is_limited() {
        assert_eq!(shown(Duration::ZERO).await.1, Duration::ZERO);
        let (seconds, took) = shown(Duration::MAX).await;
        assert_eq!(seconds.len(), 600);
        assert!(took < LONGEST_WAIT + Duration::from_secs(1), "{took:?}");
    }
}
