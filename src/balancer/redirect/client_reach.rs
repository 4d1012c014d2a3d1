//! The choice among the servers that a client may get, nearest first, without those that clients of its network cannot use.

use std::rc::Rc;

use rand::Rng;

use super::choice::Choice;
use super::client::Client;
use super::location::Target;
use super::service::{AnswerPlan, RedirectRequest};
use crate::balancer::geography::GeoPlace;
use crate::balancer::policy::{
    FailureEvidence, PickRequest, Picks, Policy, RetryAvoidance, ServerFilter as _, Timestamp,
};
use crate::balancer::ranking::reach::{Admitted, ClientView, ClientViews, ReachClient, TableReach};
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};

/// The servers that a client may get.
#[derive(Debug)]
pub(super) struct RequestReach<'a> {
    table: &'a TableReach,
    view: Rc<ClientView>,
}

impl<'a> RequestReach<'a> {
    /// The servers for a client that requests `target`.
    pub(super) fn of(
        table: &'a TableReach,
        client: Client,
        target: &Target<'_>,
        views: &mut ClientViews,
    ) -> Self {
        Self { table, view: views.of(table.reach(), &reach_client(client, target)) }
    }

    /// The filter for a file of this size, if it is known.
    pub(super) fn admitted(&self, file_size: Option<u64>) -> Admitted<'_> {
        self.table.admitted(&self.view, file_size)
    }

    /// The place of a server in the order of distance; `None` if the client may not get it.
    pub(super) fn rank(&self, number: u32, file_size: Option<u64>) -> Option<usize> {
        self.admitted(file_size).admits(number).then(|| self.view.rank(number))
    }
}

/// The client of a request, in the country that its query names, if any: `country=XX`.
pub(super) fn reach_client(client: Client, target: &Target<'_>) -> ReachClient {
    let country = target.parameters("country").find_map(|country| country.parse().ok());
    let wanted = country.map(|country| GeoPlace { country: Some(country), ..GeoPlace::default() });
    ReachClient { address: client.address, is_https: client.is_https, wanted }
}

/// Lets the policy choose: among near servers first, then farther away if all near ones are busy. Alternates are added in the
/// same order.
pub(super) fn pick(
    policy: &dyn Policy,
    request: &PickRequest<'_>,
    reach: Option<(&RequestReach<'_>, Admitted<'_>)>,
    now: Timestamp,
    random: &mut dyn Rng,
    picks: &mut Picks,
) {
    let Some((reach, admitted)) = reach else { return policy.pick(request, now, random, picks) };
    for near in reach.view.near() {
        if picks.is_full() {
            return;
        }
        let near = admitted.near(near);
        let spill_factor = Some(reach.table.spill_factor());
        policy.pick(&PickRequest { filter: Some(&near), spill_factor, ..*request }, now, random, picks);
    }
    if !picks.is_full() {
        policy.pick(&PickRequest { filter: Some(&admitted), ..*request }, now, random, picks);
    }
}

/// The backends that clients of this network cannot use, although they have been up since before the failures.
pub(super) fn failed_for<'t>(
    memory: Option<&RetryAvoidance>,
    client: Client,
    table: &'t RoutingTable,
    now: Timestamp,
) -> impl Iterator<Item = &'t BackendEntry> {
    let memory = memory.filter(|memory| memory.has_failures());
    let failures = memory.and_then(|memory| Some(memory.failures(client.network()?, now)));
    failures.into_iter().flatten().filter_map(|(identity, age)| {
        let entry = table.entries.iter().find(|entry| entry.load.identity() == identity)?;
        // The server may have been down at the time of the failure.
        (entry.health.since().elapsed() > age).then_some(entry)
    })
}

impl AnswerPlan {
    /// The request that also avoids the backends that clients of this network cannot use; `None` without such a backend.
    pub(super) fn without_failures<'r>(
        &self,
        request: &PickRequest<'r>,
        client: Client,
        table: &RoutingTable,
        now: Timestamp,
    ) -> Option<PickRequest<'r>> {
        let mut failed = failed_for(self.memory.as_deref(), client, table, now).peekable();
        failed.peek()?;
        let mut avoid = request.avoid;
        failed.for_each(|entry| avoid.add(entry.load.identity()));
        // It must not choose an avoided backend, because the next attempt may choose these.
        Some(PickRequest { avoid, spill_factor: Some(f32::INFINITY), ..*request })
    }

    /// Records the redirect for later requests: of the same client, and of clients of its network.
    pub(super) fn record(
        &self,
        table: &RoutingTable,
        wanted: &RedirectRequest<'_>,
        choice: &Choice<'_>,
        bytes: f32,
        now: Timestamp,
    ) {
        if let (Some(reach), Some(entry)) = (&table.reach, table.entries.get(choice.visited.index as usize)) {
            reach.redirected(entry, bytes);
        }
        let Some(memory) = &self.memory else { return };
        if let Some(visit) = &choice.visit {
            memory.record(visit, choice.visited);
        }
        let failed = choice.failed();
        // Nearly always, and then the network of the client is not needed.
        if failed.is_none() && wanted.avoid.is_empty() && !memory.has_failures() {
            return;
        }
        let Some(network) = wanted.client.network() else { return };
        if let Some(failed) = failed {
            memory.record_failure(network, failed.identity, FailureEvidence::Retry, now);
        }
        if !wanted.avoid.is_empty() {
            let identities = table.entries.iter().map(|entry| entry.load.identity());
            for identity in identities.filter(|identity| wanted.avoid.contains(*identity)) {
                memory.record_failure(network, identity, FailureEvidence::Report, now);
            }
        }
        memory.record_redirect(network, choice.visited.identity);
    }
}
