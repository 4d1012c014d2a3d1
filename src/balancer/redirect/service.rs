//! The request path: from a request to its redirect, on the table that this worker holds.
//!
//! Nothing here waits for a mailbox, takes a lock or makes a system call.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use actix_http::header::{self, HeaderValue};
use actix_http::{HttpMessage, Method, Request, Response, StatusCode};
use bytes::Bytes;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::CurrentTable;
use super::answer::{self, RedirectStatus};
use super::avoid;
use super::location::Target;
use super::shortcut::Workbench;
use crate::balancer::admin::metrics::WorkerCounters;
use crate::balancer::backends::BackendId;
use crate::balancer::policy::{self, Avoid, MonotonicClock, Picks, RetryAvoidance, RetryLookup, Timestamp};
use crate::balancer::ranking::table::RoutingTable;
use crate::http::host::is_host;
use crate::http::pages::Pages;
use crate::supervision::Leash;

/// What all workers answer alike.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    /// The status of a redirect.
    pub status: RedirectStatus,
    /// Runners-up named in `Link`, at most [`policy::MOST_ALTERNATES`].
    pub alternates: usize,
    /// `Retry-After` of the 503: about when the next probes are in.
    pub retry_after: HeaderValue,
    /// The pages.
    pub pages: Pages,
    /// What clients were sent where, if those that come back are sent elsewhere.
    pub second_chance: Option<Arc<RetryAvoidance>>,
    /// Tells the policies the time.
    pub clock: MonotonicClock,
}

/// Answers the requests of one HTTP worker.
pub struct RedirectService {
    pub(super) plan: AnswerPlan,
    pub(super) table: CurrentTable,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) workbench: RefCell<Workbench>,
    random: RefCell<SmallRng>,
    _leash: Leash,
}

/// Where a client is sent.
pub(super) struct Choice<'a> {
    pub(super) backend: &'a BackendId,
    /// The same backend, and the runners-up.
    pub(super) picks: Picks,
}

impl RedirectService {
    /// A service that chooses from `table`, whoever replaces it meanwhile. `leash` keeps the worker's actor alive.
    #[must_use]
    pub fn new(
        plan: AnswerPlan,
        table: CurrentTable,
        counters: Arc<WorkerCounters>,
        random: SmallRng,
        leash: Leash,
    ) -> Self {
        Self {
            plan,
            table,
            counters,
            workbench: RefCell::default(),
            random: RefCell::new(random),
            _leash: leash,
        }
    }

    /// The answer to one request: a redirect, or the page of an error.
    pub fn answer(&self, request: &Request) -> Response<Bytes> {
        let host = request.headers().get(header::HOST);
        let mut response = match *request.method() {
            _ if host.is_some_and(|host| !is_host(host.as_bytes())) => self.refuse(StatusCode::BAD_REQUEST),
            Method::GET | Method::HEAD => self.redirect(request),
            _ => self.refuse(StatusCode::NOT_IMPLEMENTED),
        };
        response.head_mut().set_camel_case_headers(true);
        self.counters.answered(response.status().as_u16());
        response
    }

    fn redirect(&self, request: &Request) -> Response<Bytes> {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let Ok(target) = Target::parse(target.as_bytes()) else {
            return self.refuse(StatusCode::BAD_REQUEST);
        };
        let table = self.table.load();
        let now = self.plan.clock.timestamp(Instant::now());
        let client = request.peer_addr().map(|peer| peer.ip());
        match self.choose(&table, &target, avoid::avoided(request.headers()), client, now) {
            Some(choice) => answer::redirect(&self.plan.pages, self.plan.status, &table, &choice, &target),
            None => self.unavailable(),
        }
    }

    /// Chooses where this client is sent; `None` when no backend is usable.
    pub(super) fn choose<'a>(
        &self,
        table: &'a RoutingTable,
        target: &Target<'_>,
        avoid: Avoid,
        client: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<Choice<'a>> {
        let mut wanted = policy::PickRequest { path_hash: policy::digest(target.path()), avoid };
        let visit = self.visit(client, wanted.path_hash, now);
        if let Some(failed) = visit.as_ref().and_then(|visit| visit.avoid) {
            wanted.avoid.add(failed);
        }
        let mut picks = Picks::new(self.plan.alternates);
        table.policy.pick(&wanted, now, &mut *self.random.borrow_mut(), &mut picks);
        let entry = table.entries.get(picks.chosen()? as usize)?;
        if let (Some(memory), Some(visit)) = (&self.plan.second_chance, &visit) {
            memory.record(visit, entry.member.ledger.identity());
        }
        Some(Choice { backend: entry.member.backend.id(), picks })
    }

    /// Looks up whether this client was sent somewhere for this file before.
    fn visit(&self, client: Option<IpAddr>, path_hash: u64, now: Timestamp) -> Option<RetryLookup> {
        let memory = self.plan.second_chance.as_ref()?;
        let client = match client? {
            IpAddr::V4(address) => policy::digest(&address.octets()),
            IpAddr::V6(address) => policy::digest(&address.octets()),
        };
        Some(memory.look_up(client.rotate_left(1) ^ path_hash, now))
    }

    fn refuse(&self, status: StatusCode) -> Response<Bytes> {
        let mut response = self.plan.pages.answer(status);
        // A body may follow that nobody reads.
        response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
        response
    }

    fn unavailable(&self) -> Response<Bytes> {
        let mut response = self.plan.pages.answer(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(header::RETRY_AFTER, self.plan.retry_after.clone());
        response
    }
}
