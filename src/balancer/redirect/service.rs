//! The request path: from a request to its redirect, on the table that this worker holds.
//!
//! Nothing here waits for a mailbox, takes a lock or makes a system call.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix::Addr;
use actix_http::header::{self, HeaderValue};
use actix_http::{Method, RequestHead, Response, StatusCode};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::answer::{self, RedirectStatus};
use super::avoid;
use super::client::{Client, TrustedProxies};
use super::location::Target;
use super::shortcut::Workbench;
use super::{CurrentTable, RedirectHandler};
use crate::balancer::Shared;
use crate::balancer::admin::metrics::WorkerCounters;
use crate::balancer::backends::BackendId;
use crate::balancer::health::fleet::Eligibility;
use crate::balancer::policy::{self, Avoid, MonotonicClock, Picks, RetryAvoidance, RetryLookup, Timestamp};
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::settings::Returning;
use crate::http::host::is_host;
use crate::http::pages::Pages;
use crate::supervision::ActorKind;

/// Of a longer target, path and query, no alternates are named: each repeats the target, and proxies bound a head (nginx
/// to 4 or 8 KiB by default).
const LONGEST_WITH_ALTERNATES: usize = 512;

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
    /// The proxies whose word on the client counts.
    pub trusted_proxies: TrustedProxies,
    /// The backends that clients were sent to; `None` under `hash`, which keeps a path on its backend by itself.
    pub memory: Option<Arc<RetryAvoidance>>,
    /// Whether clients that return are sent elsewhere.
    pub returning: Returning,
    /// Tells the policies the time.
    pub clock: MonotonicClock,
}

/// How the service is mounted.
#[derive(Debug, Clone, Default)]
pub struct Mount {
    /// Taken off each path; empty if the service is mounted at the root.
    pub prefix: Arc<str>,
}

impl Mount {
    /// Path and query below the prefix; `None` if the path starts otherwise.
    fn below<'a>(&self, target: &'a str) -> Option<Cow<'a, str>> {
        if self.prefix.is_empty() {
            return Some(target.into());
        }
        let rest = target.strip_prefix(&*self.prefix)?;
        match rest.as_bytes().first() {
            Some(b'/') => Some(rest.into()),
            None | Some(b'?') => Some(format!("/{rest}").into()),
            Some(_) => None,
        }
    }
}

/// Answers the requests of one HTTP worker.
pub struct RedirectService {
    /// The balancer, which runs as long as something can ask it.
    pub(super) shared: Arc<Shared>,
    mount: Mount,
    pub(super) table: CurrentTable,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) workbench: RefCell<Workbench>,
    random: RefCell<SmallRng>,
    /// The handler ends with its last address.
    _handler: Addr<RedirectHandler>,
}

/// A request, as far as the choice depends on it.
pub(super) struct Wanted<'a> {
    pub(super) target: &'a Target<'a>,
    pub(super) is_head: bool,
    pub(super) avoid: Avoid,
    pub(super) client: Client,
}

/// Where a client is sent.
pub(super) struct Choice<'a> {
    pub(super) backend: &'a BackendId,
    /// The same backend, and the runners-up.
    pub(super) picks: Picks,
}

impl RedirectService {
    /// Starts the worker of the current thread: its `RedirectHandler`, which receives tables from now on, and the
    /// service that reads them.
    #[must_use]
    pub(super) fn start(shared: Arc<Shared>, mount: Mount) -> Self {
        let publication = &shared.publication;
        let table: CurrentTable = Rc::new(RefCell::new(publication.latest()));
        let actor = RedirectHandler(Rc::clone(&table));
        let handler = shared.supervisor.start(ActorKind::Redirect, "worker", actor);
        publication.subscribe(&handler.downgrade().recipient());
        // A table may have been published before the handler subscribed.
        table.replace(publication.latest());
        Self {
            mount,
            table,
            counters: shared.metrics.worker(),
            workbench: RefCell::default(),
            random: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            _handler: handler,
            shared,
        }
    }

