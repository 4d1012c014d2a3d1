//! Orders of operators, which override the list: a backend drains, is disabled, or has another weight. Pure.
//!
//! An order belongs to an address, like health: an edit of the list does not end it. [`store`] keeps the orders on disk and
//! puts them into force.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::backends::list::{self, MAX_BACKENDS, MAX_WEIGHT};
use super::backends::{Backend, BackendId};
use super::wall_clock;
use registers::{OrderKind, OrderVersion, RegisterKey};

pub(crate) mod registers;
pub(crate) mod store;

/// The longest note, in characters.
const LONGEST_NOTE: usize = 500;

/// The body of a request that gives an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderRequest {
    /// The order.
    pub order: OrderName,
    /// The weight of the order `weight`, 1 to 1000; `null` for the one of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The reason, for other operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The end of the order: RFC 3339 or a duration; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The names of the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderName {
    /// No new clients. Probes continue.
    Drain,
    /// Ends `drain` and `disable`.
    Enable,
    /// No new clients and no probes.
    Disable,
    /// Another weight than in the list.
    Weight,
}

/// A valid order that is not in force yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    command: OrderEffect,
    note: String,
    until: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderEffect {
    Override(Override),
    EndWithdrawal,
    EndWeight,
}

/// A deviation from the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Override {
    /// No new clients. Probes continue.
    Drain,
    /// No new clients and no probes.
    Disable,
    /// Another weight than in the list.
    Weight {
        /// The weight.
        weight: u32,
    },
}

impl Override {
    /// Of two overrides of one kind, the later one replaces the earlier one.
    fn is_weight(self) -> bool {
        matches!(self, Self::Weight { .. })
    }
}

/// An order in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingOrder {
    /// The effect.
    #[serde(flatten)]
    pub effect: Override,
    /// The reason, for other operators; may be empty.
    #[serde(default)]
    pub note: String,
    /// The end; `None` until another order.
    #[serde(default, with = "wall_clock::option")]
    pub until: Option<SystemTime>,
    /// The time of the order.
    #[serde(with = "wall_clock")]
    pub given_at: SystemTime,
    /// The author, as in the audit log.
    #[serde(default)]
    pub given_by: String,
}

impl OrderRequest {
    /// Checks the request at the time `now`.
    pub(crate) fn validate(self, now: SystemTime) -> Result<Order, String> {
        let Self { order, weight, note, until } = self;
        if weight.is_some() && order != OrderName::Weight {
            return Err("only the order weight has a weight".to_owned());
        }
        let command = match (order, weight) {
            (OrderName::Drain, _) => OrderEffect::Override(Override::Drain),
            (OrderName::Disable, _) => OrderEffect::Override(Override::Disable),
            (OrderName::Enable, _) => OrderEffect::EndWithdrawal,
            (OrderName::Weight, None) => OrderEffect::EndWeight,
            (OrderName::Weight, Some(weight)) if (1..=MAX_WEIGHT).contains(&weight) => {
                OrderEffect::Override(Override::Weight { weight })
            }
            (OrderName::Weight, Some(_)) => {
                return Err(format!(
                    "a weight is a whole number from 1 to {MAX_WEIGHT}; to send no clients, drain"
                ));
            }
        };
        let until = until.map(|until| wall_clock::parse_end(&until, now)).transpose()?;
        if until.is_some() && !matches!(command, OrderEffect::Override(_)) {
            return Err("only an order that overrides the list has an end".to_owned());
        }
        let note = note.unwrap_or_default();
        if note.chars().count() > LONGEST_NOTE || note.chars().any(char::is_control) {
            return Err(format!("a note is one line of at most {LONGEST_NOTE} characters"));
        }
        Ok(Order { command, note, until })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command {
            OrderEffect::Override(effect) => effect.fmt(formatter)?,
            OrderEffect::EndWithdrawal => formatter.write_str("enable")?,
            OrderEffect::EndWeight => formatter.write_str("weight of the list")?,
        }
        put_reason(formatter, self.until, &self.note)
    }
}

impl fmt::Display for Override {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => formatter.write_str("drain"),
            Self::Disable => formatter.write_str("disable"),
            Self::Weight { weight } => write!(formatter, "weight {weight}"),
        }
    }
}

impl fmt::Display for StandingOrder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.effect.fmt(formatter)?;
        put_reason(formatter, self.until, &self.note)
    }
}

fn put_reason(formatter: &mut fmt::Formatter<'_>, until: Option<SystemTime>, note: &str) -> fmt::Result {
    if let Some(until) = until {
        write!(formatter, " until {}", wall_clock::text(until))?;
    }
    if note.is_empty() { Ok(()) } else { write!(formatter, ": {note}") }
}

/// The orders in force for one backend: at most one withdrawal and one weight.
pub(crate) type BackendOrders = Arc<[StandingOrder]>;

/// The withdrawal among the orders of a backend: `drain` or `disable`.
pub(crate) fn withdrawal(orders: &[StandingOrder]) -> Option<Override> {
    orders.iter().map(|order| order.effect).find(|effect| !effect.is_weight())
}

/// The weight among the orders of a backend.
pub(crate) fn weight(orders: &[StandingOrder]) -> Option<u32> {
    orders.iter().find_map(|order| match order.effect {
        Override::Weight { weight } => Some(weight),
        _ => None,
    })
}

/// All orders in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OrderBook {
    in_force: BTreeMap<BackendId, BackendOrders>,
    /// The versions of the orders, also of those that have ended; only in a fleet.
    versions: BTreeMap<RegisterKey, OrderVersion>,
}

/// The version of one register in the form of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    backend: String,
    kind: OrderKind,
    #[serde(flatten)]
    version: OrderVersion,
}

