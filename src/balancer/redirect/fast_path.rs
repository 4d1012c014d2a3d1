//! The fast path for plain requests: parses the head in place and writes the answer as bytes, without the request and
//! response objects of the HTTP layer.
//!
//! Requests that are not plain, and requests whose answer is not a redirect, are declined and answered by
//! [`RedirectService::answer`]. Both paths give the same answer, except for the order of the header lines.

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::answer::RedirectStatus;
use super::client::Client;
use super::location::Target;
use super::range::requested_bytes;
use super::service::{RedirectRequest, RedirectService};
use super::{WorkerState, acme, answer, documents};
use crate::balancer::policy::{Avoid, digest};
use crate::balancer::presence::generation::Location;
use crate::http::transport::{DateLine, FastAnswer, FastPath, NO_LINES, Offer, Peer, PlainRequest};

/// The header lines before the `Date` of an answer.
const TAIL: &[u8] = b"\r\nCache-Control: no-store\r\nContent-Type: text/html; charset=utf-8\r\n";

/// Buffers that are reused for each answer, so that the fast path does not allocate.
#[derive(Debug, Default)]
pub(super) struct ResponseScratch {
    location: BytesMut,
    page: BytesMut,
    /// The start of the head of a redirect with this status.
    start: Option<(RedirectStatus, Vec<u8>)>,
    date: DateLine,
}

impl FastPath for RedirectService {
    fn answer(&self, head: &[u8], peer: Peer, answer: &mut FastAnswer) -> Offer {
        // Only the other path logs.
        if self.shared.access_log.is_some() {
            return Offer::Declined;
        }
        let (mut lines, mut range, mut tag) = (NO_LINES, None, None);
        let request = PlainRequest::parse(head, &mut lines, |header| {
            if header.name.eq_ignore_ascii_case("range") {
                range = requested_bytes(header.value);
            } else if header.name.eq_ignore_ascii_case("if-none-match") {
                tag = Some(header.value);
            }
            (!header.name.eq_ignore_ascii_case("fingerpost-avoid")).then_some(())
        });
        let Some(request) = request else { return Offer::Declined };
        let Ok(target) = Target::parse(request.target.as_bytes()) else { return Offer::Declined };
        let current = self.current.borrow();
        let WorkerState { table, answers: plan } = &*current;
        if plan.serves_challenges && request.target.starts_with(acme::FOLDER) {
            return Offer::Declined;
        }
        let instant = Instant::now();
        let now = plan.clock.timestamp(instant);
        let catalogue = self.shared.presence.as_ref().map(|presence| presence.current());
        let generation = catalogue.as_ref().and_then(|catalogue| catalogue.as_deref());
        let path_hash = digest(target.path());
        let place = generation.map(|generation| generation.locate(target.path(), path_hash));
        if matches!(place, Some(Location::Unknown))
            || (place.is_some() && documents::asks_for_mirrors(&target))
        {
            return Offer::Declined;
        }
        let lines = request.headers.iter().map(|header| (header.name, header.value));
        let client = Client::new(peer.address, peer.is_tls, &plan.trusted_proxies, lines);
        let wanted = RedirectRequest {
            target: &target,
            path_hash,
            is_head: false,
            range,
            tag,
            avoid: Avoid::default(),
            client,
        };
        let Some(choice) = self.choose(&current, &wanted, place.as_ref(), now) else {
            return Offer::Declined;
        };

        let mut scratch = self.scratch.borrow_mut();
        let ResponseScratch { location, page, start, date } = &mut *scratch;
        location.clear();
        target.put_location(choice.backend, location);
        page.clear();
        answer::put_page(&plan.pages, plan.status, location, page);

        let start = match start {
            Some((status, start)) if *status == plan.status => start,
            outdated => {
                let (code, reason) = (plan.status.code(), plan.status.reason());
                let start = format!("HTTP/1.1 {code} {reason}\r\nContent-Length: ").into_bytes();
                &mut outdated.insert((plan.status, start)).1
            }
        };
        answer.closes = request.closes;
        let answer = &mut answer.bytes;
        answer.put_slice(start);
        put_number(answer, page.len());
        if request.closes {
            answer.put_slice(b"\r\nConnection: close");
        }
        answer.put_slice(b"\r\nLocation: ");
        answer.put_slice(location);
        for alternate in answer::alternates(table, &choice.picks) {
            answer.put_slice(b"\r\nLink: ");
            // The path and query of a plain request have no brackets.
            answer::put_link(alternate, target.as_bytes(), answer);
        }
        if let Some(Location::File(file)) = &place {
            documents::lines_of(target.path(), &file.content, |name, value| {
                answer.put_slice(b"\r\n");
                answer.put_slice(name.as_bytes());
                answer.put_slice(b": ");
                answer.put_slice(value);
            });
        }
        answer.put_slice(TAIL);
        date.put(instant, answer);
        answer.put_slice(page);
        self.counters.answered(plan.status.code());
        Offer::Answered
    }
}

fn put_number(buffer: &mut BytesMut, number: usize) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    buffer.put_slice(digits.get(digits.len() - length..).unwrap_or_default());
}
