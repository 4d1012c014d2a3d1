//! Waiting for a balancer that has no server, second by second, so that a person can see how long it takes.

use std::time::Duration;

use tokio::time::Instant;

/// The longest wait at once, whatever `Retry-After` says; then the balancer is asked again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// A wait that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Countdown {
    until: Instant,
}

impl Countdown {
    /// Begins to wait for `wait`, or for [`LONGEST_WAIT`] where that is less.
    pub(super) fn new(wait: Duration, now: Instant) -> Self {
        Self { until: now + wait.min(LONGEST_WAIT) }
    }

    /// How long it still takes; zero when it is over.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// Waits until another whole number of seconds is left, or none; whether it goes on.
    pub(super) async fn tick(&self) -> bool {
        let left = self.left(Instant::now());
        // At a whole second already: the next one.
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

    /// The seconds that are shown, and how long the whole took.
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
    async fn no_wait_is_over_at_once_and_none_lasts_for_ever() {
        assert_eq!(shown(Duration::ZERO).await.1, Duration::ZERO);
        let (seconds, took) = shown(Duration::MAX).await;
        assert_eq!(seconds.len(), 600);
        assert!(took < LONGEST_WAIT + Duration::from_secs(1), "{took:?}");
    }
}
