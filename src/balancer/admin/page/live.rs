//! The task behind the page: it reads the latest table and the counters once a second, keeps the recent figures, and sends
//! the changed fragments to each listener. The request path does not notice it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::trend::TICKS;
use super::{BackendFigures, BackendRow, CELLS, CounterRate, FleetFigures, PagePart, PageView};
use crate::balancer::admin::Admin;
use crate::balancer::admin::events::{self, BackendEvent};
use crate::balancer::admin::fleet::FleetStatus;
use crate::balancer::admin::status::{self, StatusReport};
use crate::balancer::backends::BackendId;
use crate::balancer::history::History;
use crate::balancer::metrics::BalancerMetrics;
use crate::balancer::orders::store::Orders;
use crate::balancer::policy::MonotonicClock;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::redirect::BalancerState;
use crate::balancer::sources::SourcesReport;
use crate::http::stop::Phase;
use crate::settings::reload::ReloadRecord;
use crate::telemetry::metric::registered;

/// The time between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// The time between two looks for events. They are sent at once, because a killed server should be visible soon.
const EVENTS_TICK: Duration = Duration::from_millis(200);

/// The largest number of rows: a browser is slow with more. The JSON of the API has every backend.
const MOST_ROWS: usize = 1000;

/// The largest number of listeners.
const MOST_LISTENERS: usize = 32;

/// The number of messages that wait for a listener. A listener that is further behind is cut.
const QUEUE: usize = 8;

/// The number of requests that wait for the task.
const REQUESTS: usize = 64;

/// The number of events on the page.
const EVENTS: usize = 20;

/// The part of a rate that the latest second determines.
const SMOOTHING: f64 = 0.3;

/// The metrics of the listeners.
#[derive(Debug, Clone, Default)]
struct ListenerMetrics {
    open: Gauge,
    refused: Counter,
    cut: Counter,
}

/// Requests to the task.
pub(in crate::balancer::admin) struct LivePage(mpsc::Sender<LiveRequest>);

enum LiveRequest {
    Document(oneshot::Sender<String>),
    Listen(oneshot::Sender<Option<Messages>>),
}

/// The messages for one listener. It counts as a listener until its connection ends.
pub(in crate::balancer::admin) struct Messages {
    messages: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Messages {
    /// The next message; `None` if the listener was too slow.
    pub(in crate::balancer::admin) async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await
    }
}

impl LivePage {
    /// Starts the task on the current thread, and registers its metrics.
    pub(in crate::balancer::admin) fn start(
        admin: &Admin,
        registry: &mut Registry,
        phases: watch::Receiver<Phase>,
    ) -> Self {
        let open = "Browsers that show the live page";
        let refused = "Browsers that get no live page, because there are too many listeners";
        let cut = "Listeners of the live page that were cut because they read too slowly";
        let metrics = ListenerMetrics {
            open: registered(registry, "page_listeners", open),
            refused: registered(registry, "page_listeners_refused", refused),
            cut: registered(registry, "page_listeners_cut", cut),
        };
        let (sender, receiver) = mpsc::channel(REQUESTS);
        actix_web::rt::spawn(LivePageTask::new(admin, metrics).run(receiver, phases));
        Self(sender)
    }

    /// The page at this moment; `None` if the balancer ends.
    pub(in crate::balancer::admin) async fn document(&self) -> Option<String> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(LiveRequest::Document(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Adds a listener; `None` if there are too many.
    pub(in crate::balancer::admin) async fn listen(&self) -> Option<Messages> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(LiveRequest::Listen(sender)).await.ok()?;
        receiver.await.ok()?
    }
}

/// The state of the page.
struct LivePageTask {
    balancer: Arc<BalancerState>,
    publisher: Arc<TablePublisher>,
    orders: Arc<Orders>,
    sources: SourcesReport,
    clock: MonotonicClock,
    reloads: Arc<ReloadRecord>,
    counters: Arc<BalancerMetrics>,
    metrics: ListenerMetrics,
    backends: HashMap<BackendId, BackendFigures>,
    fleet: FleetFigures,
    /// The latest events, newest first.
    events: Vec<BackendEvent>,
    /// The latest change as text.
    announcement: String,
    /// The histories from which they are.
    histories: Vec<Arc<History>>,
    ticks: u64,
    latest_tick: Instant,
    permits: Arc<Semaphore>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    /// The fragments that all listeners have.
    sent: PageView,
}

impl LivePageTask {
    fn new(admin: &Admin, metrics: ListenerMetrics) -> Self {
        let mut task = Self {
            balancer: Arc::clone(&admin.balancer),
            publisher: Arc::clone(&admin.publisher),
            orders: Arc::clone(&admin.orders),
            sources: admin.balancer.sources.clone(),
            clock: admin.balancer.clock,
            reloads: Arc::clone(&admin.balancer.reloads),
            counters: Arc::clone(&admin.metrics),
            metrics,
            backends: HashMap::new(),
            fleet: FleetFigures::default(),
            events: Vec::new(),
            announcement: String::new(),
            histories: Vec::new(),
            ticks: 0,
            latest_tick: Instant::now(),
            permits: Arc::new(Semaphore::new(MOST_LISTENERS)),
            listeners: Vec::new(),
            sent: PageView::default(),
        };
        task.read(Instant::now());
        task
    }

