//! Resolves names: one lookup at a time for each name, a cache of answers, and old answers while the resolver fails.
//!
//! The resolver of the system blocks, for many seconds if its servers do not answer. Each lookup therefore has its
//! own thread. The number of threads is limited, and a thread that cannot be started is an error of this machine, not
//! a panic.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fmt, io, thread};

use dns_lookup::LookupErrorKind;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Time for which an answer is used without a new lookup. The resolver of the system does not return the time to live
/// of records.
const FRESH_FOR: Duration = Duration::from_mins(1);

/// Time for which a failure is used without a new lookup.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Maximum time that callers wait for a lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time that callers wait for a new answer if an old one can be used (RFC 8767, section 5).
const REFRESH_TIMEOUT: Duration = Duration::from_millis(200);

/// Maximum number of lookup threads.
const MAX_LOOKUPS: usize = 512;

/// Threads that are reserved for names that were resolved before, so that names that never resolve cannot use all
/// threads.
const LOOKUPS_FOR_KNOWN: usize = 64;

/// Maximum number of names in the cache. Beyond it, the least recently used names are removed.
const MAX_NAMES: usize = 16 * 1024;

/// Stack size of a lookup thread, in bytes.
const STACK_BYTES: usize = 256 * 1024;

/// The addresses of a name, in the order of the resolver, without duplicates.
pub(crate) type Addresses = Arc<[IpAddr]>;

/// Why a name cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    #[error("no such name: {0}")]
    NoSuchName(String),
    /// The resolver failed. The name may exist.
    #[error("the resolver failed: {0}")]
    Failed(String),
    /// The resolver did not answer within [`LOOKUP_TIMEOUT`].
    #[error("the resolver did not answer within {}", humantime::format_duration(LOOKUP_TIMEOUT))]
    TimedOut,
    /// This process or machine lacks descriptors, threads or memory.
    #[error("this machine is short of {what}: {detail}")]
    Shortage {
        /// The missing resource.
        what: &'static str,
        /// The error of the system.
        detail: String,
    },
}

/// Resolves names. Clones share their cache, also between threads.
#[derive(Clone)]
pub(crate) struct Resolver {
    shared: Arc<ResolverState>,
}

type Lookup = dyn Fn(&str) -> Result<Vec<IpAddr>, ResolveError> + Send + Sync;

struct ResolverState {
    names: Names,
    /// The number of current lookups.
    running: AtomicUsize,
    /// Lookups that were not started because too many were running.
    refused: Counter,
    lookup: Box<Lookup>,
}

#[expect(
    clippy::disallowed_types,
    reason = "connecting is not the request path; the lock is held for a look into the map"
)]
type Names = std::sync::Mutex<HashMap<String, NameEntry>>;

/// The state of one name.
#[derive(Default)]
struct NameEntry {
    /// The last addresses, and the time of their lookup.
    good: Option<(Addresses, Instant)>,
    /// The error and the time of the last lookup, if it failed.
    failed: Option<(ResolveError, Instant)>,
    /// The receiver and the start time of the current lookup.
    pending: Option<(watch::Receiver<Option<Outcome>>, Instant)>,
    used: Option<Instant>,
}

type Outcome = Result<Addresses, ResolveError>;

/// The source of an answer for a caller.
enum AnswerSource {
    Known(Outcome),
    Awaited { outcome: watch::Receiver<Option<Outcome>>, since: Instant, stale: Option<Addresses> },
}

impl Default for Resolver {
    /// Uses the resolver of the system.
    fn default() -> Self {
        Self::new(system_lookup)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}

impl Resolver {
    fn new(lookup: impl Fn(&str) -> Result<Vec<IpAddr>, ResolveError> + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(ResolverState {
                names: Names::default(),
                running: AtomicUsize::new(0),
                refused: Counter::default(),
                lookup: Box::new(lookup),
            }),
        }
    }

    /// The counter of lookups that were not started because too many were running.
    pub(crate) fn refused(&self) -> Counter {
        self.shared.refused.clone()
    }

