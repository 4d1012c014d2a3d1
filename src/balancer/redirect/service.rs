//! The request path: from a request to its redirect, on the table that this worker holds.
//!
//! Nothing here waits for a mailbox, takes a lock or makes a system call.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher};
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
use crate::balancer::policy::{self, Avoid, Clock, Picks};
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
        let wanted = policy::Request {
            path_hash: hash(target.path()),
            avoid: if request.headers().contains_key(avoid::HEADER) {
                table.authorities.avoided(request.headers())
            } else {
                Avoid::default()
            },
        };
        let now = self.plan.clock.tick(Instant::now());
        table.policy.pick(&wanted, now, &mut *self.random.borrow_mut(), &mut picks);
        let location = picks
            .chosen()
            .and_then(|chosen| table.entries.get(chosen as usize))
            .map(|entry| target.location(entry.member.backend.id()));
        match location {
            Some(location) => {
                let link = link(&table, &picks, &target);
                answer::redirect(&self.plan.pages, self.plan.status, location, link)
            }
            None => self.unavailable(),
        }
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

/// The same on every balancer of the same version: the hasher's keys are fixed.
fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(path);
    hasher.finish()
}