    /// Ends at the begin of a stop, which ends the streams of the listeners, too.
    async fn run(mut self, mut requests: mpsc::Receiver<LiveRequest>, mut phases: watch::Receiver<Phase>) {
        let mut interval = tokio::time::interval_at(self.latest_tick + TICK, TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = tokio::time::interval(EVENTS_TICK);
        events.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = events.tick() => {
                    if self.read_events() {
                        self.update_listeners();
                    }
                }
                _ = phases.wait_for(|phase| *phase != Phase::Running) => return,
                _ = interval.tick() => {
                    self.read(Instant::now());
                    self.update_listeners();
                }
                request = requests.recv() => match request {
                    // A receiver is dropped if its client is gone.
                    Some(LiveRequest::Document(answer)) => drop(answer.send(self.view().document())),
                    Some(LiveRequest::Listen(answer)) => drop(answer.send(self.listen())),
                    None => return,
                }
            }
        }
    }

    /// Reads the table and the counters.
    fn read(&mut self, now: Instant) {
        let table = self.publisher.latest();
        let seconds = now.saturating_duration_since(self.latest_tick).as_secs_f64().max(0.001);
        self.latest_tick = now;
        let (mut redirects, mut refusals) = (0, 0);
        for (status, count) in self.counters.answers() {
            match status {
                300..400 => redirects += count,
                503 => refusals += count,
                _ => {}
            }
        }
        for (rate, total) in [(&mut self.fleet.redirects, redirects), (&mut self.fleet.refusals, refusals)] {
            rate.count(total, seconds, self.ticks);
        }
        let mut previous = std::mem::take(&mut self.backends);
        for (at, index) in (0..).zip(shown(&table)) {
            let Some(entry) = table.entries.get(index) else { continue };
            let redirects = entry.load.redirects();
            let new = || BackendFigures { redirects, ..BackendFigures::default() };
            let id = entry.backend.id();
            let mut figures = previous.remove(id).unwrap_or_else(new);
            figures.rate = smoothed(figures.rate, redirects.saturating_sub(figures.redirects), seconds);
            figures.redirects = redirects;
            // Each second another fifteenth of the graphs gets a point, so the listeners get small messages.
            if (self.ticks + at).is_multiple_of(TICKS) {
                figures.latency.push(entry.estimate.response_time().map(|time| time.as_secs_f64() * 1000.0));
                let is_known = entry.estimate.has_usable_report();
                figures.in_flight.push(is_known.then(|| entry.load.outstanding() as f64));
            }
            self.backends.insert(id.clone(), figures);
        }
        self.announcement.clear();
        self.read_events();
        self.ticks += 1;
    }

    /// Reads the events, and whether there are new ones.
    fn read_events(&mut self) -> bool {
        let table = self.publisher.latest();
        let histories = || table.entries.iter().map(|entry| &entry.history);
        // All tables share a history until it changes.
        if histories().map(Arc::as_ptr).eq(self.histories.iter().map(Arc::as_ptr)) {
            return false;
        }
        self.histories = histories().map(Arc::clone).collect();
        let events = events::latest(&table, None, EVENTS);
        let new = |event: &&BackendEvent| !self.events.contains(event);
        if self.ticks > 0 {
            self.announcement = super::announcement(&events.iter().filter(new).collect::<Vec<_>>());
        }
        self.events = events;
        true
    }

    fn view(&self) -> PageView {
        let (table, now) = (self.publisher.latest(), SystemTime::now());
        let last_reload = self.reloads.last().as_deref().cloned();
        let report = StatusReport::of(&table, &self.orders, &self.sources, &self.clock, last_reload);
        let BalancerState { name, zone, .. } = &*self.balancer;
        let name = name.as_deref();
        let fleet = name.and_then(|name| FleetStatus::of(&table, name, zone.as_deref(), &self.orders.book()));
        let (shown, unknown) = (shown(&table), BackendFigures::default());
        let backends: Vec<_> = shown.iter().filter_map(|index| report.backends.get(*index)).collect();
        let figures: Vec<&BackendFigures> = shown
            .iter()
            .filter_map(|index| table.entries.get(*index))
            .map(|entry| self.backends.get(entry.backend.id()).unwrap_or(&unknown))
            .collect();
        let hidden = report.backends.len() - backends.len();
        let mut all_rates: f64 = figures.iter().map(|figures| figures.rate).sum();
        if hidden > 0 {
            all_rates = all_rates.max(self.fleet.redirects.per_second);
        }
        let shows_sources = report.sources.len() > 1;
        let row = |(backend, figures)| BackendRow::new(backend, figures, all_rates, shows_sources, now);
        PageView {
            rows: backends.into_iter().zip(figures).map(row).collect(),
            parts: super::parts(
                &report,
                fleet.as_ref(),
                hidden,
                &self.fleet,
                &self.events,
                &self.balancer.statistics.top(),
            ),
        }
    }

