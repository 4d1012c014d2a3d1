//! Orders as registers that balancers exchange: of two values of one register, the one with the higher version is in force.
//! So a late message never undoes a newer order. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{LONGEST_NOTE, OrderBook, Override, StandingOrder};
use crate::balancer::backends::BackendId;
use crate::balancer::backends::list::{self, MAX_BACKENDS, MAX_WEIGHT};
use crate::balancer::policy::digest;

/// The largest number of registers. Each backend has two.
const MOST_REGISTERS: usize = 2 * MAX_BACKENDS;

/// The longest value of a register in the engine, in bytes.
pub(crate) const MOST_BYTES: usize = 8192;

/// Larger counters are refused, so that each order can have a higher one than those before.
const MOST_COUNTED: u64 = 1 << 62;

/// The version of a register: of two, the one with the higher counter is newer. Orders that two balancers get at the same
/// time have one counter; the name decides then, and it decides on every balancer alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct OrderVersion {
    pub(super) counter: u64,
    /// The balancer that got the order.
    pub(super) balancer: String,
}

/// The two registers of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderKind {
    /// `drain` or `disable`.
    Withdrawal,
    /// `weight`.
    Weight,
}

impl OrderKind {
    pub(super) fn of(effect: Override) -> Self {
        if effect.is_weight() { Self::Weight } else { Self::Withdrawal }
    }
}

/// The key of a register.
pub(super) type RegisterKey = (BackendId, OrderKind);

/// A register with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderRegister {
    backend: String,
    kind: OrderKind,
    #[serde(flatten)]
    version: OrderVersion,
    /// The order; absent if it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<StandingOrder>,
}

impl OrderRegister {
    /// The name of the register in the engine.
    pub(crate) fn field(&self) -> String {
        let kind = match self.kind {
            OrderKind::Withdrawal => "withdrawal",
            OrderKind::Weight => "weight",
        };
        format!("{kind} {}", self.backend)
    }

    /// The value in the engine: the version as text that is sorted like the version, and JSON.
    pub(crate) fn value(&self) -> String {
        let OrderVersion { counter, balancer } = &self.version;
        // A register holds text and numbers, so serialization cannot fail.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{counter:020} {balancer} {json}")
    }

    /// Reads a register of the engine; `None` if it is invalid.
    pub(crate) fn parse(field: &[u8], value: &[u8]) -> Option<Self> {
        let value = str::from_utf8(value).ok().filter(|value| value.len() <= MOST_BYTES)?;
        let json = value.splitn(3, ' ').nth(2)?;
        let register: Self = serde_json::from_str(json).ok()?;
        let id = list::parse_address(&register.backend).ok()?;
        let is_valid = |order: &StandingOrder| {
            OrderKind::of(order.effect) == register.kind
                && order.note.chars().count() <= LONGEST_NOTE
                && !order.note.chars().chain(order.given_by.chars()).any(char::is_control)
                && !matches!(order.effect, Override::Weight { weight } if !(1..=MAX_WEIGHT).contains(&weight))
        };
        let is_own = id.as_str() == register.backend
            && register.field().as_bytes() == field
            && register.value() == value
            && register.version.counter < MOST_COUNTED
            && register.order.iter().all(is_valid);
        is_own.then_some(register)
    }
}

impl OrderBook {
    /// The version of a new order of the balancer `name`.
    pub(super) fn next_version(&self, name: &str) -> OrderVersion {
        let latest = self.versions.values().map(|version| version.counter).max().unwrap_or(0);
        OrderVersion { counter: (latest + 1).min(MOST_COUNTED - 1), balancer: name.to_owned() }
    }

    /// All registers.
    pub(crate) fn registers(&self) -> impl Iterator<Item = OrderRegister> {
        let unversioned = self.in_force.iter().flat_map(|(backend, orders)| {
            orders.iter().map(|order| (backend.clone(), OrderKind::of(order.effect)))
        });
        let keys = unversioned.filter(|key| !self.versions.contains_key(key));
        let all = self.versions.keys().cloned().chain(keys);
        all.map(|key| {
            let (backend, kind) = &key;
            let orders = self.of(backend).map(|orders| &**orders).unwrap_or_default();
            OrderRegister {
                backend: backend.to_string(),
                kind: *kind,
                version: self.versions.get(&key).cloned().unwrap_or_default(),
                order: orders.iter().find(|order| OrderKind::of(order.effect) == *kind).cloned(),
            }
        })
    }

    /// A digest of all registers, equal on every balancer with the same orders. The end of an order at its time does not
    /// change it.
    pub(crate) fn digest(&self) -> u64 {
        let of = |register: OrderRegister| {
            let OrderVersion { counter, balancer } = &register.version;
            digest(format!("{} {counter} {balancer}", register.field()).as_bytes())
        };
        self.registers().map(of).fold(0, u64::wrapping_add)
    }

    /// Compares the book with the registers of the engine. Returns the book with the newer ones of the engine, if there are
    /// any, and the own registers that are newer than those of the engine.
    pub(crate) fn reconcile(
        &self,
        registers: &[OrderRegister],
        now: SystemTime,
    ) -> (Option<Self>, Vec<OrderRegister>) {
        let theirs: BTreeMap<String, &OrderVersion> =
            registers.iter().map(|register| (register.field(), &register.version)).collect();
        let is_newer =
            |own: &OrderRegister| theirs.get(&own.field()).is_none_or(|version| own.version > **version);
        let newer = self.registers().filter(is_newer).collect();
        let own: BTreeMap<String, OrderVersion> =
            self.registers().map(|own| (own.field(), own.version)).collect();
        let mut book = self.clone();
        for register in registers {
            let is_new = own.get(&register.field()).is_none_or(|version| register.version > *version);
            let Some(backend) = list::parse_address(&register.backend).ok().filter(|_| is_new) else {
                continue;
            };
            if book.versions.len() < MOST_REGISTERS {
                book.replace(backend, register.kind, register.order.clone(), Some(register.version.clone()));
            }
        }
        let is_changed = book != *self;
        (is_changed.then(|| book.without_ended(now).unwrap_or(book)), newer)
    }

    /// Replaces the order in one register.
    pub(super) fn replace(
        &mut self,
        backend: BackendId,
        kind: OrderKind,
        order: Option<StandingOrder>,
        version: Option<OrderVersion>,
    ) {
        let known = self.of(&backend).map(|orders| orders.to_vec()).unwrap_or_default();
        let others = known.into_iter().filter(|order| OrderKind::of(order.effect) != kind);
        self.set(backend.clone(), others.chain(order).collect());
        if let Some(version) = version {
            self.versions.insert((backend, kind), version);
        }
    }
}

#[cfg(test)]
mod tests;
