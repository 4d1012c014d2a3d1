//! Low-impact reads: at the lowest priority, at a limited rate, and without a trace in the page cache, which would
//! otherwise lose files that clients request.

use std::fs::File;
use std::num::NonZeroU64;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, pread, retry_on_intr};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::time::Instant;

use crate::http::nowait::{self, NowaitRead};

/// Limits the rate of reads, in bytes per second.
#[derive(Debug)]
pub(super) struct ReadPace {
    rate: Option<NonZeroU64>,
    free_at: Instant,
}

impl ReadPace {
    pub(super) fn new(rate: Option<NonZeroU64>, now: Instant) -> Self {
        Self { rate, free_at: now }
    }

    /// Records a read of `bytes`, and returns the earliest time of the next one.
    pub(super) fn spend(&mut self, bytes: u64, now: Instant) -> Instant {
        let took = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate.get())) as u64)
        });
        self.free_at = self.free_at.max(now) + took;
        self.free_at
    }
}

/// Gives this thread idle priority for processor and disk. If that is not permitted, it gets the lowest regular
/// priority.
pub(super) fn lower_priority() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        tracing::debug!(%error, "digests are not computed at idle priority");
        if let Err(errno) = rustix::process::setpriority_process(None, 19) {
            tracing::debug!(%errno, "digests are computed at normal priority");
        }
    }
}

/// Disables read-ahead: the kernel would keep the extra bytes in the page cache as if a client had requested them.
pub(super) fn do_not_read_ahead(file: &File) {
    // If the call is refused, the kernel reads ahead.
    let _ = fadvise(file, 0, None, Advice::Random);
}

/// Reads bytes, and removes them from the page cache if they were not in it before and the system reports this.
pub(super) fn read(file: &File, bytes: &mut [u8], at: u64) -> Result<usize, Errno> {
    let found = nowait::read_at(file, bytes, at)?;
    if let NowaitRead::Read(read) = found {
        return Ok(read);
    }
    let read = retry_on_intr(|| pread(file, &mut *bytes, at))?;
    if found == NowaitRead::NotInMemory {
        // If the call is refused, the bytes stay in the page cache.
        let _ = fadvise(file, at, NonZeroU64::new(read as u64), Advice::DontNeed);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_time_is_not_saved_up() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = ReadPace::new(NonZeroU64::new(1000), now);
        assert_eq!(pace.spend(500, now), now + second / 2);
        assert_eq!(pace.spend(500, now), now + second);
        assert_eq!(pace.spend(1000, now + 10 * second), now + 11 * second);
        let mut free = ReadPace::new(None, now);
        assert_eq!(free.spend(u64::MAX, now), now);
    }
}
