//! Listings: the content of a folder without an index, as a page or as JSON.
//!
//! - [`view`]: the requested order and format.
//! - [`folder`]: the entries and their order.
//! - [`page`]: formats them as a page or as JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Method, StatusCode};
use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::file_state::OpenError;
use super::files::Files;
use super::load::{Flight, RequestKind};
use super::root::Root;
use super::sending::FileAnswer;

mod folder;
mod page;
mod view;

use page::ListingContext;
use view::{ListingFormat, View};

/// Maximum number of listings that one worker makes at a time, so that other threads of its pool stay free for files.
const AT_ONCE: usize = 1;

/// Maximum time that a request waits for another listing.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Limit of the memory of listings that are being sent, over all workers, in bytes. The largest listing needs half of
/// it.
pub(super) const MEMORY: usize = 64 << 20;

/// Memory that a listing needs in addition to its text, in bytes.
const OVERHEAD: usize = 1024;

/// Header of an incomplete listing, with the maximum number of entries. The JSON format has no field for it.
const LISTING_LIMIT: HeaderName = HeaderName::from_static("listing-limit");

/// Makes the listings of one worker.
#[derive(Debug)]
pub(super) struct Listings {
    root: Arc<Root>,
    turns: Arc<Semaphore>,
    /// A permit for each byte, shared by all workers.
    memory: Arc<Semaphore>,
}

/// A listing, and whether it is complete.
struct Listing {
    body: Bytes,
    is_cut: bool,
}

impl Listings {
    /// `memory` has [`MEMORY`] permits and is shared by all workers.
    pub(super) fn new(root: Arc<Root>, memory: Arc<Semaphore>) -> Self {
        Self { root, turns: Arc::new(Semaphore::new(AT_ONCE)), memory }
    }

    /// Makes the listing of a folder. `None` if too many others are being made.
    async fn make(&self, place: ListingContext<'_>, view: View) -> Option<Result<Listing, OpenError>> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.ok()?.ok()?;
        let (root, path, is_bare_root) = (Arc::clone(&self.root), place.path.to_owned(), place.is_bare_root);
        let making = actix_rt::task::spawn_blocking(move || {
            // The permit is held until the thread has finished, even if the client has disconnected.
            let _turn = turn;
            let entries = folder::read(&root, &path, view)?;
            let place = ListingContext { path: &path, is_bare_root };
            let body = match view.form {
                ListingFormat::Html => page::html(place, view, &entries),
                ListingFormat::Json => page::json(place, &entries),
            };
            Ok(Listing { body, is_cut: entries.is_cut })
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
    pub(super) async fn list(
        &self,
        listings: &Listings,
        request: &mut ServiceRequest,
        prefix: &str,
        path: &[u8],
    ) -> FileAnswer {
        let view = View::of(request.uri().query().unwrap_or_default(), request.headers());
        let place = ListingContext { path, is_bare_root: request.path().strip_prefix(prefix) == Some("/") };
        let made = match listings.make(place, view).await {
            Some(Ok(made)) => made,
            Some(Err(error)) => return self.fail(request, path, error),
            None => return self.refuse_listing(),
        };
        let Some(memory) = listings.reserve(&made.body) else { return self.refuse_listing() };
        let is_head = *request.method() == Method::HEAD;
        let in_flight =
            self.shared.load.begin(RequestKind::Client, if is_head { 0 } else { made.body.len() as u64 });
        let mut answer = HttpResponse::with_body(StatusCode::OK, BoxBody::new(made.body));
        let content_type = match view.form {
            ListingFormat::Html => "text/html; charset=utf-8",
            ListingFormat::Json => "application/json",
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
        FileAnswer { flight: Flight::Own(in_flight), memory: Some(memory), ..answer.into() }
    }

    fn refuse_listing(&self) -> FileAnswer {
        self.counters.listings_refused.fetch_add(1, Relaxed);
        self.refuse(StatusCode::SERVICE_UNAVAILABLE).into()
    }
}