    /// The answer to one request: a redirect, or the page of an error.
    ///
    /// `is_https` is for a request that arrived over TLS itself.
    pub fn answer(&self, request: &RequestHead, is_https: bool) -> Response<Bytes> {
        let host = request.headers().get(header::HOST);
        let mut response = match request.method {
            _ if host.is_some_and(|host| !is_host(host.as_bytes())) => self.refuse(StatusCode::BAD_REQUEST),
            Method::GET | Method::HEAD => self.redirect(request, is_https),
            _ => self.refuse(StatusCode::NOT_IMPLEMENTED),
        };
        response.head_mut().set_camel_case_headers(true);
        self.counters.answered(response.status().as_u16());
        response
    }

    fn redirect(&self, request: &RequestHead, is_https: bool) -> Response<Bytes> {
        let target = request.uri.path_and_query().map_or("", |target| target.as_str());
        let Some(target) = self.mount.below(target) else { return self.refuse(StatusCode::NOT_FOUND) };
        let Ok(target) = Target::parse(target.as_bytes()) else {
            return self.refuse(StatusCode::BAD_REQUEST);
        };
        let plan = &self.shared.answers;
        let table = self.table.borrow();
        let now = plan.clock.timestamp(Instant::now());
        let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let peer = request.peer_addr.map(|peer| peer.ip());
        let client = Client::new(peer, is_https, &plan.trusted_proxies, lines);
        let wanted = Wanted {
            target: &target,
            is_head: request.method == Method::HEAD,
            avoid: avoid::avoided(request.headers()),
            client,
        };
        match self.choose(&table, &wanted, now) {
            Some(choice) => answer::redirect(&plan.pages, plan.status, &table, &choice, &target),
            None => self.unavailable(),
        }
    }

    /// Chooses where this client is sent; `None` when no backend is usable.
    pub(super) fn choose<'a>(
        &self,
        table: &'a RoutingTable,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Option<Choice<'a>> {
        let plan = &self.shared.answers;
        let Wanted { target, is_head, avoid, client } = *wanted;
        let mut request = policy::PickRequest { path_hash: policy::digest(target.path()), avoid };
        let visit = self.visit(client.address, request.path_hash, is_head, now);
        let entry_of = |place: Option<u32>| table.entries.get(place? as usize);
        let failed = visit.and_then(|visit| visit.avoid).filter(|_| plan.returning == Returning::Elsewhere);
        if let Some(failed) = entry_of(failed) {
            request.avoid.add(failed.member.ledger.identity());
        }
        let is_long = target.as_bytes().len() > LONGEST_WITH_ALTERNATES;
        let alternates = if is_long { 0 } else { plan.alternates };
        let mut picks = Picks::new(alternates);
        let same = visit.and_then(|visit| visit.same);
        if let (Some(place), Some(entry)) = (same, entry_of(same))
            && entry.eligibility != Eligibility::Out
            && !request.avoid.contains(entry.member.ledger.identity())
        {
            entry.member.ledger.record_redirect(now);
            picks = Picks::with(place, alternates);
        }
        table.policy_for(client.needs()).pick(&request, now, &mut *self.random.borrow_mut(), &mut picks);
        let chosen = picks.chosen()?;
        if let (Some(memory), Some(visit)) = (&plan.memory, &visit) {
            memory.record(visit, chosen);
        }
        Some(Choice { backend: entry_of(Some(chosen))?.member.backend.id(), picks })
    }

    /// Looks up whether this client was sent somewhere for this file before.
    fn visit(
        &self,
        client: Option<IpAddr>,
        path_hash: u64,
        is_head: bool,
        now: Timestamp,
    ) -> Option<RetryLookup> {
        let memory = self.shared.answers.memory.as_ref()?;
        let client = match client? {
            IpAddr::V4(address) => policy::digest(&address.octets()),
            IpAddr::V6(address) => policy::digest(&address.octets()),
        };
        Some(memory.look_up(client.rotate_left(1) ^ path_hash, is_head, now))
    }

    fn refuse(&self, status: StatusCode) -> Response<Bytes> {
        let mut response = self.shared.answers.pages.answer(status);
        // A body may follow that nobody reads.
        response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
        response
    }

    fn unavailable(&self) -> Response<Bytes> {
        let mut response = self.shared.answers.pages.answer(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(header::RETRY_AFTER, self.shared.answers.retry_after.clone());
        response
    }
}
