//! The task behind the page: it reads the latest table and the counters once a second, keeps the recent figures, and sends
//! the changed fragments to each listener. The request path does not notice it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::top_paths::TopPaths;
use super::trend::TICKS;
use super::{BackendFigures, BackendRow, CounterRate, FleetFigures, PageView};
use crate::balancer::admin::Admin;
use crate::balancer::admin::events::{self, BackendEvent};
use crate::balancer::admin::status;
use crate::balancer::backends::BackendId;
use crate::balancer::history::History;
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::redirect::BalancerState;
use crate::http::stop::Phase;

mod changes;
mod listeners;

use listeners::{ListenerMetrics, Listeners};

pub(in crate::balancer::admin) use listeners::Messages;

/// The time between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// The time between two looks for events. They are sent at once, because a killed server should be visible soon.
const EVENTS_TICK: Duration = Duration::from_millis(200);

/// The largest number of rows: a browser is slow with more. The JSON of the API has every backend.
const MOST_ROWS: usize = 1000;

/// The number of requests that wait for the task.
const REQUESTS: usize = 64;

/// The number of events on the page.
const EVENTS: usize = 20;

/// The number of paths on the page.
const PATHS: usize = 10;

/// The part of a rate that the latest second determines.
const SMOOTHING: f64 = 0.3;

/// Requests to the task.
pub(in crate::balancer::admin) struct LivePage(mpsc::Sender<LiveRequest>);

enum LiveRequest {
    Document(oneshot::Sender<String>),
    Listen(oneshot::Sender<Option<Messages>>),
}

impl LivePage {
    /// Starts the task on the current thread, and registers its metrics.
    pub(in crate::balancer::admin) fn start(
        admin: &Admin,
        registry: &mut Registry,
        phases: watch::Receiver<Phase>,
    ) -> Self {
        let metrics = ListenerMetrics::register(registry);
        let (sender, receiver) = mpsc::channel(REQUESTS);
        actix_web::rt::spawn(LivePageTask::new(admin, metrics).run(
            receiver,
            admin.balancer.path_samples.read(),
            phases,
        ));
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
    backends: HashMap<BackendId, BackendFigures>,
    fleet: FleetFigures,
    paths: TopPaths,
    /// The latest events, newest first.
    events: Vec<BackendEvent>,
    /// The latest change as text.
    announcement: String,
    /// The histories from which they are.
    histories: Vec<Arc<History>>,
    ticks: u64,
    latest_tick: Instant,
    listeners: Listeners,
    /// The fragments that all listeners have.
    sent: PageView,
}

impl LivePageTask {
    fn new(admin: &Admin, metrics: ListenerMetrics) -> Self {
        let mut task = Self {
            balancer: Arc::clone(&admin.balancer),
            backends: HashMap::new(),
            fleet: FleetFigures::default(),
            paths: TopPaths::default(),
            events: Vec::new(),
            announcement: String::new(),
            histories: Vec::new(),
            ticks: 0,
            latest_tick: Instant::now(),
            listeners: Listeners::new(metrics),
            sent: PageView::default(),
        };
        task.read(Instant::now());
        task
    }

    /// Ends at the begin of a stop, which ends the streams of the listeners, too.
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<LiveRequest>,
        mut paths: mpsc::Receiver<Box<[u8]>>,
        mut phases: watch::Receiver<Phase>,
    ) {
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
                    while let Ok(path) = paths.try_recv() {
                        self.paths.add(path);
                    }
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
        let table = self.balancer.publisher.latest();
        let seconds = now.saturating_duration_since(self.latest_tick).as_secs_f64().max(0.001);
        self.latest_tick = now;
        let (mut redirects, mut refusals) = (0, 0);
        for (status, count) in self.balancer.metrics.answers() {
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
        if self.ticks.is_multiple_of(60) {
            self.paths.decay();
        }
        self.ticks += 1;
    }

    /// Reads the events, and whether there are new ones.
    fn read_events(&mut self) -> bool {
        let table = self.balancer.publisher.latest();
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
        let (table, now) = (self.balancer.publisher.latest(), SystemTime::now());
        let (report, fleet) = (self.balancer.report(&table), self.balancer.fleet_status(&table));
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
                &self.paths.top(PATHS),
            ),
        }
    }

    fn listen(&mut self) -> Option<Messages> {
        if self.listeners.is_empty() {
            self.sent = self.view();
        }
        self.listeners.add(changes::snapshot(&self.sent))
    }

    fn update_listeners(&mut self) {
        self.listeners.forget_closed();
        if self.listeners.is_empty() {
            return;
        }
        let view = self.view();
        let message = if view.has_the_rows_of(&self.sent) {
            changes::between(&self.sent, &view, &self.announcement)
        } else {
            changes::snapshot(&view)
        };
        self.sent = view;
        self.listeners.send(&message);
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

#[cfg(test)]
mod tests;
