//! The counters of a file server, and their export as metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use super::digests::Table;
use super::load::Load;
use crate::http::admin;
use crate::http::https::Https;
use crate::http::transport::Connections;
use crate::settings::reload::ReloadRecord;
use crate::telemetry::metric;

/// The statuses of the answers, in the order of a worker's counters.
const STATUSES: [u16; 12] = [200, 206, 301, 304, 400, 403, 404, 412, 416, 500, 501, 503];

/// The counters of one HTTP worker. Each worker writes its own, so that the request path shares no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct FileServerCounters {
    answers: [AtomicU64; STATUSES.len()],
    /// Files sent from memory without a look at the disk.
    pub cache_hits: AtomicU64,
    /// Files that were looked up on the disk.
    pub cache_misses: AtomicU64,
    /// Files that were evicted to make room for others.
    pub cache_evictions: AtomicU64,
    /// Times a file was sent from memory of this process because the limit of copies was reached or a copy failed.
    pub copies_left_out: AtomicU64,
    /// Times the results of lookups for precompressed files were dropped because there were too many.
    pub variants_forgotten: AtomicU64,
    /// Parts of large files that were not in the page cache and were read before they were sent.
    pub cold_reads: AtomicU64,
    /// Listings that show only a part of a folder.
    pub listings_cut: AtomicU64,
    /// Listings that were refused because too many were being made or sent.
    pub listings_refused: AtomicU64,
}

impl FileServerCounters {
    /// Counts an answer with this status.
    pub(super) fn answered(&self, status: u16) {
        let at = STATUSES.iter().position(|known| *known == status);
        if let Some(counter) = at.and_then(|at| self.answers.get(at)) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// All counters of a file server.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    /// The counters of each worker.
    pub workers: Vec<Arc<FileServerCounters>>,
    /// The load.
    pub load: Arc<Load>,
    /// The counters of the connections.
    pub connections: Arc<Connections>,
    /// Lines of the access log that were dropped.
    pub log_lines_lost: Arc<AtomicU64>,
    /// The digests, if they are enabled.
    pub digests: Option<Arc<Table>>,
}

impl Figures {
    /// A registry that reads these counters at each scrape.
    pub(super) fn registry(self, https: Option<&Https>, reloads: Arc<ReloadRecord>) -> Registry {
        let mut registry = Registry::with_prefix("fingerpost_server");
        admin::register(&mut registry, Arc::clone(&self.connections), https, reloads);
        registry.register_collector(Box::new(self));
        registry
    }

    fn sum(&self, of: impl Fn(&FileServerCounters) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| of(worker).load(Relaxed)).sum()
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let answers = STATUSES.iter().enumerate().map(|(at, status)| {
            let counters = self.workers.iter().filter_map(|worker| worker.answers.get(at));
            let count = counters.map(|counter| counter.load(Relaxed)).sum::<u64>();
            ([("status", status.to_string())], ConstCounter::new(count))
        });
        metric::family(encoder, "answers", "Answers given, by status", answers)?;
        for (name, help, value) in [
            ("completed", "Answers with a file that were sent whole", self.load.completed()),
            (
                "aborted",
                "Answers with a file whose client disconnected or was disconnected before their end",
                self.load.aborted(),
            ),
            ("body_bytes", "Bytes of files written to the kernel", self.load.sent()),
            ("cache_hits", "Files answered from memory", self.sum(|worker| &worker.cache_hits)),
            ("cache_misses", "Files looked up on the disk", self.sum(|worker| &worker.cache_misses)),
            (
                "cache_evictions",
                "Files evicted from memory to make room for others",
                self.sum(|worker| &worker.cache_evictions),
            ),
            (
                "copies_left_out",
                "Answers from memory without a copy in the kernel, which would be cheaper, because of the limit of copies",
                self.sum(|worker| &worker.copies_left_out),
            ),
            (
                "variants_forgotten",
                "Times the results of lookups for precompressed files were dropped because there were too many",
                self.sum(|worker| &worker.variants_forgotten),
            ),
            (
                "cold_reads",
                "Parts of up to 1 MiB of large files that had to be read from a disk",
                self.sum(|worker| &worker.cold_reads),
            ),
            ("listings_cut", "Listings that show only a part", self.sum(|worker| &worker.listings_cut)),
            (
                "listings_refused",
                "Listings refused because too many were being made or sent",
                self.sum(|worker| &worker.listings_refused),
            ),
            (
                "access_log_lines_lost",
                "Lines dropped because the disk was too slow or full",
                self.log_lines_lost.load(Relaxed),
            ),
        ] {
            metric::counter(encoder, name, help, value)?;
        }
        metric::gauge(encoder, "in_flight", "Downloads under way", u64::from(self.load.in_flight()))?;
        self.digests.as_ref().map_or(Ok(()), |table| encode_digests(table, encoder))
    }
}

fn encode_digests(table: &Table, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, value) in [
        ("digest_bytes", "Bytes read to compute digests", table.bytes.load(Relaxed)),
        ("digest_failures", "Files whose digest could not be computed", table.failures.load(Relaxed)),
        ("digest_walks", "Complete walks through the folder for digests", table.walks.load(Relaxed)),
        ("digests_left_out", "Digests not computed because of a limit", table.left_out.load(Relaxed)),
    ] {
        metric::counter(encoder, name, help, value)?;
    }
    for (name, help, value) in [
        ("digests_known", "Digests known", table.known()),
        ("digests_pending", "Files that wait for their digest", table.pending.load(Relaxed)),
    ] {
        metric::gauge(encoder, name, help, value as u64)?;
    }
    Ok(())
}
