//! Answers a request with a redirect, using the routing table of the worker.
//!
//! This code does not wait for a mailbox, take a lock or make a system call.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_http::header::{self, HeaderValue};
use actix_http::{Method, RequestHead, Response, StatusCode};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::answer::{self, RedirectStatus};
use super::avoid;
use super::choice::{Choice, ChoiceReason, FileMirrors, KnownFile};
use super::client::{Client, TrustedProxies};
use super::client_reach::{self, RequestReach};
use super::documents::{self, Document};
use super::fast_path::ResponseScratch;
use super::location::{Mount, Target};
use super::range::requested_bytes;
use super::{BalancerState, CurrentState, RedirectHandler, WorkerState};
use crate::balancer::health::HealthCheckConfig;
use crate::balancer::metrics::AnswerCounters;
use crate::balancer::policy::{
    self, Avoid, MonotonicClock, Picks, PolicyName, RetryAvoidance, RetryLookup, ServerFilter as _,
    Timestamp, Visited,
};
use crate::balancer::presence::OfferCause;
use crate::balancer::presence::generation::{FileLocation, Location};
use crate::balancer::ranking::reach::ClientViews;
use crate::balancer::ranking::selection::Eligibility;
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};
use crate::balancer::statistics::{Download, DownloadRecorder};
use crate::http::access_log::{LogEntry, RedirectEntry};
use crate::http::host::is_host;
use crate::http::pages::Pages;
use crate::http::transport::{AnswerEnd, Completion};
use crate::supervision::ActorKind;

/// The longest target (path and query, in bytes) whose redirect has alternates. Each alternate repeats the target, and
/// proxies limit the size of a head (nginx to 4 or 8 KiB by default).
const LONGEST_WITH_ALTERNATES: usize = 512;

/// The time between two redirects of a worker that are offered for a check.
const CHECK_INTERVAL: Duration = Duration::from_micros(250);

/// The settings and resources of the answers of all workers.
#[derive(Debug, Clone)]
pub(crate) struct AnswerPlan {
    /// The status of a redirect.
    pub status: RedirectStatus,
    /// The number of alternates in `Link` lines, at most [`policy::MOST_ALTERNATES`].
    pub alternates: usize,
    /// `Retry-After` of the 503: about the time until the next probes.
    pub retry_after: HeaderValue,
    /// The pages of redirects and errors.
    pub pages: Pages,
    /// The proxies whose `X-Forwarded-...` headers are used.
    pub trusted_proxies: TrustedProxies,
    /// The backends of recent redirects; `None` under `hash`, which sends a path to one backend in any case.
    pub memory: Option<Arc<RetryAvoidance>>,
    /// Whether a client that requests the same file again after 1 to 60 s is sent to another server, because the first one
    /// probably failed.
    pub second_chance: bool,
    /// Whether challenges of certificate authorities are served instead of redirected.
    pub serves_challenges: bool,
    /// The clock of the policies.
    pub clock: MonotonicClock,
    /// The rule for the choice of a backend, for explanations.
    pub policy: PolicyName,
    /// The rules for states, for explanations. Without the stretch of a long list.
    pub health_check: HealthCheckConfig,
}

/// Answers the requests of one HTTP worker.
pub(crate) struct RedirectService {
    /// The balancer, which runs as long as a reference to its state exists.
    pub(super) shared: Arc<BalancerState>,
    mount: Mount,
    pub(super) current: CurrentState,
    pub(super) counters: Arc<AnswerCounters>,
    pub(super) scratch: RefCell<ResponseScratch>,
    random: RefCell<SmallRng>,
    recorder: Rc<DownloadRecorder>,
    /// The time from which the next redirect may be checked.
    next_check: Cell<u64>,
    views: RefCell<ClientViews>,
    /// The handler ends when its last address is dropped.
    _handler: Addr<RedirectHandler>,
}

/// The properties of a request on which the choice of a backend depends.
pub(super) struct RedirectRequest<'a> {
    pub(super) target: &'a Target<'a>,
    /// The [`digest`](policy::digest) of the path.
    pub(super) path_hash: u64,
    pub(super) is_head: bool,
    /// The largest number of requested bytes; `None` without a range.
    pub(super) range: Option<u64>,
    /// Whether the request has a range.
    pub(super) is_part: bool,
    /// The entity tag of the client's copy, from `If-None-Match`.
    pub(super) tag: Option<&'a [u8]>,
    pub(super) avoid: Avoid,
    pub(super) client: Client,
}

