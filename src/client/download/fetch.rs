//! One request for the file or a part of it: follows redirects and validates the head of the answer.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;
use url::Url;

use crate::client::address::Credentials;
use crate::client::error::DownloadError;
use crate::client::event::Page;
use crate::client::metalink;
use crate::client::observed::{ContentRange, Observed, is_coded};
use crate::client::plan::{AnswerFacts, Extent, Failure, RangeRequest, RunFailure};
use crate::client::range::ByteRange;
use crate::client::redirect::RedirectChain;
use crate::http::client::head::{Framing, Head};
use crate::http::client::{Answer, HttpClient, Method, Request, TransportError};

/// The `User-Agent` of the client.
const USER_AGENT: &str = concat!("fingerpost/", env!("CARGO_PKG_VERSION"));

/// Maximum number of bytes of a redirect or error page that is kept for display.
const MAX_PAGE_BYTES: usize = 64 * 1024;

/// Timeout for the page of an error.
const ERROR_PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for the page of a redirect, for which the download waits.
const REDIRECT_PAGE_TIMEOUT: Duration = Duration::from_millis(200);

/// Sends one HTTP request.
pub(in crate::client) trait SendRequest {
    /// Sends `request` and waits for the head of the answer.
    fn send(&self, request: Request) -> LocalBoxFuture<'static, Result<Box<dyn Response>, TransportError>>;
}

/// An answer. Dropping it ends the exchange.
pub(in crate::client) trait Response {
    /// The head of the answer.
    fn head(&self) -> &Head;
    /// The next bytes of the body, at least one. `None` once it is complete.
    fn chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Bytes>, TransportError>>;
}

impl SendRequest for HttpClient {
    fn send(&self, request: Request) -> LocalBoxFuture<'static, Result<Box<dyn Response>, TransportError>> {
        let client = self.clone();
        async move {
            let answer = HttpClient::send(&client, &request).await?;
            Ok(Box::new(answer) as Box<dyn Response>)
        }
        .boxed_local()
    }
}

impl Response for Answer {
    fn head(&self) -> &Head {
        &self.head
    }

    fn chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Bytes>, TransportError>> {
        Answer::chunk(self).boxed_local()
    }
}

/// Adds `Range` and, if a validator is known, `If-Range`, so that a part of a changed file is not sent
/// (RFC 9110, section 13.1.5).
fn with_range(request: Request, wanted: &RangeRequest) -> Request {
    if !wanted.is_part() {
        return request;
    }
    let start = wanted.range.start;
    let is_open = wanted.range.end >= wanted.size.unwrap_or(u64::MAX);
    let range = if is_open {
        format!("bytes={start}-")
    } else {
        format!("bytes={start}-{}", wanted.range.end.saturating_sub(1))
    };
    let request = request.with("Range", range);
    match &wanted.validator {
        Some(validator) => request.with("If-Range", validator.clone()),
        None => request,
    }
}

/// An answer with the file or a part of it.
pub(super) struct Opened {
    pub(super) facts: AnswerFacts,
    pub(super) answer: Box<dyn Response>,
}

impl Opened {
    fn new(url: Url, answer: Box<dyn Response>, start: u64, extent: Extent, observed: Observed) -> Self {
        let head = answer.head();
        let is_metalink = head.header("content-type").is_some_and(metalink::is_media_type);
        let refuses_ranges =
            head.header("accept-ranges").is_some_and(|value| value.eq_ignore_ascii_case("none"))
                || is_coded(head);
        let facts = AnswerFacts { url, start, extent, observed, is_metalink, refuses_ranges };
        Self { facts, answer }
    }
}

/// Why a request did not return any bytes of the file.
#[derive(Debug)]
pub(super) struct FetchError {
    pub(super) failure: Failure,
    /// The properties of the file in a 416 with its size.
    pub(super) past_end: Option<Observed>,
}

impl FetchError {
    fn new(kind: RunFailure, error: DownloadError, page: Option<Page>) -> Box<Self> {
        Box::new(Self { failure: Failure { kind, error, page }, past_end: None })
    }

