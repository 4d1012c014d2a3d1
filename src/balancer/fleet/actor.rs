//! `FleetActor`: publishes the records of this balancer, reads those of the others, and exchanges orders, through the engine.
//!
//! - Records are entries of one stream. A new connection reads the whole stream, which holds the last seconds: a message
//!   that was lost is made up for, and a record that is known is skipped. If this fails, it reads only later records.
//! - Orders are fields of one hash. Its script replaces a field by a newer version only. A new order is stored and announced
//!   at once, so the others read it at their next tick.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, AsyncContext, Context, Recipient, Supervised, WrapFuture};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use redis::{Cmd, Value, from_redis_value_ref};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::observers::{ALIVE, Delivery, EngineCondition, MOST_BALANCERS};
use super::record::{FleetRecord, Publisher};
use super::{FleetExchange, FleetIdentity, OwnNews};
use crate::balancer::metrics::FleetMetrics;
use crate::balancer::orders::OrderBook;
use crate::balancer::orders::registers::OrderRegister;
use crate::balancer::orders::store::Orders;
use crate::balancer::policy::digest;
use crate::engine::{Backoff, EngineClient, EngineError, EngineSettings};
use crate::http::client::Resolver;
use crate::telemetry::chain;

/// The time between two reads.
const TICK: Duration = Duration::from_millis(250);

/// The time limit of an exchange with an engine that worked before. The own probes take over after it.
const EXCHANGE_TIMEOUT: Duration = Duration::from_millis(500);

/// The same for an engine that did not work, with a connection. The system repeats a lost request for a connection after 1 s.
const RECOVERY_TIMEOUT: Duration = Duration::from_millis(1500);

/// The longest pause after a failure. An order must be in force 2 s after the end of a partition.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The time for which the engine keeps the records of a fleet that has ended.
const RECORDS_TTL: Duration = Duration::from_mins(1);

/// The same for its orders.
const ORDERS_TTL: Duration = Duration::from_hours(24 * 30);

/// The number of records of each balancer in the stream.
const KEPT_RECORDS: usize = 20;

/// The number of records that one command reads, and the number of such reads in one tick.
const RECORDS_PER_READ: usize = 50;
const MOST_READS: usize = 20;

/// The longest time between two comparisons of all orders, and the time between two while balancers differ.
const ORDERS_INTERVAL: Duration = Duration::from_secs(30);
const DIFFERING_INTERVAL: Duration = Duration::from_millis(500);

/// After this number of failed reads in a row, the records that are stored in the engine are skipped.
const FAILURES_BEFORE_SKIP: u32 = 2;

/// The number of registers in one command.
const REGISTERS_PER_STEP: usize = 200;

/// The largest number of registers that one exchange stores.
const MOST_AT_ONCE: usize = 10 * REGISTERS_PER_STEP;

/// The time limit of a comparison of all orders.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest number of steps of a scan of all orders.
const MOST_STEPS: usize = 5000;

/// Replaces a field if the new version is higher, or if the old value is not one of a register.
const STORE_NEWER: &str = r"
local form = '^' .. string.rep('%d', 20) .. ' '
for i = 1, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if not old or not string.match(old, form) or old < ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1";

/// The settings and resources of a `FleetActor`.
#[derive(Clone)]
pub(crate) struct FleetActor {
    /// This balancer.
    pub(crate) identity: FleetIdentity,
    /// Its zone; may be empty.
    pub(crate) zone: Arc<str>,
    /// The engine.
    pub(crate) engine: EngineSettings,
    /// Resolves its name.
    pub(crate) resolver: Resolver,
    /// Combines the records.
    pub(crate) ranking: Recipient<FleetExchange>,
    /// The orders.
    pub(crate) orders: Arc<Orders>,
    /// The metrics.
    pub(crate) metrics: FleetMetrics,
    /// The time of the start of this balancer.
    pub(crate) started_at: Instant,
    /// The number of the latest record.
    pub(crate) number: u64,
}

impl Actor for FleetActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // After a panic, no number of an earlier record may be used again.
        self.number += 1 << 32;
        ctx.spawn(FleetTask::new(self.clone()).run().into_actor(self));
    }
}

impl Supervised for FleetActor {}

