//! Changes without a restart: the settings are read again, compared with those in force, and applied as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::SettingsError;
use crate::telemetry::chain;

/// Every key with its value as text.
pub(crate) type SettingValues = BTreeMap<String, String>;

/// Validated settings, and the values from which they were made.
#[derive(Debug)]
pub(crate) struct SettingsReading<S> {
    pub(crate) settings: S,
    pub(crate) values: SettingValues,
}

/// Reads the settings of a program with the file, the variables and the flags of its start.
pub(crate) type ReadSettings<S> = Arc<dyn Fn() -> Result<SettingsReading<S>, SettingsError> + Send + Sync>;

/// Reads the settings again, and the values in force.
pub(crate) type Reading<S> = (ReadSettings<S>, SettingValues);

/// The section of the engines. All its changes need a restart.
const ENGINES: &str = "fleet";

/// The keys of a section whose change needs a restart.
#[derive(Debug)]
pub(crate) struct FixedKeys {
    /// The section.
    pub(crate) section: &'static str,
    /// Keys that cannot change, with spaces between them.
    pub(crate) fixed: &'static str,
    /// Keys that can change, but neither from `""` nor to it.
    pub(crate) switches: &'static [&'static str],
}

impl FixedKeys {
    fn contains(&self, key: &str, before: &str, after: &str) -> bool {
        self.fixed.split(' ').any(|fixed| fixed == key)
            || (self.switches.contains(&key) && before.is_empty() != after.is_empty())
    }
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The time of the reload (RFC 3339).
    pub at: String,
    /// Whether the configuration is valid, so that its changes are in force.
    pub applied: bool,
    /// The keys whose changes are in force.
    pub changed: Vec<String>,
    /// The keys whose changes need a restart.
    pub needs_restart: Vec<String>,
    /// The reason of a rejection: file, key and value.
    pub reason: Option<String>,
}

impl ReloadReport {
    /// A description for operators if they have something to do.
    pub(crate) fn warning(&self) -> Option<String> {
        match &self.reason {
            Some(reason) => Some(format!("the configuration was rejected at {}: {reason}", self.at)),
            None if self.needs_restart.is_empty() => None,
            None => Some(format!(
                "the configuration has changes that need a restart: {}",
                self.needs_restart.join(", ")
            )),
        }
    }
}

/// The last reload, and the number of all reloads.
#[derive(Debug, Default)]
pub(crate) struct ReloadRecord {
    last: ArcSwapOption<ReloadReport>,
    /// Reloads that took effect.
    pub(crate) applied: AtomicU64,
    /// Reloads that were rejected.
    pub(crate) rejected: AtomicU64,
}

impl ReloadRecord {
    /// The last reload; `None` before the first one.
    pub(crate) fn last(&self) -> Option<Arc<ReloadReport>> {
        self.last.load_full()
    }

    fn store(&self, report: ReloadReport) {
        let counter = if report.applied { &self.applied } else { &self.rejected };
        counter.fetch_add(1, Relaxed);
        self.last.store(Some(Arc::new(report)));
    }
}

/// The keys of a reading that differ from those in force.
#[derive(Debug, Default, PartialEq, Eq)]
struct KeyChanges {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

fn compare(fixed: &FixedKeys, in_force: &SettingValues, read: &SettingValues) -> KeyChanges {
    let mut changes = KeyChanges::default();
    for (name, after) in read {
        let Some((section, key)) = name.split_once('.') else { continue };
        let before = in_force.get(name).map_or("", String::as_str);
        let is_own = section == fixed.section;
        if before == after || !is_own && section != ENGINES {
            continue;
        }
        let names = if !is_own || fixed.contains(key, before, after) {
            &mut changes.needs_restart
        } else {
            &mut changes.changed
        };
        names.push(name.clone());
    }
    changes
}

/// Reloads the settings of one program.
pub(crate) struct Reloader<S> {
    read: ReadSettings<S>,
    in_force: SettingValues,
    fixed: &'static FixedKeys,
    record: Arc<ReloadRecord>,
}

impl<S: Send + 'static> Reloader<S> {
    pub(crate) fn new(
        (read, in_force): Reading<S>,
        fixed: &'static FixedKeys,
        record: Arc<ReloadRecord>,
    ) -> Self {
        Self { read, in_force, fixed, record }
    }

    /// Reads the settings and applies their changes. `prepare` does everything that can fail, on a thread of its own, because
    /// disks and resolvers may be slow; it gets the changed keys. If the settings are invalid or `prepare` returns a reason,
    /// nothing changes.
    pub(crate) async fn reload<P: Send + 'static>(
        &mut self,
        prepare: impl FnOnce(&S, &[String]) -> Result<P, String> + Send + 'static,
        apply: impl AsyncFnOnce(S, P),
    ) -> ReloadReport {
        let read = self.read(prepare).await;
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let report = match read {
            Ok((SettingsReading { settings, values }, KeyChanges { changed, needs_restart }, prepared)) => {
                apply(settings, prepared).await;
                let in_force = |(name, _): &(String, String)| changed.contains(name);
                self.in_force.extend(values.into_iter().filter(in_force));
                tracing::info!(?changed, "the configuration was read again");
                if !needs_restart.is_empty() {
                    tracing::warn!(keys = ?needs_restart, "the changes of these keys need a restart");
                }
                ReloadReport { at, applied: true, changed, needs_restart, reason: None }
            }
            Err(reason) => {
                tracing::error!(reason, "the configuration was rejected; the one in force stays");
                let nothing = Vec::new;
                ReloadReport {
                    at,
                    applied: false,
                    changed: nothing(),
                    needs_restart: nothing(),
                    reason: Some(reason),
                }
            }
        };
        self.record.store(report.clone());
        report
    }

    async fn read<P: Send + 'static>(
        &self,
        prepare: impl FnOnce(&S, &[String]) -> Result<P, String> + Send + 'static,
    ) -> Result<(SettingsReading<S>, KeyChanges, P), String> {
        let (read, in_force, fixed) = (Arc::clone(&self.read), self.in_force.clone(), self.fixed);
        let (sender, result) = oneshot::channel();
        let prepared = move || {
            let reading = read().map_err(|error| chain(&error))?;
            let changes = compare(fixed, &in_force, &reading.values);
            let prepared = prepare(&reading.settings, &changes.changed)?;
            Ok((reading, changes, prepared))
        };
        // Not a thread of the pool of tokio, which panics if no thread can be started.
        let spawned = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            // The receiver is dropped if the program ends.
            let _ = sender.send(prepared());
        });
        spawned.map_err(|error| format!("a thread cannot be started: {error}"))?;
        result.await.map_err(|_| "the thread that read it panicked; the log has the reason".to_owned())?
    }
}

#[cfg(test)]
mod tests;