    /// The addresses of `name`: at least one. If a lookup fails, those of the last successful lookup.
    pub(crate) async fn resolve(&self, name: &str) -> Outcome {
        if is_localhost(name) {
            return Ok([IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)].into());
        }
        let (mut outcome, since, stale) = match self.ask(name, Instant::now()) {
            AnswerSource::Known(outcome) => return outcome,
            AnswerSource::Awaited { outcome, since, stale } => (outcome, since, stale),
        };
        let patience = if stale.is_some() { REFRESH_TIMEOUT } else { LOOKUP_TIMEOUT };
        let found = match timeout_at(since + patience, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().unwrap_or(Err(ResolveError::TimedOut)),
            // The thread ended without a result because the lookup panicked.
            Ok(Err(_)) => Err(ResolveError::Failed("the lookup ended without an answer".to_owned())),
            Err(_) => Err(ResolveError::TimedOut),
        };
        match (found, stale) {
            (Err(error), Some(stale)) if !matches!(error, ResolveError::NoSuchName(_)) => Ok(stale),
            (found, _) => found,
        }
    }

    fn ask(&self, name: &str, now: Instant) -> AnswerSource {
        let mut names = lock(&self.shared.names);
        let running = self.shared.running.load(Ordering::Relaxed);
        if names.len() >= MAX_NAMES && !names.contains_key(name) {
            forget_oldest(&mut names);
        }
        let entry = names.entry(name.to_owned()).or_default();
        entry.used = Some(now);
        let stale = entry.good.as_ref().map(|(addresses, _)| Arc::clone(addresses));
        if let Some((addresses, found_at)) = &entry.good
            && now.saturating_duration_since(*found_at) < FRESH_FOR
        {
            return AnswerSource::Known(Ok(Arc::clone(addresses)));
        }
        if let Some((error, failed_at)) = &entry.failed
            && now.saturating_duration_since(*failed_at) < FAILED_FOR
        {
            return AnswerSource::Known(stale.ok_or_else(|| error.clone()));
        }
        if let Some((outcome, since)) = &entry.pending {
            return AnswerSource::Awaited { outcome: outcome.clone(), since: *since, stale };
        }
        let most = if stale.is_some() { MAX_LOOKUPS } else { MAX_LOOKUPS - LOOKUPS_FOR_KNOWN };
        if running >= most {
            if self.shared.refused.inc() == 0 {
                tracing::warn!(
                    lookups = running,
                    "too many names are being looked up; names that wait for the resolver keep their last addresses"
                );
            }
            let detail = format!("{running} lookups are under way");
            return AnswerSource::Known(stale.ok_or(ResolveError::Shortage { what: "threads", detail }));
        }
        let (sender, outcome) = watch::channel(None);
        entry.pending = Some((outcome.clone(), now));
        // A lookup locks the names when it ends.
        drop(names);
        match self.start(name, sender) {
            Ok(()) => AnswerSource::Awaited { outcome, since: now, stale },
            Err(error) => {
                let detail = error.to_string();
                AnswerSource::Known(stale.ok_or(ResolveError::Shortage { what: "threads", detail }))
            }
        }
    }

    fn start(&self, name: &str, sender: watch::Sender<Option<Outcome>>) -> io::Result<()> {
        // If the lookup panics or its thread cannot be started, dropping the guard removes the pending lookup.
        let pending = PendingLookup::new(&self.shared, name);
        let lookup = move || {
            let outcome = (pending.shared.lookup)(&pending.name).map(|found| {
                let mut addresses = Vec::with_capacity(found.len());
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                Addresses::from(addresses)
            });
            pending.keep(&outcome);
            drop(pending);
            sender.send_replace(Some(outcome));
        };
        thread::Builder::new().name("lookup".to_owned()).stack_size(STACK_BYTES).spawn(lookup).map(drop)
    }
}

/// Guard of a lookup, owned by its thread.
struct PendingLookup {
    shared: Arc<ResolverState>,
    name: String,
}

impl PendingLookup {
    fn new(shared: &Arc<ResolverState>, name: &str) -> Self {
        shared.running.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), name: name.to_owned() }
    }

    fn keep(&self, outcome: &Outcome) {
        let mut names = lock(&self.shared.names);
        // The name may have been removed meanwhile.
        let Some(entry) = names.get_mut(&self.name) else { return };
        let now = Instant::now();
        match outcome {
            Ok(addresses) => {
                entry.good = Some((Arc::clone(addresses), now));
                entry.failed = None;
            }
            Err(error) => {
                if matches!(error, ResolveError::NoSuchName(_)) {
                    entry.good = None;
                }
                entry.failed = Some((error.clone(), now));
            }
        }
    }
}

impl Drop for PendingLookup {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
        if let Some(entry) = lock(&self.shared.names).get_mut(&self.name) {
            entry.pending = None;
        }
    }
}

fn lock(names: &Names) -> std::sync::MutexGuard<'_, HashMap<String, NameEntry>> {
    names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Removes the less recently used half of all names without a current lookup.
fn forget_oldest(names: &mut HashMap<String, NameEntry>) {
    let mut used: Vec<_> = names.values().map(|entry| entry.used).collect();
    let middle = used.len() / 2;
    let (_, middle, _) = used.select_nth_unstable(middle);
    let middle = *middle;
    names.retain(|_, entry| entry.pending.is_some() || entry.used > middle);
}

/// Whether a name means this machine, whatever the resolver returns (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

/// One blocking lookup with the resolver of the system.
fn system_lookup(name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let error = match dns_lookup::lookup_host(name) {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.collect();
            return if addresses.is_empty() {
                Err(ResolveError::NoSuchName("it has no address".to_owned()))
            } else {
                Ok(addresses)
            };
        }
        Err(error) => error,
    };
    let kind = error.kind();
    let source = io::Error::from(error);
    let detail = source.to_string();
    if matches!(kind, LookupErrorKind::Memory) {
        return Err(ResolveError::Shortage { what: "memory", detail });
    }
    // Without a descriptor for its socket or files, the resolver may return any error, even that the name does not
    // exist.
    if let Err(error) = std::fs::File::open("/dev/null") {
        return Err(ResolveError::Shortage { what: "file descriptors", detail: error.to_string() });
    }
    Err(match kind {
        LookupErrorKind::NoName | LookupErrorKind::NoData => ResolveError::NoSuchName(detail),
        _ => ResolveError::Failed(detail),
    })
}

#[cfg(test)]
mod tests;