/// The state of one run of the actor.
struct FleetTask {
    plan: FleetActor,
    engine: EngineClient,
    /// The latest record that was read; empty before the first read of a connection.
    position: String,
    condition: EngineCondition,
    /// The exchanges in a row that failed although the engine could be reached.
    failed_reads: u32,
    /// The other balancers with the digests of their orders, and the times of their latest records.
    others: HashMap<u64, (u64, Instant)>,
    book: Arc<OrderBook>,
    /// The digest of `book`.
    digest: u64,
    /// The time of the latest comparison of all orders, and a hash of all digests then.
    compared: Option<(Instant, u64)>,
    /// Whether the latest comparison failed.
    is_comparison_failing: bool,
    random: SmallRng,
}

impl FleetTask {
    fn new(plan: FleetActor) -> Self {
        let engine = EngineClient::new(plan.engine.clone(), plan.resolver.clone());
        let book = plan.orders.book();
        Self {
            engine,
            position: String::new(),
            condition: Err("no connection yet".to_owned()),
            failed_reads: 0,
            others: HashMap::new(),
            digest: book.digest(),
            book,
            compared: None,
            is_comparison_failing: false,
            random: SmallRng::from_rng(&mut rand::rng()),
            plan,
        }
    }

    async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut backoff, mut paused_until) = (Backoff::default(), Instant::now());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.plan.orders.changed() => {}
            }
            // After a hand-over, the new process has the name.
            let is_paused = Instant::now() < paused_until || self.plan.orders.is_handed_over();
            let news = self.send_to_ranking(Vec::new(), !is_paused).await;
            // Stored records can be skipped only with an own record, which the ranking has within a second.
            if is_paused || self.failed_reads >= FAILURES_BEFORE_SKIP && news.is_none() {
                continue;
            }
            let limit = if self.condition.is_ok() { EXCHANGE_TIMEOUT } else { RECOVERY_TIMEOUT };
            let exchanged =
                timeout(limit, self.exchange(news)).await.unwrap_or(Err(EngineError::TimedOut(limit)));
            let records = match exchanged {
                Ok(records) => {
                    self.set_condition(Ok(()));
                    backoff.reset();
                    self.failed_reads = 0;
                    records
                }
                Err(error) => {
                    self.plan.metrics.exchanges_failed.inc();
                    if matches!(error, EngineError::Refused(_)) {
                        // The engine has recovered only once it stores a record.
                        self.failed_reads = FAILURES_BEFORE_SKIP;
                    }
                    self.position.clear();
                    self.compared = None;
                    self.set_condition(Err(chain(&error)));
                    paused_until = Instant::now() + backoff.next(self.random.random()).min(LONGEST_PAUSE);
                    Vec::new()
                }
            };
            self.send_to_ranking(records, false).await;
            if self.condition.is_ok() {
                let compared = timeout(COMPARISON_TIMEOUT, self.compare_orders()).await;
                let compared = compared.unwrap_or(Err(EngineError::TimedOut(COMPARISON_TIMEOUT)));
                let is_failing = compared.is_err();
                if let Err(error) = compared
                    && !self.is_comparison_failing
                {
                    tracing::warn!(error = chain(&error), "the orders of the fleet cannot be compared");
                }
                self.is_comparison_failing = is_failing;
            }
        }
    }

    fn set_condition(&mut self, condition: EngineCondition) {
        self.plan.metrics.connected.set(i64::from(condition.is_ok()));
        match (&self.condition, &condition) {
            (Err(_), Ok(())) => tracing::info!("the engine of the fleet works"),
            (Ok(()), Err(reason)) => {
                tracing::warn!(reason, "the engine of the fleet does not work; this balancer works alone");
            }
            // After a lost connection, only the next attempt shows the cause, such as another password.
            (Err(before), Err(reason)) if before != reason => {
                tracing::warn!(reason, "the engine of the fleet still does not work");
            }
            _ => {}
        }
        self.condition = condition;
    }

    /// Sends the records to the ranking. If `asks`, the reply has the own news when a record is due.
    async fn send_to_ranking(&self, records: Vec<(FleetRecord, Delivery)>, asks: bool) -> Option<OwnNews> {
        let exchange = FleetExchange { engine: self.condition.clone(), records, asks };
        // The ranking panicked on this message. The next one replaces it.
        self.plan.ranking.send(exchange).await.unwrap_or(None)
    }

    /// Publishes the news, and returns the records since the previous exchange.
    async fn exchange(&mut self, news: Option<OwnNews>) -> Result<Vec<(FleetRecord, Delivery)>, EngineError> {
        let key = self.engine.key("records");
        let delivery = if self.position.is_empty() { Delivery::Stored } else { Delivery::Live };
        let now = Instant::now();
        self.others.retain(|_, (_, at)| now.duration_since(*at) <= ALIVE);
        if self.position.is_empty() {
            // Only the failures of an engine that can be reached may be those of its records.
            self.engine.run::<()>(&expiry(&key, RECORDS_TTL)).await?;
        }
        self.failed_reads = self.failed_reads.saturating_add(1);
        // Before the record that announces them.
        self.store_own_orders().await?;
        let mut record = news.map(|news| self.record(news, now).encode());
        let mut records = Vec::new();
        for _ in 0..MOST_READS {
            let mut pipeline = redis::pipe();
            let published = record.take();
            if let Some(record) = &published {
                let kept = KEPT_RECORDS * (1 + self.others.len());
                pipeline.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(kept).arg("*").arg("r").arg(record);
                pipeline.add_command(expiry(&key, RECORDS_TTL));
            }
            // Foreign entries may be so large that they cannot be read in time.
            let skips = self.failed_reads > FAILURES_BEFORE_SKIP && published.is_some();
            let position = if self.position.is_empty() { "0-0" } else { &self.position };
            if !skips {
                pipeline
                    .cmd("XREAD")
                    .arg("COUNT")
                    .arg(RECORDS_PER_READ)
                    .arg("STREAMS")
                    .arg(&key)
                    .arg(position);
            }
            let answers = self.engine.run_all(pipeline.ignore_errors()).await?;
            self.check(&answers, &key).await?;
            if skips {
                let id = answers.first().map(from_redis_value_ref::<String>);
                self.position = id.and_then(Result::ok).unwrap_or_default();
                return Ok(records);
            }
            let found = answers.last().map(read_entries).transpose()?.unwrap_or_default();
            let count = found.len();
            for (id, fields) in found {
                let record = match fields.as_slice() {
                    [field, value] if field == b"r" => FleetRecord::decode(value).ok(),
                    _ => None,
                };
                self.position = id;
                match record {
                    Some(record) => {
                        self.remember(&record, now);
                        records.push((record, delivery));
                    }
                    None => drop(self.plan.metrics.records_invalid.inc()),
                }
            }
            if count < RECORDS_PER_READ {
                break;
            }
        }
        if self.position.is_empty() {
            // The stream is empty. All that follows is live.
            "0-0".clone_into(&mut self.position);
        }
        Ok(records)
    }

    /// Checks that the engine carried out all commands. A key of another type is removed.
    async fn check(&mut self, answers: &[Value], key: &str) -> Result<(), EngineError> {
        for answer in answers {
            if let Value::ServerError(error) = answer {
                if error.code() == "WRONGTYPE" {
                    self.engine.run::<()>(redis::cmd("DEL").arg(key)).await?;
                }
                let details = error.details().unwrap_or_default();
                return Err(EngineError::Refused(format!("{} {details}", error.code())));
            }
        }
        Ok(())
    }

    fn remember(&mut self, record: &FleetRecord, now: Instant) {
        self.plan.metrics.records_received.inc();
        if record.boot != self.plan.identity.boot && self.others.len() < MOST_BALANCERS {
            self.others.insert(digest(record.balancer.name.as_bytes()), (record.orders, now));
        }
    }

    fn record(&mut self, news: OwnNews, now: Instant) -> FleetRecord {
        self.plan.number += 1;
        let FleetIdentity { name, boot, .. } = &self.plan.identity;
        FleetRecord {
            balancer: Publisher {
                name: name.to_string(),
                zone: self.plan.zone.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            boot: *boot,
            number: self.plan.number,
            uptime: now.duration_since(self.plan.started_at).as_millis() as u64,
            period: news.period.as_millis() as u32,
            list: news.list,
            orders: self.digest,
            backends: news.backends,
        }
    }

    /// Stores the orders of this balancer since the previous exchange.
    async fn store_own_orders(&mut self) -> Result<(), EngineError> {
        let book = self.plan.orders.book();
        if !Arc::ptr_eq(&book, &self.book) {
            let known: Vec<_> = self.book.registers().collect();
            let (_, newer) = book.reconcile(&known, SystemTime::now());
            // The next comparison stores the rest.
            self.store_orders(newer.get(..MOST_AT_ONCE).unwrap_or(&newer)).await?;
            (self.digest, self.book) = (book.digest(), book);
        }
        Ok(())
    }

    /// Stores the registers that are newer than those in the engine. A key of another type is removed; the next comparison then
    /// stores all.
    async fn store_orders(&mut self, registers: &[OrderRegister]) -> Result<(), EngineError> {
        let key = self.engine.key("orders");
        for step in registers.chunks(REGISTERS_PER_STEP) {
            let fields: Vec<String> =
                step.iter().flat_map(|register| [register.field(), register.value()]).collect();
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let mut stored = self.engine.eval::<()>(STORE_NEWER, &[&key], &fields).await;
            if stored.as_ref().is_err_and(is_wrong_type) {
                self.engine.run::<()>(redis::cmd("DEL").arg(&key)).await?;
                self.compared = None;
                stored = self.engine.eval(STORE_NEWER, &[&key], &fields).await;
            }
            stored?;
        }
        Ok(())
    }

    /// Compares all orders with those in the engine, if a difference is possible.
    async fn compare_orders(&mut self) -> Result<(), EngineError> {
        let is_equal = self.others.values().all(|(digest, _)| *digest == self.digest);
        let digests = self.others.values().map(|(digest, _)| *digest).fold(self.digest, u64::wrapping_add);
        let needed = match self.compared {
            None => true,
            Some((at, _)) if is_equal && !self.is_comparison_failing => at.elapsed() >= ORDERS_INTERVAL,
            Some((at, before)) => before != digests || at.elapsed() >= DIFFERING_INTERVAL,
        };
        if !needed {
            return Ok(());
        }
        // A failed comparison is repeated after the same time.
        self.compared = Some((Instant::now(), digests));
        let key = self.engine.key("orders");
        let registers = self.stored_orders(&key).await?;
        let (book, newer) = self.plan.orders.merge(&registers).await;
        self.store_orders(&newer).await?;
        (self.digest, self.book) = (book.digest(), book);
        if !(newer.is_empty() && registers.is_empty()) {
            self.engine.run::<()>(&expiry(&key, ORDERS_TTL)).await?;
        }
        Ok(())
    }

    /// The orders in the engine. Invalid ones are removed.
    async fn stored_orders(&mut self, key: &str) -> Result<Vec<OrderRegister>, EngineError> {
        let mut registers = HashMap::new();
        let mut cursor = 0_u64;
        for _ in 0..MOST_STEPS {
            let mut step = redis::cmd("HSCAN");
            step.arg(key).arg(cursor).arg("COUNT").arg(REGISTERS_PER_STEP);
            let found: Result<(u64, Vec<Vec<u8>>), _> = self.engine.run(&step).await;
            let (next, fields) = match found {
                Err(error) if is_wrong_type(&error) => {
                    self.engine.run::<()>(redis::cmd("DEL").arg(key)).await?;
                    return Ok(Vec::new());
                }
                found => found?,
            };
            for pair in fields.chunks_exact(2) {
                let [field, value] = pair else { continue };
                if let Some(register) = OrderRegister::parse(field, value) {
                    registers.insert(register.field(), register);
                } else {
                    self.plan.metrics.records_invalid.inc();
                    self.engine.run::<()>(redis::cmd("HDEL").arg(key).arg(field)).await?;
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(registers.into_values().collect());
            }
        }
        Err(EngineError::TooManyKeys)
    }
}

/// Whether a key has another type than this program gives it.
fn is_wrong_type(error: &EngineError) -> bool {
    matches!(error, EngineError::Refused(text) if text.contains("WRONGTYPE"))
}

/// The command that sets the time to live of a key.
fn expiry(key: &str, ttl: Duration) -> Cmd {
    let mut command = redis::cmd("PEXPIRE");
    command.arg(key).arg(ttl.as_millis() as u64);
    command
}

/// An entry of a stream: its number, and fields and values in turn.
type StreamEntry = (String, Vec<Vec<u8>>);

/// The entries in the answer to a read of one stream.
fn read_entries(answer: &Value) -> Result<Vec<StreamEntry>, EngineError> {
    let streams: Option<Vec<(Vec<u8>, Vec<StreamEntry>)>> =
        from_redis_value_ref(answer).map_err(|error| EngineError::Answer(error.to_string()))?;
    Ok(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
}

/// A random number of this run.
#[must_use]
pub(crate) fn boot() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests;
