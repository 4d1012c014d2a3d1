//! When a reader takes too little: a sliding window over the bytes that were sent. Pure.

/// How many times the window is looked at while it passes.
pub(super) const TICKS: u32 = 4;

/// Bytes sent at the last few ticks of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    marks: [u64; TICKS as usize],
    next: usize,
}

/// Whether a reader goes on being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Keeps,
    Stalled,
}

impl Stall {
    /// Starts a window in which `sent` bytes have gone before.
    pub(super) fn start(sent: u64) -> Self {
        Self { marks: [sent; TICKS as usize], next: 0 }
    }

    /// Looks at the reader at the end of a tick, `sent` bytes having gone in all. `ticks` is how many have
    /// passed since the start; a reader is not judged before a whole window has.
    pub(super) fn tick(&mut self, sent: u64, ticks: u32, minimum: u64) -> Reader {
        let Some(oldest) = self.marks.get_mut(self.next) else { return Reader::Keeps };
        let taken = sent.saturating_sub(*oldest);
        *oldest = sent;
        self.next = (self.next + 1) % TICKS as usize;
        if ticks >= TICKS && taken < minimum { Reader::Stalled } else { Reader::Keeps }
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
    fn a_pause_shorter_than_the_window_is_no_stall() {
        let mut stall = Stall::start(0);
        let sent = [100, 100, 100, 200, 200, 200, 300];
        for (tick, sent) in (1..).zip(sent) {
            assert_eq!(stall.tick(sent, tick, 100), Reader::Keeps, "tick {tick}");
        }
    }
}
