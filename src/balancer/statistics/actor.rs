//! The `StatisticsActor`: counts the downloads that workers hand over, saves the day, and answers queries.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, Supervised, WrapFuture,
};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::day::{DayStatistics, RecentDownloads};
use super::report::{Grouping, StatisticsReport, TopFiles};
use super::{DownloadBatch, Statistics};
use crate::balancer::metrics::StatisticsMetrics;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::state_folder::StateFolder;

/// The time between two looks at the queue.
const TICK: Duration = Duration::from_millis(100);

/// The batches that are counted in one tick, so that the thread remains free for probes.
const MOST_BATCHES: usize = 64;

/// The time between two updates of the top files.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// The number of top files.
const SHOWN_FILES: usize = 10;

/// The time between two writes of the day. A crash loses the counts of this time.
const SAVE_INTERVAL: Duration = Duration::from_mins(1);

/// The start and the end of the name of the file of a day.
const PREFIX: &str = "statistics-";
const SUFFIX: &str = ".json";

const VERSION: u32 = 1;

/// The settings and resources of a `StatisticsActor`.
pub(crate) struct StatisticsPlan {
    batches: Receiver<DownloadBatch>,
    statistics: Arc<Statistics>,
    publisher: Arc<TablePublisher>,
    folder: Option<Arc<StateFolder>>,
    state_writes_failed: Counter,
}

impl StatisticsPlan {
    /// Statistics of this number of days, and the plan of the actor that counts them.
    pub(crate) fn new(
        days: u32,
        publisher: Arc<TablePublisher>,
        folder: Option<Arc<StateFolder>>,
        metrics: StatisticsMetrics,
        state_writes_failed: Counter,
    ) -> (Arc<Statistics>, Self) {
        let (statistics, batches) = Statistics::new(days, metrics);
        let statistics = Arc::new(statistics);
        let folder = folder.filter(|_| days > 0);
        (Arc::clone(&statistics), Self { batches, statistics, publisher, folder, state_writes_failed })
    }
}

/// Counts downloads.
pub(crate) struct StatisticsActor {
    plan: StatisticsPlan,
    date: String,
    /// A query or a write may hold the counts, which are then copied at the next change.
    today: Arc<DayStatistics>,
    recent: RecentDownloads,
    /// The addresses of servers by number.
    servers: HashMap<u32, Arc<str>>,
    started: Instant,
    /// The time of the next update of the top files, and whether there is a change since the latest one.
    show: Due,
    /// The same for writes.
    save: Due,
}

/// The time of the next action, if there is something to do.
struct Due {
    at: Instant,
    is_needed: bool,
}

impl Due {
    /// Whether the action must begin. The next one may begin after `interval`.
    fn begin(&mut self, interval: Duration) -> bool {
        let now = Instant::now();
        let begins = self.is_needed && now >= self.at;
        if begins {
            *self = Self { at: now + interval, is_needed: false };
        }
        begins
    }
}

/// Asks for the counts of the last days.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatisticsQuery {
    /// The number of days, with the current one.
    pub(crate) days: u32,
    /// The meaning of the rows.
    pub(crate) by: Grouping,
    /// The largest number of rows.
    pub(crate) limit: usize,
}

impl Message for StatisticsQuery {
    type Result = Option<StatisticsReport>;
}

/// Asks for a write of all counts.
pub(crate) struct SaveStatistics;

impl Message for SaveStatistics {
    type Result = ();
}

impl StatisticsActor {
    /// An actor that continues with the counts of the current day.
    #[must_use]
    pub(crate) fn new(plan: StatisticsPlan) -> Self {
        let due = || Due { at: Instant::now(), is_needed: false };
        let mut actor = Self {
            plan,
            date: String::new(),
            today: Arc::default(),
            recent: RecentDownloads::default(),
            servers: HashMap::new(),
            started: Instant::now(),
            show: due(),
            save: due(),
        };
        actor.begin_day(date(SystemTime::now(), 0));
        actor
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let date = date(SystemTime::now(), 0);
        if date != self.date {
            self.write();
            self.begin_day(date);
        }
        self.count(MOST_BATCHES);
        if self.show.begin(SHOW_INTERVAL) {
            self.show();
        }
        if self.save.begin(SAVE_INTERVAL)
            && let Some(folder) = self.plan.folder.clone().filter(|folder| !folder.is_released())
        {
            let (date, today) = (self.date.clone(), Arc::clone(&self.today));
            let writing = actix_rt::task::spawn_blocking(move || write(&folder, &date, &today));
            ctx.spawn(
                writing.into_actor(self).map(|written, actor, _| actor.written(written.unwrap_or(Ok(())))),
            );
        }
    }