impl RedirectRequest<'_> {
    /// The expected bytes of the answer for a file of this size; `None` if they are unknown.
    fn answer_size(&self, size: Option<f32>) -> Option<f32> {
        match self.range {
            _ if self.is_head => Some(0.0),
            Some(bytes) => Some(size.map_or(bytes as f32, |size| size.min(bytes as f32))),
            None => size,
        }
    }
}

impl RedirectService {
    /// Starts the worker of the current thread: its `RedirectHandler`, which receives tables, and the service, which reads
    /// them.
    pub(super) fn start(shared: Arc<BalancerState>, mount: Mount) -> Self {
        let publisher = &shared.publisher;
        let state = || WorkerState { table: publisher.latest(), answers: shared.answers.load_full() };
        let current: CurrentState = Rc::new(RefCell::new(state()));
        let recorder = DownloadRecorder::start(Arc::clone(&shared.statistics));
        let actor = RedirectHandler { current: Rc::clone(&current), answers: Arc::clone(&shared.answers) };
        let handler = shared.supervisor.start(ActorKind::Redirect, "worker", actor);
        publisher.subscribe(&handler.downgrade().recipient());
        // A table may have been published between the first `latest` and the subscription.
        current.replace(state());
        Self {
            mount,
            current,
            counters: shared.metrics.worker(),
            scratch: RefCell::default(),
            random: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            recorder,
            next_check: Cell::new(0),
            views: RefCell::default(),
            _handler: handler,
            shared,
        }
    }

    /// The answer to one request: a redirect or an error page.
    ///
    /// `is_https` is whether the connection uses TLS.
    pub(crate) fn answer(&self, request: &RequestHead, is_https: bool) -> Response<Bytes> {
        let host = request.headers().get(header::HOST);
        let mut redirect = None;
        let mut response = match request.method {
            _ if host.is_some_and(|host| !is_host(host.as_bytes())) => self.refuse(StatusCode::BAD_REQUEST),
            Method::GET | Method::HEAD => self.redirect(request, is_https, &mut redirect),
            _ => self.refuse(StatusCode::NOT_IMPLEMENTED),
        };
        response.head_mut().set_camel_case_headers(true);
        self.counters.answered(response.status().as_u16());
        if let Some(log) = &self.shared.access_log {
            let mut entry = LogEntry::of(request, response.status());
            if let Some((client, redirect)) = redirect {
                entry = entry.redirected(client, redirect);
            }
            // The answer fits into the buffer of the socket, so it is logged before it is sent.
            let body_sent = if request.method == Method::HEAD { 0 } else { response.body().len() as u64 };
            log.end(&entry, AnswerEnd { body_sent, completion: Completion::Whole });
        }
        response
    }

    /// `log` receives the choice if there is an access log.
    fn redirect(
        &self,
        request: &RequestHead,
        is_https: bool,
        log: &mut Option<(Option<IpAddr>, RedirectEntry)>,
    ) -> Response<Bytes> {
        let target = request.uri.path_and_query().map_or("", |target| target.as_str());
        let Some(target) = self.mount.below(target) else { return self.refuse(StatusCode::NOT_FOUND) };
        let Ok(target) = Target::parse(target.as_bytes()) else {
            return self.refuse(StatusCode::BAD_REQUEST);
        };
        let current = self.current.borrow();
        let WorkerState { table, answers: plan } = &*current;
        let now = plan.clock.timestamp(Instant::now());
        let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let peer = request.peer_addr.map(|peer| peer.ip());
        let client = Client::new(peer, is_https, &plan.trusted_proxies, lines);
        let catalogue = self.shared.presence.as_ref().map(|presence| presence.current());
        let generation = catalogue.as_ref().and_then(|catalogue| catalogue.as_deref());
        let path_hash = policy::digest(target.path());
        let location = generation.map(|generation| generation.locate(target.path(), path_hash));
        let mut avoid = avoid::avoided(request.headers());
        avoid::add_wanted(&mut avoid, &target, table);
        let wanted = RedirectRequest {
            target: &target,
            path_hash,
            is_head: request.method == Method::HEAD,
            range: request.headers().get(header::RANGE).and_then(|range| requested_bytes(range.as_bytes())),
            is_part: request.headers().contains_key(header::RANGE),
            tag: request.headers().get(header::IF_NONE_MATCH).map(HeaderValue::as_bytes),
            avoid,
            client,
        };
        if let (Some(generation), Some(location)) = (generation, &location)
            && let Some(document) = Document::requested(&target, location, generation, request.headers())
        {
            let reach = self.reach(table, &wanted);
            return document.answer(table, client.needs(), reach.as_ref());
        }
        match self.choose(&current, &wanted, location.as_ref(), now) {
            Some(choice) => {
                if self.shared.access_log.is_some() {
                    let alternates = answer::alternates(table, &choice.picks);
                    let redirect = RedirectEntry {
                        backend: choice.backend.to_string(),
                        reason: choice.reason.as_str(),
                        alternates: alternates.map(|(_, id)| id.to_string()).collect(),
                    };
                    *log = Some((client.address, redirect));
                }
                let mut response = answer::redirect(&plan.pages, plan.status, table, &choice, &target);
                if let Some(Location::File(file)) = &location {
                    documents::add_lines(target.path(), &file.content, response.headers_mut());
                }
                response
            }
            None if is_not_found(table, location.as_ref()) => plan.pages.answer(StatusCode::NOT_FOUND),
            None => self.unavailable(),
        }
    }