    fn refused(url: &Url, head: &Head, page: Page) -> Box<Self> {
        let kind = match head.status {
            408 | 429 | 500..=599 => {
                RunFailure::Passing { retry_after: head.header("retry-after").and_then(retry_after) }
            }
            // A request without a range may still succeed.
            412 | 416 => RunFailure::NoRanges,
            _ => RunFailure::Final,
        };
        let error = DownloadError::Refused { url: url.to_string(), status: head.status };
        Self::new(kind, error, Some(page))
    }

    fn transport(url: &Url, source: TransportError) -> Box<Self> {
        let kind = match source {
            TransportError::Scheme { .. }
            | TransportError::NoHost(_)
            | TransportError::Proxy(_)
            | TransportError::TrustAnchors(_)
            | TransportError::Request(_)
            | TransportError::Certificate { .. } => RunFailure::Final,
            _ => RunFailure::Passing { retry_after: None },
        };
        Self::new(kind, DownloadError::Transport { url: url.to_string(), source }, None)
    }

    fn bad_range(url: &Url, value: String) -> Box<Self> {
        Self::new(RunFailure::NoRanges, DownloadError::BadRange { url: url.to_string(), value }, None)
    }
}

/// Sends requests on behalf of one download.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) transport: Rc<dyn SendRequest>,
    /// The user's own header lines.
    pub(super) headers: Vec<(String, String)>,
    /// Origin given by the user: credentials are sent to no other.
    pub(super) home: Option<url::Origin>,
    /// Credentials from the addresses given by the user.
    pub(super) credentials: Rc<[Credentials]>,
}

/// The answer to one request, without following redirects.
pub(super) enum Hop {
    /// A redirect; its target is now the end of the chain.
    Redirect(Box<dyn Response>, Page),
    Opened(Box<Opened>),
}

impl Fetcher {
    /// Requests `wanted` from the end of `chain`, following redirects.
    pub(super) async fn open(
        &self,
        mut chain: RedirectChain,
        wanted: RangeRequest,
    ) -> Result<Opened, Box<FetchError>> {
        loop {
            match self.hop(&mut chain, &wanted, &[]).await? {
                Hop::Redirect(..) => {}
                Hop::Opened(opened) => return Ok(*opened),
            }
        }
    }

    /// Sends one request to the end of `chain`, with additional `headers`.
    pub(super) async fn hop(
        &self,
        chain: &mut RedirectChain,
        wanted: &RangeRequest,
        headers: &[(&str, String)],
    ) -> Result<Hop, Box<FetchError>> {
        let url = chain.end().clone();
        let mut request = with_range(self.request(&url, Method::Get), wanted);
        for (name, value) in headers {
            request = request.with(name, value.clone());
        }
        let mut answer = self.send(request).await?;
        match answer.head().status {
            // 203: a proxy on the way changed the answer (RFC 9110, section 15.3.4).
            200 | 203 => Ok(Hop::Opened(Box::new(whole(url, answer)))),
            206 => part(url, answer, wanted).map(|opened| Hop::Opened(Box::new(opened))),
            status => {
                let page = shown(answer.as_mut()).await;
                let head = answer.head();
                if !head.is_redirect() {
                    let mut error = FetchError::refused(&url, head, page);
                    let size = size_past_end(head).filter(|_| status == 416);
                    error.past_end = size.map(|size| Observed::from_head(head, Some(size)));
                    return Err(error);
                }
                match chain.follow(head.header("location")) {
                    Ok(_) => Ok(Hop::Redirect(answer, page)),
                    Err(error) => Err(FetchError::new(RunFailure::Final, error.into(), Some(page))),
                }
            }
        }
    }

    /// Properties of the file from a HEAD request, following redirects; `None` after a failure.
    pub(super) async fn inspect(&self, mut chain: RedirectChain) -> Option<Observed> {
        loop {
            let answer = self.send(self.request(chain.end(), Method::Head)).await.ok()?;
            let head = answer.head();
            if head.is_redirect() {
                chain.follow(head.header("location")).ok()?;
                continue;
            }
            let size = head.content_length().ok().flatten().filter(|_| matches!(head.status, 200 | 203));
            return Some(Observed::from_head(head, size));
        }
    }

    async fn send(&self, request: Request) -> Result<Box<dyn Response>, Box<FetchError>> {
        let url = request.url.clone();
        self.transport.send(request).await.map_err(|source| FetchError::transport(&url, source))
    }

