//! Reading that is not felt: at the lowest priority, so many bytes a second, without a trace in the page cache, where
//! it would push out what clients ask for.

use std::fs::File;
use std::num::NonZeroU64;
use std::time::Duration;

use rustix::io::{Errno, pread, retry_on_intr};
use tokio::time::Instant;

use super::super::nowait::{self, Nowait};

/// How many bytes a second are read.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<NonZeroU64>,
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<NonZeroU64>, now: Instant) -> Self {
        Self { rate, free_at: now }
    }

    /// When the next bytes may be read after these.
    pub(super) fn spend(&mut self, bytes: u64, now: Instant) -> Instant {
        let took = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate.get())) as u64)
        });
        self.free_at = self.free_at.max(now) + took;
        self.free_at
    }
}

/// From now on this thread runs when no other wants to, and its reads come after all others where the disk has an order.
/// Where that is not allowed it has the lowest of the usual priorities; on systems that do not let a single thread have
/// one, its pace is all that holds it back.
pub(super) fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };

        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
            tracing::debug!(%error, "digests are not made at idle priority");
            if let Err(errno) = rustix::process::setpriority_process(None, 19) {
                tracing::debug!(%errno, "digests are made at the priority of all other work");
            }
        }
    }
}

/// Bytes that were not asked for would lie in the page cache as if a client had wanted them.
pub(super) fn do_not_read_ahead(file: &File) {
    #[cfg(target_os = "linux")]
    // Where it is not taken, more is read ahead.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Reads, and leaves the page cache as it was if the system can tell which bytes are in it.
pub(super) fn read(file: &File, bytes: &mut [u8], at: u64) -> Result<usize, Errno> {
    let found = nowait::read_at(file, bytes, at)?;
    if let Nowait::Read(read) = found {
        return Ok(read);
    }
    let read = retry_on_intr(|| pread(file, &mut *bytes, at))?;
    #[cfg(target_os = "linux")]
    if found == Nowait::NotInMemory {
        // If it is refused, the bytes stay in the page cache.
        let _ = rustix::fs::fadvise(file, at, NonZeroU64::new(read as u64), rustix::fs::Advice::DontNeed);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_saves_up_no_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(NonZeroU64::new(1000), now);
        assert_eq!(pace.spend(500, now), now + second / 2);
        assert_eq!(pace.spend(500, now), now + second);
        assert_eq!(pace.spend(1000, now + 10 * second), now + 11 * second);
        let mut free = Pace::new(None, now);
        assert_eq!(free.spend(u64::MAX, now), now);
    }
}