    /// Chooses a backend for this client; `None` if no backend is usable. `location` is the place of the path in the catalogue.
    pub(super) fn choose<'a>(
        &self,
        WorkerState { table, answers: plan }: &'a WorkerState,
        wanted: &RedirectRequest<'_>,
        location: Option<&Location<'_>>,
        now: Timestamp,
    ) -> Option<Choice<'a>> {
        let path = wanted.target.path();
        let size = self.shared.sizes.as_ref();
        let size = size.and_then(|sizes| sizes.expect(path, wanted.path_hash, wanted.tag, now));
        let file = KnownFile::new(location, size);
        let reach = self.reach(table, wanted);
        let choice = plan.choose(table, wanted, file, reach.as_ref(), now, &mut *self.random.borrow_mut())?;
        if let Some(Location::File(file)) = location {
            self.offer_checks(table, wanted, file, &choice, now);
        }
        let bytes = wanted.answer_size(file.size).unwrap_or(policy::DEFAULT_SIZE);
        plan.record(table, wanted, &choice, bytes, now);
        if !wanted.is_head {
            self.note(table, wanted, location, file.size, &choice, now);
        }
        Some(choice)
    }

    /// Notes this redirect for the statistics. `size` is the one of the file.
    fn note(
        &self,
        table: &RoutingTable,
        wanted: &RedirectRequest<'_>,
        location: Option<&Location<'_>>,
        size: Option<f32>,
        choice: &Choice<'_>,
        now: Timestamp,
    ) {
        self.recorder.note(now, || {
            let (path, exact) = match location {
                Some(Location::File(file)) => (file.path, file.content.size),
                _ => (wanted.target.path(), None),
            };
            let entry = table.entries.get(choice.visited.index as usize);
            Download {
                path,
                client: wanted.client.address,
                server: entry.map_or(0, |entry| entry.load.number()),
                bytes: exact.unwrap_or_else(|| size.map_or(0, |size| size as u64)),
                is_part: wanted.is_part,
            }
        });
    }

    /// The servers that this client may get; `None` for all.
    fn reach<'t>(&self, table: &'t RoutingTable, wanted: &RedirectRequest<'_>) -> Option<RequestReach<'t>> {
        let reach = table.reach.as_ref()?;
        Some(RequestReach::of(reach, wanted.client, wanted.target, &mut self.views.borrow_mut()))
    }

    /// Offers this redirect for a check, and the earlier redirects of this client that probably failed.
    fn offer_checks(
        &self,
        table: &RoutingTable,
        wanted: &RedirectRequest<'_>,
        file: &FileLocation<'_>,
        choice: &Choice<'_>,
        Timestamp(now): Timestamp,
    ) {
        let Some(presence) = &self.shared.presence else { return };
        let number = |index: u32| table.entries.get(index as usize).map(|entry| &entry.load);
        if now >= self.next_check.get() {
            self.next_check.set(now + CHECK_INTERVAL.as_nanos() as u64);
            if let Some(load) = number(choice.visited.index) {
                presence.offer(file.key, load.number(), OfferCause::Sample);
            }
        }
        if let Some(failed) = choice.failed()
            && let Some(load) = number(failed.index).filter(|load| load.identity() == failed.identity)
        {
            presence.offer(file.key, load.number(), OfferCause::Failure);
        }
        if !wanted.avoid.is_empty() {
            let loads = table.entries.iter().map(|entry| &entry.load);
            for load in loads.filter(|load| wanted.avoid.contains(load.identity())) {
                presence.offer(file.key, load.number(), OfferCause::Failure);
            }
        }
    }

    fn refuse(&self, status: StatusCode) -> Response<Bytes> {
        let mut response = self.current.borrow().answers.pages.answer(status);
        // The request may have a body, which is not read.
        response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
        response
    }

    fn unavailable(&self) -> Response<Bytes> {
        let mut response = self.current.borrow().answers.pages.answer(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(header::RETRY_AFTER, self.current.borrow().answers.retry_after.clone());
        response
    }
}

