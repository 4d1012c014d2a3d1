//! The balancers of a fleet for operators: as JSON from the admin listener, as text from `fingerpost status --fleet`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::balancer::fleet::observers::{BalancerReport, FleetReport, Standing};
use crate::balancer::health::OwnView;
use crate::balancer::orders::OrderBook;
use crate::balancer::ranking::table::RoutingTable;

/// The content of `/api/v1/fleet`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FleetStatus {
    /// The name of the balancer that answers.
    pub name: String,
    /// `up`, or the reason why the engine does not work.
    pub engine: String,
    /// The part of the own probes in the decisions.
    pub view: String,
    /// Whether the balancers share the probes.
    pub shares_probes: bool,
    /// Whether all orders are in force on all balancers, such as `applied on 3 of 3`.
    pub orders: String,
    /// All balancers, this one first.
    pub balancers: Vec<BalancerStatus>,
    /// The servers whose observers disagree, at most 100.
    pub disagreements: Vec<DisagreementStatus>,
}

/// One balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BalancerStatus {
    /// Its name.
    pub name: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// The version of the program.
    pub version: String,
    /// The time since its latest record in seconds.
    pub age_seconds: f64,
    /// A digest of its list: equal digests are equal lists.
    pub list: String,
    /// Whether it has the orders of the balancer that answers.
    pub has_orders: bool,
    /// `self`, `counted`, `set aside` or `lost`.
    pub standing: String,
}

/// A server whose observers disagree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DisagreementStatus {
    /// Its address.
    pub address: String,
    /// The balancers that see it up.
    pub up: Vec<String>,
    /// The balancers that do not.
    pub failing: Vec<String>,
}

/// Whether the orders of `book` are in force on all balancers of the fleet.
pub(super) fn applied(report: &FleetReport, book: &OrderBook) -> String {
    let own = book.digest();
    let applied = report.balancers.iter().filter(|balancer| balancer.orders == own).count();
    format!("applied on {} of {}", applied + 1, report.balancers.len() + 1)
}

/// The faults of the fleet that an operator must know.
pub(super) fn warnings(report: &FleetReport) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(reason) = &report.engine_failure {
        let lost = "the engine of the fleet does not work, so this balancer works alone";
        all.push(format!("{lost}: {}", reason.escape_debug()));
    }
    if report.has_namesake {
        all.push("another balancer has the name of this one: give each its own --fleet-name".to_owned());
    }
    let has_other_list =
        |balancer: &&BalancerReport| balancer.standing == Standing::Counted && balancer.list != report.list;
    for other in report.balancers.iter().filter(has_other_list) {
        all.push(format!("the balancer {} has another list of servers", other.publisher.name));
    }
    all
}

impl FleetStatus {
    /// The status of the fleet of the balancer `name`; `None` without a report.
    pub(super) fn of(table: &RoutingTable, name: &str, zone: Option<&str>, book: &OrderBook) -> Option<Self> {
        let report = table.fleet.as_deref()?;
        let since = Instant::now().saturating_duration_since(table.built_at);
        let digest = book.digest();
        let own = BalancerStatus {
            name: name.to_owned(),
            zone: zone.map(str::to_owned),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            age_seconds: 0.0,
            list: format!("{:016x}", report.list),
            has_orders: true,
            standing: "self".to_owned(),
        };
        let others = report.balancers.iter().map(|balancer| BalancerStatus {
            name: balancer.publisher.name.clone(),
            zone: Some(balancer.publisher.zone.clone()).filter(|zone| !zone.is_empty()),
            version: balancer.publisher.version.clone(),
            age_seconds: (balancer.age + since).as_millis() as f64 / 1000.0,
            list: format!("{:016x}", balancer.list),
            has_orders: balancer.orders == digest,
            standing: match balancer.standing {
                Standing::Counted => "counted",
                Standing::SetAside => "set aside",
                Standing::Lost => "lost",
            }
            .to_owned(),
        });
        let disagreements = report.disagreements.iter().filter_map(|found| {
            let entry = table.entries.get(found.index)?;
            Some(DisagreementStatus {
                address: entry.backend.id().to_string(),
                up: found.up.clone(),
                failing: found.failing.clone(),
            })
        });
        Some(Self {
            name: name.to_owned(),
            engine: report.engine_failure.clone().unwrap_or_else(|| "up".to_owned()),
            view: match report.own_view {
                OwnView::Alone => "this balancer works alone",
                OwnView::Trusted => "the observations of all balancers count",
                OwnView::SetAside => "this balancer sees far less than the others, so theirs count",
                OwnView::CutOff => "this balancer is cut off from everything and keeps its table",
            }
            .to_owned(),
            shares_probes: report.shares_probes,
            orders: applied(report, book),
            balancers: std::iter::once(own).chain(others).collect(),
            disagreements: disagreements.collect(),
        })
    }

    /// The status as a table.
    pub(crate) fn text(&self) -> String {
        let probes = if self.shares_probes { "shared" } else { "not shared" };
        let mut text = format!(
            "engine: {}\n{}; probes: {probes}; orders: {}\n",
            self.engine.escape_debug(),
            self.view,
            self.orders
        );
        let width = self.balancers.iter().map(|balancer| balancer.name.len()).max().unwrap_or(0).max(8);
        let _ = writeln!(
            text,
            "{:width$}  {:10}  {:8}  {:>7}  {:16}  {:7}  STATE",
            "BALANCER", "ZONE", "VERSION", "AGE", "LIST", "ORDERS"
        );
        for balancer in &self.balancers {
            let BalancerStatus { name, version, list, standing, .. } = balancer;
            let zone = balancer.zone.as_deref().unwrap_or("-");
            let orders = if balancer.has_orders { "applied" } else { "pending" };
            let age = format!("{:.1} s", balancer.age_seconds);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:width$}  {zone:10}  {version:8}  {age:>7}  {list:16}  {orders:7}  {standing}"
            );
        }
        for DisagreementStatus { address, up, failing } in &self.disagreements {
            let _ = writeln!(text, "{address}: up for {}; failing for {}", named(up), named(failing));
        }
        text
    }
}

fn named(names: &[String]) -> String {
    if names.is_empty() { "no balancer".to_owned() } else { names.join(", ") }
}
