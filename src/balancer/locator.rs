//! Follows the files with the places of addresses, and looks up the addresses of servers that are listed by name.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep};

use super::geography::FollowedGeography;
use super::metrics::GeographyMetrics;
use super::ranking::GeographyChanged;
use super::ranking::publisher::TablePublisher;
use super::ranking::reach::ServerAddresses;
use crate::http::client::Resolver;
use crate::supervision::Supervisor;
use crate::telemetry::chain;

/// The time between two looks at the files and the list.
const ROUND: Duration = Duration::from_secs(1);

/// The time between two look-ups of all names. Probes keep the answers fresh, so most of these need no request.
const LOOKUP_INTERVAL: Duration = Duration::from_mins(1);

/// The number of names that are looked up at once.
const CONCURRENT_LOOKUPS: usize = 8;

/// Keeps the places of clients and servers up to date.
pub(super) struct Locator {
    files: FollowedGeography,
    publisher: Arc<TablePublisher>,
    resolver: Resolver,
    metrics: GeographyMetrics,
    addresses: ServerAddresses,
    /// The names that have been looked up.
    asked: HashSet<String>,
    /// The time of the next look-up of all names.
    due: Instant,
}

impl Locator {
    pub(super) fn new(
        files: FollowedGeography,
        publisher: Arc<TablePublisher>,
        resolver: Resolver,
        metrics: GeographyMetrics,
    ) -> Self {
        let (addresses, asked) = (ServerAddresses::new(), HashSet::new());
        Self { files, publisher, resolver, metrics, addresses, asked, due: Instant::now() }
    }

    /// Starts to send each change to the ranking. Must be called on an actix arbiter.
    pub(super) fn start(self, supervisor: &Supervisor, ranking: Recipient<GeographyChanged>) {
        actix_rt::spawn(supervisor.clone().guard("the places of addresses", self.run(ranking)));
    }

    async fn run(mut self, ranking: Recipient<GeographyChanged>) {
        self.show();
        loop {
            let has_changed = self.look_up_names().await;
            if self.read_files().await || has_changed {
                let geography = self.files.geography().clone();
                // The mailbox of the ranking is full only for a moment, and a restarted actor keeps the places.
                let _ = ranking.send(GeographyChanged { geography, addresses: self.addresses.clone() }).await;
            }
            sleep(ROUND).await;
        }
    }

    fn show(&self) {
        for (path, database) in self.files.databases() {
            self.metrics.built(path, database.built_at());
        }
    }

    /// Reads changed files. Returns whether one is in force.
    async fn read_files(&mut self) -> bool {
        let mut files = self.files.clone();
        let reading = actix_rt::task::spawn_blocking(move || {
            let (is_changed, errors) = files.refresh();
            (files, is_changed, errors)
        });
        // It fails only if the reading panics. Then the file stays out of use until it changes again.
        let Ok((files, is_changed, errors)) = reading.await else {
            self.metrics.errors.inc();
            self.files.skip_changes();
            return false;
        };
        self.files = files;
        for error in errors {
            self.metrics.errors.inc();
            tracing::error!(error = chain(&error), "the last good state of the file stays in use");
        }
        if is_changed {
            self.show();
            tracing::info!("the places of addresses have changed");
        }
        is_changed
    }

    /// Looks up new names, and all names from time to time. Returns whether an address has changed.
    async fn look_up_names(&mut self) -> bool {
        let table = self.publisher.latest();
        let is_name = |host: &&str| host.parse::<IpAddr>().is_err();
        let names = table.entries.iter().map(|entry| entry.backend.host()).filter(is_name);
        if Instant::now() >= self.due {
            self.due = Instant::now() + LOOKUP_INTERVAL;
            let listed: HashSet<&str> = names.clone().collect();
            self.addresses.retain(|name, _| listed.contains(name.as_str()));
            self.asked.clear();
        }
        let wanted: HashSet<&str> = names.filter(|name| !self.asked.contains(*name)).collect();
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        self.asked.extend(wanted.iter().cloned());
        let resolver = &self.resolver;
        let lookups = wanted.into_iter().map(async |name| {
            let found = resolver.resolve(&name).await.ok();
            (name, found.and_then(|addresses| addresses.first().copied()))
        });
        let found: Vec<_> = stream::iter(lookups).buffer_unordered(CONCURRENT_LOOKUPS).collect().await;
        let mut has_changed = false;
        for (name, address) in found {
            // A failed look-up keeps the last address.
            if let Some(address) = address {
                has_changed |= self.addresses.insert(name, address) != Some(address);
            }
        }
        has_changed
    }
}
