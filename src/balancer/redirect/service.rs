//! The request path: from a request to its redirect, on the table that this worker holds.
//!
//! Nothing here waits for a mailbox, takes a lock or makes a system call.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use actix_http::header::{self, HeaderValue};
use actix_http::{HttpMessage, Method, Request, Response, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::CurrentTable;
use super::answer::{self, RedirectStatus};
use super::avoid;
use super::location::Target;
use crate::balancer::admin::metrics::WorkerCounters;
use crate::balancer::policy::{self, Clock, Picks, SecondChance, Tick, Visit};
use crate::balancer::ranking::table::RoutingTable;
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
    pub second_chance: Option<Arc<SecondChance>>,
    /// Tells the policies the time.
    pub clock: Clock,
}

/// Answers the requests of one HTTP worker.
pub struct RedirectService {
    plan: AnswerPlan,
    table: CurrentTable,
    counters: Arc<WorkerCounters>,
    random: RefCell<SmallRng>,
    _leash: Leash,
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
        Self { plan, table, counters, random: RefCell::new(random), _leash: leash }
    }

    /// The answer to one request: a redirect, or the page of an error.
    pub fn answer(&self, request: &Request) -> Response<Bytes> {
        let mut response = match *request.method() {
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
        let mut picks = Picks::new(self.plan.alternates);
        let now = self.plan.clock.tick(Instant::now());
        let mut wanted = policy::Request {
            path_hash: policy::digest(target.path()),
            avoid: avoid::avoided(request.headers()),
        };
        let visit = self.visit(request, wanted.path_hash, now);
        if let Some(failed) = visit.as_ref().and_then(|visit| visit.avoid) {
            wanted.avoid.add(failed);
        }
        table.policy.pick(&wanted, now, &mut *self.random.borrow_mut(), &mut picks);
        let Some(entry) = picks.chosen().and_then(|chosen| table.entries.get(chosen as usize)) else {
            return self.unavailable();
        };
        if let (Some(memory), Some(visit)) = (&self.plan.second_chance, &visit) {
            memory.sent(visit, entry.member.ledger.identity());
        }
        let location = target.location(entry.member.backend.id());
        let link = link(&table, &picks, &target);
        answer::redirect(&self.plan.pages, self.plan.status, location, link)
    }

    /// Looks up whether this client was sent somewhere for this file before.
    fn visit(&self, request: &Request, path_hash: u64, now: Tick) -> Option<Visit> {
        let memory = self.plan.second_chance.as_ref()?;
        let client = match request.peer_addr()?.ip() {
            IpAddr::V4(address) => policy::digest(&address.octets()),
            IpAddr::V6(address) => policy::digest(&address.octets()),
        };
        Some(memory.visit(client.rotate_left(1) ^ path_hash, now))
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

/// The runners-up in one `Link` header (RFC 6249, section 3): `<url>; rel=duplicate; pri=1, ...`.
fn link(table: &RoutingTable, picks: &Picks, target: &Target<'_>) -> Option<Bytes> {
    let alternates = || picks.alternates().iter().filter_map(|place| table.entries.get(*place as usize));
    let first = alternates().next()?;
    let each = first.member.backend.id().as_str().len() + target.as_bytes().len() + 48;
    let mut value = BytesMut::with_capacity(each * picks.alternates().len());
    for (priority, entry) in (b'1'..).zip(alternates()) {
        if priority > b'1' {
            value.put_slice(b", ");
        }
        value.put_u8(b'<');
        value.put_slice(entry.member.backend.id().as_str().as_bytes());
        put_without_brackets(&mut value, target.as_bytes());
        value.put_slice(b">; rel=duplicate; pri=");
        value.put_u8(priority);
    }
    Some(value.freeze())
}

/// Appends a target such that it cannot end the `<...>` around it.
fn put_without_brackets(value: &mut BytesMut, target: &[u8]) {
    if memchr::memchr2(b'<', b'>', target).is_none() {
        return value.put_slice(target);
    }
    for byte in target {
        match byte {
            b'<' => value.put_slice(b"%3C"),
            b'>' => value.put_slice(b"%3E"),
            _ => value.put_u8(*byte),
        }
    }
}