    fn request(&self, url: &Url, method: Method) -> Request {
        let mut request = Request { method, ..Request::get(url.clone()) };
        let given = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if !given("user-agent") {
            request = request.with("User-Agent", USER_AGENT);
        }
        if !given("accept") {
            request = request.with("Accept", "*/*");
        }
        request = request.with("Want-Repr-Digest", "sha-256=10");
        let is_home = self.home.as_ref() == Some(&url.origin());
        let authorization = self.credentials.iter().find_map(|credentials| credentials.authorization(url));
        if let Some(authorization) = authorization.filter(|_| !(is_home && given("authorization"))) {
            request = request.with("Authorization", authorization);
        }
        for (name, value) in &self.headers {
            let is_secret = ["authorization", "cookie"].iter().any(|own| name.eq_ignore_ascii_case(own));
            if is_home || !is_secret {
                request = request.with(name, value.clone());
            }
        }
        request
    }
}

fn whole(url: Url, answer: Box<dyn Response>) -> Opened {
    let size = if answer.head().is_chunked().unwrap_or(false) {
        None
    } else {
        answer.head().content_length().ok().flatten()
    };
    let observed = Observed::from_head(answer.head(), size);
    Opened::new(url, answer, 0, Extent::Whole, observed)
}

fn part(url: Url, answer: Box<dyn Response>, wanted: &RangeRequest) -> Result<Opened, Box<FetchError>> {
    let value = answer.head().header("content-range").unwrap_or_default().to_owned();
    if !wanted.is_part() {
        // Some servers send 206 to a request for everything.
        return match ContentRange::parse(&value) {
            Some(ContentRange { range: Some(range), size: Some(size) })
                if range == ByteRange::new(0, size) =>
            {
                let observed = Observed::from_head(answer.head(), Some(size));
                Ok(Opened::new(url, answer, 0, Extent::Whole, observed))
            }
            _ => Err(FetchError::bad_range(&url, value)),
        };
    }
    let length = answer.head().content_length().ok().flatten();
    if is_coded(answer.head()) {
        // Positions in a coded body differ from positions in the file.
        return Err(FetchError::bad_range(&url, value + " of a coded body"));
    }
    let range = ContentRange::parse(&value).and_then(|content| {
        let range = content.range?;
        let fits = range.start == wanted.range.start
            && range.end <= wanted.range.end
            && length.is_none_or(|length| length == range.len());
        fits.then_some((range, content.size))
    });
    let Some((range, size)) = range else { return Err(FetchError::bad_range(&url, value)) };
    let observed = Observed::from_head(answer.head(), size.or(wanted.size));
    let extent = Extent::Part { end: range.end };
    Ok(Opened::new(url, answer, range.start, extent, observed))
}

/// The size of the file in a 416 (RFC 9110, section 14.4).
fn size_past_end(head: &Head) -> Option<u64> {
    let content = ContentRange::parse(head.header("content-range")?)?;
    content.size.filter(|_| content.range.is_none())
}

/// The head and page of an answer without the file, as far as the page is received in time.
async fn shown(answer: &mut dyn Response) -> Page {
    let head = Bytes::copy_from_slice(answer.head().raw());
    let mut page = BytesMut::new();
    let timeout = if answer.head().is_redirect() { REDIRECT_PAGE_TIMEOUT } else { ERROR_PAGE_TIMEOUT };
    let is_shown = match answer.head().framing() {
        // The download does not need the page of a redirect: it is read only if it is short.
        Ok(Framing::Length(length)) => !answer.head().is_redirect() || length <= MAX_PAGE_BYTES as u64,
        Ok(Framing::UntilClose) => !answer.head().is_redirect() || !answer.head().keeps_alive(),
        Ok(Framing::Chunked) | Err(_) => true,
    };
    let deadline = Instant::now() + timeout;
    while is_shown && page.len() < MAX_PAGE_BYTES {
        let Ok(Ok(Some(bytes))) = tokio::time::timeout_at(deadline, answer.chunk()).await else { break };
        let room = MAX_PAGE_BYTES.saturating_sub(page.len());
        page.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }
    Page { head, body: page.freeze() }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}