/// One order of a book in the form of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    backend: String,
    #[serde(flatten)]
    order: StandingOrder,
}

/// The book has the largest number of backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are orders for {MAX_BACKENDS} servers already; end some of them first")]
pub(crate) struct TooManyOrders;

impl OrderBook {
    /// The orders for a backend.
    pub(crate) fn of(&self, backend: &BackendId) -> Option<&BackendOrders> {
        self.in_force.get(backend)
    }

    /// The backends with orders.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &BackendId> {
        self.in_force.keys()
    }

    /// Whether `backend` must not be probed.
    pub(crate) fn is_disabled(&self, backend: &BackendId) -> bool {
        self.of(backend).is_some_and(|orders| withdrawal(orders) == Some(Override::Disable))
    }

    /// The book after `order` was given for these backends. `balancer` is the name of the balancer in its fleet.
    pub(crate) fn with(
        &self,
        backends: &[BackendId],
        order: &Order,
        author: &str,
        balancer: Option<&str>,
        now: SystemTime,
    ) -> Result<Self, TooManyOrders> {
        let mut book = self.clone();
        let version = balancer.map(|name| self.next_version(name));
        let (kind, standing) = match order.command {
            OrderEffect::Override(effect) => {
                let (note, until) = (order.note.clone(), order.until);
                let given_by = author.to_owned();
                (OrderKind::of(effect), Some(StandingOrder { effect, note, until, given_at: now, given_by }))
            }
            OrderEffect::EndWithdrawal => (OrderKind::Withdrawal, None),
            OrderEffect::EndWeight => (OrderKind::Weight, None),
        };
        for backend in backends {
            book.replace(backend.clone(), kind, standing.clone(), version.clone());
        }
        if book.in_force.len() > MAX_BACKENDS { Err(TooManyOrders) } else { Ok(book) }
    }

    /// The book without the orders that have ended; `None` if no order has ended.
    pub(crate) fn without_ended(&self, now: SystemTime) -> Option<Self> {
        let has_ended = |order: &StandingOrder| order.until.is_some_and(|until| until <= now);
        let mut book = self.clone();
        for (backend, orders) in self.in_force.iter().filter(|(_, orders)| orders.iter().any(has_ended)) {
            book.set(backend.clone(), orders.iter().filter(|order| !has_ended(order)).cloned().collect());
        }
        (book != *self).then_some(book)
    }

    fn set(&mut self, backend: BackendId, orders: Vec<StandingOrder>) {
        if orders.is_empty() {
            self.in_force.remove(&backend);
        } else {
            self.in_force.insert(backend, orders.into());
        }
    }

    /// The orders for the file.
    pub(crate) fn records(&self) -> Vec<OrderRecord> {
        let records = self.in_force.iter().flat_map(|(backend, orders)| {
            let record =
                |order: &StandingOrder| OrderRecord { backend: backend.to_string(), order: order.clone() };
            orders.iter().map(record)
        });
        records.collect()
    }

    /// The versions for the file.
    pub(crate) fn versions(&self) -> Vec<VersionRecord> {
        let all = self.versions.iter();
        all.map(|((backend, kind), version)| VersionRecord {
            backend: backend.to_string(),
            kind: *kind,
            version: version.clone(),
        })
        .collect()
    }

    /// The book with these versions.
    pub(crate) fn with_versions(mut self, records: Vec<VersionRecord>) -> Self {
        let keyed = records.into_iter().filter_map(|VersionRecord { backend, kind, version }| {
            Some(((list::parse_address(&backend).ok()?, kind), version))
        });
        self.versions = keyed.collect();
        self
    }

    /// The book of these records. The number is that of the records that a newer version may have written and that this
    /// version cannot read.
    pub(crate) fn from_records(records: Vec<serde_json::Value>) -> (Self, usize) {
        let mut book = Self::default();
        let mut unreadable = 0;
        for record in records {
            let record = serde_json::from_value::<OrderRecord>(record).ok();
            let Some((backend, order)) = record.and_then(|OrderRecord { backend, order }| {
                Some((list::parse_address(&backend).ok()?, order))
            }) else {
                unreadable += 1;
                continue;
            };
            book.replace(backend, OrderKind::of(order.effect), Some(order), None);
        }
        (book, unreadable)
    }
}

/// The reason why a name does not identify one backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// No backend has this name.
    #[error("no server of the list is {0}; write host:port or the URL as in the list")]
    Unknown(String),
    /// Several backends have this name.
    #[error("{name} is ambiguous: {}; write the URL", candidates.join(", "))]
    Ambiguous { name: String, candidates: Vec<String> },
}

/// Finds the backend with this name among those of the list and those with orders. The name is `host:port`, or an address
/// as in the list.
pub(crate) fn find(name: &str, listed: &[Backend], book: &OrderBook) -> Result<BackendId, NameError> {
    let shown = || name.chars().take(100).collect::<String>().escape_debug().to_string();
    let ids = || listed.iter().map(Backend::id).chain(book.backends());
    let authority = name.to_ascii_lowercase();
    let mut candidates: Vec<&BackendId> = if name.contains('/') {
        let id = list::parse_address(name).map_err(|_| NameError::Unknown(shown()))?;
        ids().filter(|known| **known == id).collect()
    } else {
        ids().filter(|known| known.authority() == authority).collect()
    };
    candidates.sort_unstable();
    candidates.dedup();
    match candidates.as_slice() {
        [] => Err(NameError::Unknown(shown())),
        [id] => Ok((*id).clone()),
        _ => {
            let candidates = candidates.iter().take(10).map(ToString::to_string).collect();
            Err(NameError::Ambiguous { name: shown(), candidates })
        }
    }
}

#[cfg(test)]
mod tests;
