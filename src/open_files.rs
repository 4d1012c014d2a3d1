//! The limit of open files, which includes sockets.
//!
//! Systems start programs with a low soft limit, often 1024, that each program may raise to the hard limit. The default
//! settings allow more connections than 1024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of open files that a program needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// Files needed to start, threads and listeners included.
    pub start: u64,
    /// Files needed with every connection that the settings allow.
    pub most: u64,
    /// Whether the configuration sets a number of connections. Only then a lower limit causes a warning.
    pub origin: SettingsOrigin,
}

/// The origin of the settings that limit the number of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettingsOrigin {
    /// All of them have their default.
    Default,
    /// At least one is configured.
    Set,
}

impl Need {
    /// The need of a program with `workers` HTTP workers plus `most_besides` files allowed by its settings.
    pub(crate) fn new(workers: usize, most_besides: u64, origin: SettingsOrigin) -> Self {
        // Measured: 28, and 4 for each worker.
        let start = 40 + 4 * workers as u64;
        Self { start, most: start.saturating_add(most_besides), origin }
    }

    /// The need of `programs` equal programs in one process.
    pub(crate) fn times(self, programs: u64) -> Self {
        Self {
            start: self.start.saturating_mul(programs),
            most: self.most.saturating_mul(programs),
            origin: self.origin,
        }
    }

    /// Combines the needs of two programs that run in one process.
    pub(crate) fn and(self, other: Self) -> Self {
        let is_set = self.origin == SettingsOrigin::Set || other.origin == SettingsOrigin::Set;
        Self {
            start: self.start.saturating_add(other.start),
            most: self.most.saturating_add(other.most),
            origin: if is_set { SettingsOrigin::Set } else { SettingsOrigin::Default },
        }
    }
}

/// The limit of open files is too low to start.
#[derive(Debug, thiserror::Error)]
#[error(
    "at most {limit} files and sockets may be open, and a start needs {needed}: raise the limit with \
     `ulimit -n {needed}`, or with LimitNOFILE={needed} in a systemd unit"
)]
pub(crate) struct TooFewFiles {
    limit: u64,
    needed: u64,
}

/// Raises the limit to the need, as far as the hard limit allows.
///
/// A limit that is too low to start is an error. A limit that is too low for the configured number of connections causes
/// a warning. Defaults cause no warning: connections beyond the limit wait or get the 503 page.
pub(crate) fn provide(need: Need) -> Result<(), TooFewFiles> {
    let limit = raised(need.most);
    if limit < need.start {
        return Err(TooFewFiles { limit, needed: need.start });
    }
    if limit < need.most && need.origin == SettingsOrigin::Set {
        tracing::warn!(
            limit,
            needed = need.most,
            "the hard limit of open files is below what max_connections needs: raise the hard limit \
             (`ulimit -Hn`, or LimitNOFILE= in the systemd unit) or lower max_connections"
        );
    }
    Ok(())
}

/// Raises the soft limit to `wanted`, as far as possible, and returns the limit in force.
pub(crate) fn raised(wanted: u64) -> u64 {
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

/// The number of downloads that may run at a time: `wanted`, or fewer if the limit, raised as far as possible, is too low.
pub(crate) fn parallel_downloads(wanted: usize) -> usize {
    /// Connections to several servers, the part file, its journal and its folder.
    const OF_EACH: u64 = 8;
    const BESIDES: u64 = 32;

    let limit = raised(BESIDES.saturating_add(OF_EACH.saturating_mul(wanted as u64)));
    let possible = usize::try_from(limit.saturating_sub(BESIDES) / OF_EACH).unwrap_or(usize::MAX);
    possible.clamp(1, wanted.max(1))
}