    fn listen(&mut self) -> Option<Messages> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.refused.inc();
            return None;
        };
        if self.listeners.is_empty() {
            self.sent = self.view();
        }
        let (sender, messages) = mpsc::channel(QUEUE);
        // The queue is empty, so the message fits.
        let _ = sender.try_send(snapshot(&self.sent));
        self.listeners.push(sender);
        Some(Messages { messages, _permit: permit })
    }

    fn update_listeners(&mut self) {
        let open = MOST_LISTENERS.saturating_sub(self.permits.available_permits());
        self.metrics.open.set(open.try_into().unwrap_or(i64::MAX));
        self.listeners.retain(|listener| !listener.is_closed());
        if self.listeners.is_empty() {
            return;
        }
        let view = self.view();
        let message = if view.has_the_rows_of(&self.sent) {
            changes(&self.sent, &view, &self.announcement)
        } else {
            snapshot(&view)
        };
        self.sent = view;
        self.send(&message);
    }

    fn send(&mut self, message: &Bytes) {
        self.listeners.retain(|listener| match listener.try_send(message.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.metrics.cut.inc();
                false
            }
        });
    }
}

/// The indices of the backends of the page, in the order of the list. Faults precede if there are too many.
fn shown(table: &RoutingTable) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..table.entries.len()).collect();
    if shown.len() > MOST_ROWS {
        let severity = |index: &usize| {
            table.entries.get(*index).map(|entry| status::severity(&entry.health.state().to_string()))
        };
        shown.sort_by_cached_key(severity);
        shown.truncate(MOST_ROWS);
        shown.sort_unstable();
    }
    shown
}

fn smoothed(rate: f64, count: u64, seconds: f64) -> f64 {
    rate + (count as f64 / seconds - rate) * SMOOTHING
}

impl CounterRate {
    fn count(&mut self, total: u64, seconds: f64, tick: u64) {
        if tick == 0 {
            (self.total, self.at_point) = (total, total);
        }
        self.per_second = smoothed(self.per_second, total.saturating_sub(self.total), seconds);
        self.total = total;
        if tick.is_multiple_of(TICKS) {
            self.trend.push(Some(total.saturating_sub(self.at_point) as f64 / TICKS as f64));
            self.at_point = total;
        }
    }
}

impl PageView {
    fn has_the_rows_of(&self, other: &Self) -> bool {
        self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(|(own, other)| own.key == other.key)
    }
}

/// The content of the event `snapshot`.
#[derive(Serialize)]
struct PageSnapshot<'a> {
    rows: Vec<(&'a str, &'a [String; CELLS])>,
    parts: BTreeMap<&'a str, &'a str>,
}

/// The content of the event `changes`.
#[derive(Serialize)]
struct Changes<'a> {
    /// Row, cell, HTML.
    cells: Vec<(usize, usize, &'a str)>,
    parts: BTreeMap<&'a str, &'a str>,
    /// Text for a screen reader.
    #[serde(skip_serializing_if = "str::is_empty")]
    announcement: &'a str,
}

fn snapshot(view: &PageView) -> Bytes {
    let rows = view.rows.iter().map(|row| (row.key.as_str(), &row.cells)).collect();
    message("snapshot", &PageSnapshot { rows, parts: view.parts.iter().map(named).collect() })
}

/// A message also without changes: it shows that the balancer runs.
fn changes(before: &PageView, now: &PageView, announcement: &str) -> Bytes {
    let cells = (0..).zip(before.rows.iter().zip(&now.rows)).flat_map(|(row, (before, now))| {
        let cells = (0..).zip(before.cells.iter().zip(&now.cells));
        cells
            .filter(|(_, (before, now))| before != now)
            .map(move |(cell, (_, now))| (row, cell, now.as_str()))
    });
    let parts = before.parts.iter().zip(&now.parts).filter(|(before, now)| before != now);
    let changes =
        Changes { cells: cells.collect(), parts: parts.map(|(_, now)| named(now)).collect(), announcement };
    message("changes", &changes)
}

fn named((name, html): &PagePart) -> (&str, &str) {
    (name, html)
}

/// A server-sent event. JSON has no line break outside of its strings, and escapes those inside.
fn message(name: &str, content: &impl Serialize) -> Bytes {
    // The content is text and numbers, so serialization cannot fail.
    let json = serde_json::to_string(content).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into()
}

#[cfg(test)]
mod tests;
