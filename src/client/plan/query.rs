//! Decides whether and when the balancer is asked for other sources.

use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::{Action, BalancerPresence, DownloadPlan, RangeRequest, RunId, SourceId, source};
use crate::client::address;
use crate::client::checksum::Checksum;
use crate::client::identity::{self, Authority};
use crate::client::link::Mirror;
use crate::client::redirect::RedirectChain;

/// Queries in a row without a new source, after which the balancer is assumed to have no others.
const MAX_QUERIES_WITHOUT_NEW_SOURCE: u32 = 2;

/// State of the queries to the balancer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BalancerQuery {
    pub(super) in_progress: bool,
    /// Queries since the start of this version.
    pub(super) count: usize,
    /// Queries in a row since the last received byte.
    pub(super) since_progress: u32,
    /// Queries in a row without a new source.
    pub(super) without_new_source: u32,
    pub(super) not_before: Option<Instant>,
    /// A run is stalled and no idle source can replace it.
    pub(super) wanted: bool,
}

impl DownloadPlan {
    /// Handles a redirect from the address `requested` to the end of `chain`: adds its target and the `mirrors` as sources.
    /// If one is new, the next query may follow at once.
    pub(crate) fn on_redirect(
        &mut self,
        requested: &Url,
        chain: RedirectChain,
        mirrors: Vec<Mirror>,
        digest: Option<Checksum>,
        jitter: f64,
        now: Instant,
    ) {
        self.identity.digest = self.identity.digest.or(digest.map(|digest| (digest, Authority::Given)));
        // The mirrors of a redirect have the same resource as its target.
        let resource = identity::resource(requested, chain.end());
        let before = self.sources.len();
        let mirrors: Vec<_> = mirrors.into_iter().map(|mirror| chain.with_end(mirror.url)).collect();
        for source in std::iter::once(chain).chain(mirrors) {
            self.add_source(source, &resource);
        }
        if self.sources.len() > before {
            self.query.without_new_source = 0;
            self.on_query_finished(Some(Duration::ZERO), jitter, now);
            return;
        }
        self.query.without_new_source = self.query.without_new_source.saturating_add(1);
        if self.is_out_of_sources() && self.query.without_new_source >= MAX_QUERIES_WITHOUT_NEW_SOURCE {
            self.balancer = BalancerPresence::Absent;
        }
        self.on_query_finished(None, jitter, now);
    }

    /// Handles an answer with the file from the address itself, to `request`. Returns its run, unless sources are known.
    pub(crate) fn on_direct_answer(
        &mut self,
        requested: &Url,
        chain: RedirectChain,
        request: RangeRequest,
        began: Instant,
        now: Instant,
    ) -> Option<RunId> {
        self.balancer = BalancerPresence::Absent;
        self.on_query_finished(None, 0.0, now);
        if !self.sources.is_empty() {
            return None;
        }
        let resource = identity::resource(requested, chain.end());
        self.add_source(chain, &resource);
        let id = self.begin(SourceId(0), request.range, None, began);
        if let Some(run) = self.runs.get_mut(&id) {
            run.request = request;
        }
        Some(id)
    }

    /// Handles the end of a query without new sources. `retry_after` is the delay that the balancer asked
    /// for.
    pub(crate) fn on_query_finished(&mut self, retry_after: Option<Duration>, jitter: f64, now: Instant) {
        self.query.in_progress = false;
        self.query.wanted = false;
        self.query.since_progress = self.query.since_progress.saturating_add(1);
        let delay =
            retry_after.unwrap_or_else(|| source::backoff(&self.settings, self.query.since_progress, jitter));
        match now.checked_add(delay) {
            Some(at) => self.query.not_before = Some(at),
            None => self.balancer = BalancerPresence::Absent,
        }
    }

    /// Handles the end of a wait for the balancer. The user asked to wait without a limit.
    pub(crate) fn on_waited(&mut self, now: Instant) {
        self.query.since_progress = 0;
        self.on_query_finished(Some(Duration::ZERO), 0.0, now);
    }

    /// Whether no balancer can name other sources.
    pub(super) fn has_no_balancer(&self) -> bool {
        self.balancer == BalancerPresence::Absent
    }

    /// The bytes to request from the address `requested` with a query: the first missing ones, in case it is the address
    /// of a server.
    pub(crate) fn query_request(&self, requested: &Url) -> RangeRequest {
        // The known validators must belong to this address, or to one that it redirects to.
        let is_of_address = self.identity.resource.split(' ').next() == Some(&address::shown(requested));
        match self.bytes.missing().iter().next() {
            Some(range) if range.start > 0 && is_of_address => {
                let validator = self.identity.validator().map(ToOwned::to_owned);
                RangeRequest { range, size: self.size(), validator }
            }
            _ => RangeRequest::everything(),
        }
    }

    /// Whether the balancer may be asked, now or after a back-off.
    pub(super) fn may_query(&self) -> bool {
        self.balancer == BalancerPresence::Present
            && self.query.since_progress < self.settings.max_failures.max(1)
    }

    pub(super) fn query_if_needed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let is_idle = self.runs.is_empty() && !self.bytes.is_complete();
        let is_time = self.query.not_before.is_none_or(|at| at <= now);
        if (is_idle || self.query.wanted) && self.may_query() && is_time && !self.query.in_progress {
            self.query.in_progress = true;
            self.query.count = self.query.count.saturating_add(1);
            actions.push(Action::QueryBalancer);
        }
    }
}