    /// Continues with the counts of a day. Another day begins at midnight (UTC), or if the clock is set.
    fn begin_day(&mut self, date: String) {
        let folder = self.plan.folder.as_deref();
        self.today = folder.and_then(|folder| read(folder, &date)).unwrap_or_default().into();
        self.date = date;
        self.show.is_needed = true;
        if let Some(folder) = folder {
            let (own, is_day) =
                (file(&self.date), |name: &String| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
            let others: Vec<String> =
                folder.names().into_iter().filter(|name| is_day(name) && *name != own).collect();
            // By number and not by date, so that a wrong clock removes few files.
            let surplus = (others.len() + 1).saturating_sub(self.plan.statistics.days as usize);
            for name in others.iter().take(surplus) {
                // A file that cannot be removed only needs space.
                let _ = std::fs::remove_file(folder.file(name));
            }
        }
    }

    /// Counts waiting batches.
    fn count(&mut self, most: usize) {
        let second = self.started.elapsed().as_secs();
        for batch in self.plan.batches.try_iter().take(most) {
            let today = Arc::make_mut(&mut self.today);
            let before = today.all;
            for download in batch.iter().filter(|download| !self.recent.is_repeated(download, second)) {
                let server = self.servers.get(&download.server).cloned().unwrap_or_else(|| {
                    let table = self.plan.publisher.latest();
                    let entries = table.entries.iter();
                    let entries =
                        entries.map(|entry| (entry.load.number(), entry.backend.id().as_str().into()));
                    self.servers = entries.collect();
                    self.servers.get(&download.server).cloned().unwrap_or_else(|| "removed".into())
                });
                today.count(&download, &server);
            }
            let (all, metrics) = (today.all, &self.plan.statistics.metrics);
            metrics.downloads.inc_by(all.downloads - before.downloads);
            metrics.bytes.inc_by(all.bytes - before.bytes);
            (self.show.is_needed, self.save.is_needed) = (true, true);
        }
    }

    fn show(&self) {
        let days = [(String::new(), &*self.today)];
        let StatisticsReport { all, rows: files, .. } =
            StatisticsReport::of(&days, Grouping::File, SHOWN_FILES);
        let is_sampled = self.plan.statistics.days == 0;
        self.plan.statistics.top.store(Arc::new(TopFiles { all: all.downloads, is_sampled, files }));
    }

    /// Writes the counts at once.
    fn write(&mut self) {
        if let Some(folder) = self.plan.folder.as_ref().filter(|folder| !folder.is_released()) {
            let written = write(folder, &self.date, &self.today);
            self.written(written);
        }
    }

    fn written(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.save.is_needed = true;
            self.plan.state_writes_failed.inc();
            tracing::error!(%error, "the statistics cannot be written; a restart would lose the latest counts");
        }
    }
}

impl Actor for StatisticsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Fails if the actor was restarted, with the same address.
        let _ = self.plan.statistics.actor.set(ctx.address());
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Supervised for StatisticsActor {}

impl Handler<StatisticsQuery> for StatisticsActor {
    type Result = ResponseFuture<Option<StatisticsReport>>;

    fn handle(&mut self, query: StatisticsQuery, _: &mut Context<Self>) -> Self::Result {
        let StatisticsQuery { days, by, limit } = query;
        self.count(usize::MAX);
        let (today, folder) = (Arc::clone(&self.today), self.plan.folder.clone());
        let days = days.clamp(1, self.plan.statistics.days.max(1));
        let job = move || {
            let now = SystemTime::now();
            let past = |age| {
                let date = date(now, age);
                let day = folder.as_deref().and_then(|folder| read(folder, &date));
                (date, day.unwrap_or_default())
            };
            let past: Vec<(String, DayStatistics)> = (1..days).rev().map(past).collect();
            let mut all: Vec<_> = past.iter().map(|(date, day)| (date.clone(), day)).collect();
            all.push((date(now, 0), &*today));
            StatisticsReport::of(&all, by, limit)
        };
        Box::pin(async move { actix_rt::task::spawn_blocking(job).await.ok() })
    }
}

impl Handler<SaveStatistics> for StatisticsActor {
    type Result = ();

    fn handle(&mut self, SaveStatistics: SaveStatistics, _: &mut Context<Self>) {
        self.count(usize::MAX);
        self.write();
    }
}

/// The date `age` days before `now` (UTC), such as `2026-12-24`.
fn date(now: SystemTime, age: u32) -> String {
    let day = now.checked_sub(Duration::from_hours(24) * age).unwrap_or(SystemTime::UNIX_EPOCH);
    // Before 1970, a time has no such text.
    let day = day.max(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(day).to_string().chars().take(10).collect()
}

/// The name of the file of a day.
fn file(date: &str) -> String {
    format!("{PREFIX}{date}{SUFFIX}")
}

/// Reads the counts of a day. A file that is not usable is moved aside.
fn read(folder: &StateFolder, date: &str) -> Option<DayStatistics> {
    folder.load(&file(date), VERSION, |body| serde_json::from_slice(body).map_err(|error| error.to_string()))
}

fn write(folder: &StateFolder, date: &str, day: &DayStatistics) -> io::Result<()> {
    folder.write(&file(date), VERSION, &serde_json::to_vec(day)?)
}
