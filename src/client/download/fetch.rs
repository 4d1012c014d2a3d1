//! One request for the file or a part of it: follows redirects and validates the head of the answer.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use url::Url;

use super::super::address::Credentials;
use super::super::error::DownloadError;
use super::super::identity::{ContentRange, Observed, is_coded};
use super::super::plan::{ByteRange, RunFailure};
use super::super::redirect::{RedirectChain, RedirectError};
use crate::http::client::head::Framing;
use crate::http::client::{Answer, HttpClient, Method, Request, TransportError};

/// Maximum number of bytes of a redirect or error page that is kept for display.
const MAX_PAGE_BYTES: usize = 64 * 1024;

/// Timeout for the page of an error.
const ERROR_PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum delay of the download by the page of a redirect.
const REDIRECT_PAGE_TIMEOUT: Duration = Duration::from_millis(200);

/// The bytes that a request asks for.
#[derive(Debug, Clone)]
pub(super) struct RangeRequest {
    /// The bytes; the end is `u64::MAX` if it is unknown.
    pub(super) range: ByteRange,
    /// The size of the file, if known.
    pub(super) size: Option<u64>,
    /// Validator for `If-Range`: the server sends a part only if the file still has it.
    pub(super) validator: Option<String>,
}

impl RangeRequest {
    /// The whole of a file of unknown size.
    pub(super) fn everything() -> Self {
        Self { range: ByteRange::new(0, u64::MAX), size: None, validator: None }
    }

    pub(super) fn is_part(&self) -> bool {
        self.range.start > 0 || self.range.end < self.size.unwrap_or(u64::MAX)
    }

    /// Adds `Range` and, if a validator is known, `If-Range`, so that a part of a changed file is not sent
    /// (RFC 9110, section 13.1.5).
    fn apply(&self, request: Request) -> Request {
        if !self.is_part() {
            return request;
        }
        let start = self.range.start;
        let is_open = self.range.end >= self.size.unwrap_or(u64::MAX);
        let range = if is_open {
            format!("bytes={start}-")
        } else {
            format!("bytes={start}-{}", self.range.end.saturating_sub(1))
        };
        let request = request.with("Range", range);
        match &self.validator {
            Some(validator) => request.with("If-Range", validator.clone()),
            None => request,
        }
    }
}

/// An answer with the file or a part of it.
#[derive(Debug)]
pub(super) struct Opened {
    /// The address that answered, after all redirects.
    pub(super) url: Url,
    pub(super) answer: Answer,
    /// The position in the file of the first byte of the body.
    pub(super) start: u64,
    pub(super) extent: Extent,
    pub(super) observed: Observed,
}

/// How much of the file the body contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The whole file.
    Whole,
    /// A part up to `end`; the file may be longer.
    Part { end: u64 },
}

/// An answer that is displayed: a redirect or an error.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) head: Bytes,
    pub(super) page: Bytes,
}

/// Why a request did not return any bytes of the file.
#[derive(Debug)]
pub(super) enum FetchError {
    Transport {
        url: Box<Url>,
        source: TransportError,
    },
    Redirect {
        error: RedirectError,
        shown: Shown,
    },
    Refused {
        url: Box<Url>,
        status: u16,
        retry_after: Option<Duration>,
        shown: Shown,
    },
    BadRange {
        url: Box<Url>,
        value: String,
    },
    /// A 416 with the size of the file.
    PastEnd {
        url: Box<Url>,
        observed: Box<Observed>,
        shown: Shown,
    },
}

impl FetchError {
    /// The kind of failure for the plan.
    pub(super) fn failure(&self) -> RunFailure {
        match self {
            Self::Transport { source, .. } => match source {
                TransportError::Scheme { .. }
                | TransportError::NoHost(_)
                | TransportError::Proxy(_)
                | TransportError::TrustAnchors(_)
                | TransportError::Request(_)
                | TransportError::Certificate { .. } => RunFailure::Final,
                _ => RunFailure::Passing { retry_after: None },
            },
            Self::Refused { status: 408 | 429 | 500..=599, retry_after, .. } => {
                RunFailure::Passing { retry_after: *retry_after }
            }
            // A request without a range may still succeed.
            Self::Refused { status: 412 | 416, .. } | Self::BadRange { .. } | Self::PastEnd { .. } => {
                RunFailure::NoRanges
            }
            Self::Redirect { .. } | Self::Refused { .. } => RunFailure::Final,
        }
    }

    /// The error for the user, and the answer to display.
    pub(super) fn into_error(self) -> (DownloadError, Option<Shown>) {
        match self {
            Self::Transport { url, source } => {
                (DownloadError::Transport { url: url.to_string(), source }, None)
            }
            Self::Redirect { error, shown } => (error.into(), Some(shown)),
            Self::Refused { url, status, shown, .. } => {
                (DownloadError::Refused { url: url.to_string(), status }, Some(shown))
            }
            Self::PastEnd { url, shown, .. } => {
                (DownloadError::Refused { url: url.to_string(), status: 416 }, Some(shown))
            }
            Self::BadRange { url, value } => (DownloadError::BadRange { url: url.to_string(), value }, None),
        }
    }
}

/// Sends requests on behalf of one download.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    pub(super) transport: HttpClient,
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
    Redirect(Box<Answer>, Shown),
    Opened(Box<Opened>),
}

