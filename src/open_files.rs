//! How many files, sockets among them, this process may have open.
//!
//! Systems start programs with a low limit that each may raise to a high one. 1024 are fewer than the connections that
//! are allowed by default.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::transport::REFUSED_AT_ONCE;

/// What a program needs.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// To start at all, threads and listeners included.
    pub start: u64,
    /// With every connection that the settings allow.
    pub most: u64,
}

impl Need {
    /// That of a program with so many HTTP workers, which refuses connections, and besides what its settings allow.
    #[must_use]
    pub fn new(workers: usize, most_besides: u64) -> Self {
        // Measured: 28, and 4 for each worker.
        let start = 40 + 4 * workers as u64;
        let most = start.saturating_add(REFUSED_AT_ONCE as u64).saturating_add(most_besides);
        Self { start, most }
    }

    /// That of so many programs of this kind in one process.
    #[must_use]
    pub fn times(self, programs: u64) -> Self {
        Self { start: self.start.saturating_mul(programs), most: self.most.saturating_mul(programs) }
    }

    /// That of both in one process.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { start: self.start.saturating_add(other.start), most: self.most.saturating_add(other.most) }
    }
}

/// The process may not have enough files open to run.
#[derive(Debug, thiserror::Error)]
#[error(
    "{limit} files and sockets may be open at once, and {needed} are needed to start: raise the limit, with \
     `ulimit -n` or systemd's LimitNOFILE"
)]
pub struct TooFewFiles {
    limit: u64,
    needed: u64,
}

/// Raises the limit to what is needed, as far as the system allows. Less than all that the settings allow is a warning,
/// less than what a start takes is an error.
pub fn provide(need: Need) -> Result<(), TooFewFiles> {
    let limit = raised(need.most);
    match limit {
        limit if limit < need.start => Err(TooFewFiles { limit, needed: need.start }),
        limit if limit < need.most => {
            tracing::warn!(
                limit,
                needed = need.most,
                "fewer files and sockets may be open than the settings allow"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The limit once it has been raised to `wanted`, if it could be.
#[must_use]
pub fn raised(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let aim = wanted.min(maximum.unwrap_or(u64::MAX));
    if current >= aim {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(aim), maximum }) {
        Ok(()) => aim,
        Err(_) => current,
    }
}