/// Whether the catalogue does not have the path, and the list has no origin.
pub(super) fn is_not_found(table: &RoutingTable, location: Option<&Location<'_>>) -> bool {
    matches!(location, Some(Location::Unknown))
        && !table.entries.iter().any(|entry| entry.backend.is_origin())
}

impl AnswerPlan {
    /// Chooses a backend and books the download in its load; `None` if no usable backend has the file. The caller records the
    /// choice in the memory of recent redirects.
    pub(super) fn choose<'a>(
        &self,
        table: &'a RoutingTable,
        wanted: &RedirectRequest<'_>,
        file: KnownFile<'_>,
        reach: Option<&RequestReach<'_>>,
        now: Timestamp,
        random: &mut dyn Rng,
    ) -> Option<Choice<'a>> {
        let RedirectRequest { target, path_hash, is_head, avoid, client, .. } = *wanted;
        let size = wanted.answer_size(file.size);
        let holders = match file.mirrors {
            FileMirrors::Holding(holders) => Some(holders),
            FileMirrors::All | FileMirrors::Origin => None,
        };
        let is_for_origin = matches!(file.mirrors, FileMirrors::Origin);
        let mut request = policy::PickRequest { path_hash, avoid, size, holders, ..Default::default() };
        let file_size = file.size.map(|size| size as u64);
        let reach = reach.map(|reach| (reach, reach.admitted(file_size)));
        let admits =
            |entry: &BackendEntry| reach.is_none_or(|(_, admitted)| admitted.admits(entry.load.number()));
        let visit = self.visit(client.address, path_hash, is_head, now);
        let failed = visit.and_then(|visit| visit.avoid);
        let mut reason = ChoiceReason::Policy;
        if let Some(failed) = failed.filter(|_| self.second_chance) {
            request.avoid.add(failed.identity);
            reason = ChoiceReason::Retry;
        }
        let is_long = target.as_bytes().len() > LONGEST_WITH_ALTERNATES;
        let alternates = if is_long { 0 } else { self.alternates };
        let mut picks = Picks::new(alternates);
        if let Some(same) = visit.and_then(|visit| visit.same)
            && let Some(entry) = table.entries.get(same.index as usize)
            // After a change of the list, another backend may have the index.
            && entry.load.identity() == same.identity
            && !matches!(entry.eligibility, Eligibility::Out | Eligibility::Withdrawn)
            && !request.avoid.contains(same.identity)
            && holders.is_none_or(|holders| holders.contains(entry.load.number()))
            && admits(entry)
            && !is_for_origin
        {
            entry.load.record_redirect(size.unwrap_or(policy::DEFAULT_SIZE), now);
            picks = Picks::with(same.index, alternates);
            reason = ChoiceReason::AfterHead;
        }
        if !is_for_origin {
            let policy = table.policy_for(client.needs());
            let careful = self.without_failures(&request, client, table, now);
            let first = careful.as_ref().unwrap_or(&request);
            client_reach::pick(policy, first, reach, now, random, &mut picks);
            if careful.is_some() && picks.chosen().is_none() {
                client_reach::pick(policy, &request, reach, now, random, &mut picks);
            }
        }
        if picks.chosen().is_none() {
            // No candidate has the file and suits the client: take any usable backend that does, such as one of a spare tier.
            let index = match file.mirrors {
                FileMirrors::All if reach.is_none() => None,
                FileMirrors::All => table.best_of(client.needs(), admits),
                FileMirrors::Holding(holders) => table
                    .best_of(client.needs(), |entry| holders.contains(entry.load.number()) && admits(entry)),
                FileMirrors::Origin => {
                    table.best_of(client.needs(), |entry| entry.backend.is_origin() && admits(entry))
                }
            }?;
            let load = &table.entries.get(index as usize)?.load;
            load.record_redirect(size.unwrap_or(policy::DEFAULT_SIZE), now);
            picks = Picks::with(index, 0);
        }
        let index = picks.chosen()?;
        let entry = table.entries.get(index as usize)?;
        let visited = Visited { identity: entry.load.identity(), index };
        Some(Choice { backend: entry.backend.id(), picks, reason, visit, visited })
    }

    /// Looks up an earlier redirect of this client for this file.
    fn visit(
        &self,
        client: Option<IpAddr>,
        path_hash: u64,
        is_head: bool,
        now: Timestamp,
    ) -> Option<RetryLookup> {
        let memory = self.memory.as_ref()?;
        let client = match client? {
            IpAddr::V4(address) => policy::digest(&address.octets()),
            IpAddr::V6(address) => policy::digest(&address.octets()),
        };
        Some(memory.look_up(client.rotate_left(1) ^ path_hash, is_head, now))
    }
}