impl Fetcher {
    /// Requests `wanted` from the end of `chain`, following redirects.
    pub(super) async fn open(
        &self,
        mut chain: RedirectChain,
        wanted: RangeRequest,
    ) -> Result<Opened, FetchError> {
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
    ) -> Result<Hop, FetchError> {
        let url = chain.end().clone();
        let mut request = wanted.apply(self.request(&url, Method::Get));
        for (name, value) in headers {
            request = request.with(name, value.clone());
        }
        let mut answer = self.send(&request).await?;
        match answer.head.status {
            // 203: a proxy on the way changed the answer (RFC 9110, section 15.3.4).
            200 | 203 => Ok(Hop::Opened(Box::new(whole(url, answer)))),
            206 => part(url, answer, wanted).map(|opened| Hop::Opened(Box::new(opened))),
            status => {
                let shown = shown(&mut answer).await;
                if let (416, Some(size)) = (status, size_past_end(&answer)) {
                    let observed = Box::new(Observed::from_head(&answer.head, Some(size)));
                    return Err(FetchError::PastEnd { url: Box::new(url), observed, shown });
                }
                if !answer.head.is_redirect() {
                    let retry_after = answer.head.header("retry-after").and_then(retry_after);
                    return Err(FetchError::Refused { url: Box::new(url), status, retry_after, shown });
                }
                match chain.follow(answer.head.header("location")) {
                    Ok(_) => Ok(Hop::Redirect(Box::new(answer), shown)),
                    Err(error) => Err(FetchError::Redirect { error, shown }),
                }
            }
        }
    }

    /// Properties of the file from a HEAD request, following redirects.
    pub(super) async fn inspect(&self, mut chain: RedirectChain) -> Result<Observed, FetchError> {
        loop {
            let url = chain.end().clone();
            let answer = self.send(&self.request(&url, Method::Head)).await?;
            if answer.head.is_redirect() {
                let shown = Shown { head: Bytes::copy_from_slice(answer.head.raw()), page: Bytes::new() };
                chain
                    .follow(answer.head.header("location"))
                    .map_err(|error| FetchError::Redirect { error, shown })?;
                answer.finish();
                continue;
            }
            let size = answer
                .head
                .content_length()
                .ok()
                .flatten()
                .filter(|_| matches!(answer.head.status, 200 | 203));
            let observed = Observed::from_head(&answer.head, size);
            answer.finish();
            return Ok(observed);
        }
    }

    async fn send(&self, request: &Request) -> Result<Answer, FetchError> {
        let failed = |source| FetchError::Transport { url: Box::new(request.url.clone()), source };
        self.transport.send(request).await.map_err(failed)
    }

    fn request(&self, url: &Url, method: Method) -> Request {
        let mut request = Request { method, ..Request::get(url.clone()) };
        let given = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if !given("user-agent") {
            request = request.with("User-Agent", super::super::USER_AGENT);
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

fn whole(url: Url, answer: Answer) -> Opened {
    let size = if answer.head.is_chunked().unwrap_or(false) {
        None
    } else {
        answer.head.content_length().ok().flatten()
    };
    let observed = Observed::from_head(&answer.head, size);
    Opened { url, answer, start: 0, extent: Extent::Whole, observed }
}

fn part(url: Url, answer: Answer, wanted: &RangeRequest) -> Result<Opened, FetchError> {
    let value = answer.head.header("content-range").unwrap_or_default().to_owned();
    if !wanted.is_part() {
        // Some servers send 206 to a request for everything.
        return match ContentRange::parse(&value) {
            Some(ContentRange { range: Some(range), size: Some(size) })
                if range == ByteRange::new(0, size) =>
            {
                Ok(Opened { observed: Observed::from_head(&answer.head, Some(size)), ..whole(url, answer) })
            }
            _ => Err(FetchError::BadRange { url: Box::new(url), value }),
        };
    }
    let length = answer.head.content_length().ok().flatten();
    if is_coded(&answer.head) {
        // Positions in a coded body differ from positions in the file.
        return Err(FetchError::BadRange { url: Box::new(url), value: value + " of a coded body" });
    }
    let range = ContentRange::parse(&value).and_then(|content| {
        let range = content.range?;
        let fits = range.start == wanted.range.start
            && range.end <= wanted.range.end
            && length.is_none_or(|length| length == range.len());
        fits.then_some((range, content.size))
    });
    let Some((range, size)) = range else { return Err(FetchError::BadRange { url: Box::new(url), value }) };
    let observed = Observed::from_head(&answer.head, size.or(wanted.size));
    let extent = Extent::Part { end: range.end };
    Ok(Opened { url, answer, start: range.start, extent, observed })
}

/// The size of the file in a 416 (RFC 9110, section 14.4).
fn size_past_end(answer: &Answer) -> Option<u64> {
    let content = ContentRange::parse(answer.head.header("content-range")?)?;
    content.size.filter(|_| content.range.is_none())
}

/// The head and page of an answer without the file, as far as the page is received in time.
async fn shown(answer: &mut Answer) -> Shown {
    let head = Bytes::copy_from_slice(answer.head.raw());
    let mut page = BytesMut::new();
    let timeout = if answer.head.is_redirect() { REDIRECT_PAGE_TIMEOUT } else { ERROR_PAGE_TIMEOUT };
    let is_shown = match answer.head.framing() {
        // The download does not need the page of a redirect: it is read only if it is short.
        Ok(Framing::Length(length)) => !answer.head.is_redirect() || length <= MAX_PAGE_BYTES as u64,
        Ok(Framing::UntilClose) => !answer.head.is_redirect() || !answer.head.keeps_alive(),
        Ok(Framing::Chunked) | Err(_) => true,
    };
    let deadline = Instant::now() + timeout;
    while is_shown && page.len() < MAX_PAGE_BYTES {
        let Ok(Ok(Some(bytes))) = tokio::time::timeout_at(deadline, answer.chunk()).await else { break };
        let room = MAX_PAGE_BYTES.saturating_sub(page.len());
        page.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }
    Shown { head, page: page.freeze() }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}
