//! Detects clients that read too slowly, with a sliding window over the bytes that they received. Pure.

use std::time::Duration;

/// The number of ticks of a window.
pub(super) const TICKS: u32 = 4;

/// The number of bytes that a client must receive within a window at the minimum rate, at least one.
pub(super) fn minimum(rate: u64, window: Duration) -> u64 {
    let bytes = u128::from(rate).saturating_mul(window.as_millis()) / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// The number of received bytes at each of the last ticks of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    marks: [u64; TICKS as usize],
    next: usize,
}

/// The verdict about a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Keeps,
    Stalled,
}

impl Stall {
    /// Starts a window before which the client has received `taken` bytes.
    pub(super) fn start(taken: u64) -> Self {
        Self { marks: [taken; TICKS as usize], next: 0 }
    }

    /// Updates the window at the end of a tick. `taken` is the number of bytes that the client has received in total, `ticks`
    /// the number of ticks since the start. The client is never stalled before a whole window has passed.
    pub(super) fn tick(&mut self, taken: u64, ticks: u32, minimum: u64) -> Reader {
        let Some(oldest) = self.marks.get_mut(self.next) else { return Reader::Keeps };
        let within = taken.saturating_sub(*oldest);
        *oldest = taken;
        self.next = (self.next + 1) % TICKS as usize;
        if ticks >= TICKS && within < minimum { Reader::Stalled } else { Reader::Keeps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks_until_cut(rate_per_tick: u64, minimum: u64) -> Option<u32> {
        let mut stall = Stall::start(0);
        (1..100).find(|tick| stall.tick(u64::from(*tick) * rate_per_tick, *tick, minimum) == Reader::Stalled)
    }

    #[test]
    fn a_reader_that_takes_nothing_is_cut_after_one_window() {
        assert_eq!(ticks_until_cut(0, 1), Some(TICKS));
    }

    #[test]
    fn a_reader_is_cut_below_the_minimum_and_kept_at_it() {
        assert_eq!(ticks_until_cut(24, 100), Some(TICKS));
        assert_eq!(ticks_until_cut(25, 100), None);
    }

    #[test]
    fn a_minimum_rate_counts_in_windows_of_any_length() {
        assert_eq!(minimum(0, Duration::from_secs(30)), 1);
        assert_eq!(minimum(1000, Duration::from_secs(30)), 30_000);
        assert_eq!(minimum(1000, Duration::from_millis(250)), 250);
        assert_eq!(minimum(1000, Duration::from_millis(1500)), 1500);
        assert_eq!(minimum(u64::MAX, Duration::from_hours(24)), u64::MAX);
    }

    #[test]
    fn a_pause_shorter_than_the_window_is_no_stall() {
        let mut stall = Stall::start(0);
        let sent = [100, 100, 100, 200, 200, 200, 300];
        for (tick, sent) in (1..).zip(sent) {
            assert_eq!(stall.tick(sent, tick, 100), Reader::Keeps, "tick {tick}");
        }
    }
}
