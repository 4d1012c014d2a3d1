//! Listings: a folder that has no index, as a page or as JSON.
//!
//! - [`view`]: how the client wants to see it.
//! - [`folder`]: what is in it, in which order.
//! - [`page`]: how that looks.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{HttpMessage as _, Method, Request, Response, StatusCode};
use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::files::Files;
use super::load::{Flight, Work};
use super::root::{OpenError, Root};
use super::sending::Sent;

mod folder;
mod page;
mod view;

use page::Place;
use view::{Form, View};

/// Listings that one worker makes at a time: others wait. Its other threads stay free for files.
const AT_ONCE: usize = 1;

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Memory for listings on their way to clients, over all workers. The largest there can be takes half of it.
pub(super) const MEMORY: usize = 64 << 20;

/// What a listing takes beside its bytes.
const OVERHEAD: usize = 1024;

/// Says how many entries there are at most, where there are more. JSON has no other place for it.
const LISTING_LIMIT: HeaderName = HeaderName::from_static("listing-limit");

/// Makes the listings of one worker.
#[derive(Debug)]
pub(super) struct Listings {
    root: Arc<Root>,
    turns: Arc<Semaphore>,
    /// A permit for each byte, shared by all workers.
    memory: Arc<Semaphore>,
}

/// A listing, and whether it is whole.
struct Made {
    body: Bytes,
    is_cut: bool,
}

impl Listings {
    /// `memory` has [`MEMORY`] permits and is that of all workers.
    pub(super) fn new(root: Arc<Root>, memory: Arc<Semaphore>) -> Self {
        Self { root, turns: Arc::new(Semaphore::new(AT_ONCE)), memory }
    }

    /// The listing of a folder; `None` where too many are being made.
    async fn make(&self, place: Place<'_>, view: View) -> Option<Result<Made, OpenError>> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.ok()?.ok()?;
        let (root, path, is_bare_root) = (Arc::clone(&self.root), place.path.to_owned(), place.is_bare_root);
        let making = actix_rt::task::spawn_blocking(move || {
            // It is held as long as the thread is, even if the client is gone.
            let _turn = turn;
            let mut entries = folder::read(&root, &path)?;
            folder::sort(&mut entries.list, view);
            let body = match view.form {
                Form::Html => page::html(Place { path: &path, is_bare_root }, view, &entries),
                Form::Json => page::json(&entries),
            };
            Ok(Made { body, is_cut: entries.is_cut })
        });
        // A task that panics has no result; the folder counts as unreadable.
        Some(making.await.unwrap_or(Err(OpenError::Failed(Errno::IO))))
    }

    fn reserve(&self, body: &Bytes) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(body.len() + OVERHEAD).ok()?;
        Arc::clone(&self.memory).try_acquire_many_owned(bytes).ok()
    }
}

impl Files {
    /// The answer with the listing of a folder.
    pub(super) async fn list(&self, listings: &Listings, request: &Request, path: &[u8]) -> Sent {
        let view = View::of(request.uri().query().unwrap_or_default(), request.headers());
        let place = Place { path, is_bare_root: request.path() == "/" };
        let made = match listings.make(place, view).await {
            Some(Ok(made)) => made,
            Some(Err(error)) => return self.fail(request, path, error),
            None => return self.refuse_listing(),
        };
        let Some(memory) = listings.reserve(&made.body) else { return self.refuse_listing() };
        let is_head = *request.method() == Method::HEAD;
        let in_flight = self.load.begin(Work::Client, if is_head { 0 } else { made.body.len() as u64 });
        let mut answer = Response::with_body(StatusCode::OK, BoxBody::new(made.body));
        let content_type = match view.form {
            Form::Html => "text/html; charset=utf-8",
            Form::Json => "application/json",
        };
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(header::VARY, HeaderValue::from_static("Accept"));
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if made.is_cut {
            fields.insert(LISTING_LIMIT, HeaderValue::from(folder::MOST_SHOWN));
            self.counters.listings_cut.fetch_add(1, Relaxed);
        }
        Sent { answer, flight: Flight::Own(in_flight), memory: Some(memory) }
    }

    fn refuse_listing(&self) -> Sent {
        self.counters.listings_refused.fetch_add(1, Relaxed);
        self.refuse(StatusCode::SERVICE_UNAVAILABLE).into()
    }
}
