//! Requests to the address given by the user: a balancer names servers, a server answers with the file.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use rand::RngExt;
use tokio::time::Instant;
use url::Url;

use super::countdown::Countdown;
use super::fetch::{Fetcher, Hop, Opened};
use super::{Options, Unavailable};
use crate::client::checksum::Checksum;
use crate::client::error::DownloadError;
use crate::client::event::{Event, Observer, Page, WaitStep};
use crate::client::link::{self, Mirror};
use crate::client::observed;
use crate::client::plan::{DownloadPlan, Failure, RangeRequest, RunFailure};
use crate::client::redirect::RedirectChain;

/// Wait after a 503 without `Retry-After`.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Result of a request to the address given by the user.
pub(super) enum QueryOutcome {
    Redirect {
        chain: RedirectChain,
        mirrors: Vec<Mirror>,
        digest: Option<Checksum>,
        /// A Metalink that describes the file.
        description: Option<Url>,
        page: Page,
    },
    Direct {
        chain: RedirectChain,
        opened: Box<Opened>,
        request: RangeRequest,
        began: Instant,
    },
    Failed(Failure),
    /// One more second of the wait after a 503 has passed.
    Waiting(Countdown),
    /// The wait after a 503 is over.
    Waited,
}

/// The request, or the wait before the next one.
#[derive(Default)]
pub(super) struct AddressQuery {
    current: Option<LocalBoxFuture<'static, QueryOutcome>>,
}

impl AddressQuery {
    /// Sends `request` to the end of `chain`. The sources at the hosts `avoid` were tried.
    pub(super) fn ask(
        &mut self,
        fetcher: Fetcher,
        chain: RedirectChain,
        request: RangeRequest,
        avoid: String,
        timeout: Duration,
    ) {
        let headers = if avoid.is_empty() { Vec::new() } else { vec![("Fingerpost-Avoid", avoid)] };
        self.current = Some(ask(fetcher, chain, request, headers, timeout).boxed_local());
    }

    /// Handles a failed request: it ends the download, or is repeated after a pause.
    pub(super) fn on_failure(
        &mut self,
        plan: &mut DownloadPlan,
        (observer, options): (&dyn Observer, &Options),
        failure: Failure,
        now: Instant,
    ) -> Result<(), DownloadError> {
        let retry_after = match failure.kind {
            RunFailure::Passing { retry_after } => Some(retry_after),
            RunFailure::NoRanges | RunFailure::Final => None,
        };
        let is_unavailable = matches!(failure.error, DownloadError::Refused { status: 503, .. });
        let waits = is_unavailable && options.unavailable == Unavailable::Wait;
        let may_repeat = waits || !plan.sources().is_empty() || options.retry_first && retry_after.is_some();
        if let (DownloadError::Refused { url, status: 404 | 410 }, false) = (&failure.error, may_repeat) {
            return Err(DownloadError::Missing { name: url.clone(), servers: 1 });
        }
        if let Some(page) = failure.page.as_ref().filter(|_| waits || !may_repeat) {
            observer.notice(&Event::Refused { page });
        }
        let retry_after = retry_after.flatten();
        if waits {
            let countdown = Countdown::new(retry_after.unwrap_or(DEFAULT_WAIT), now);
            observer.notice(&Event::Waiting { left: countdown.left(now), step: WaitStep::First });
            self.count_down(countdown);
        } else if may_repeat {
            plan.note_query_failure(failure);
            plan.on_query_finished(retry_after, rand::rng().random(), now);
        } else {
            return Err(failure.error);
        }
        Ok(())
    }

    /// Continues a wait.
    pub(super) fn count_down(&mut self, countdown: Countdown) {
        let ticking = async move {
            if countdown.tick().await { QueryOutcome::Waiting(countdown) } else { QueryOutcome::Waited }
        };
        self.current = Some(ticking.boxed_local());
    }

    /// The next outcome. Never completes without a request or a wait.
    pub(super) async fn next(&mut self) -> QueryOutcome {
        let outcome = match &mut self.current {
            Some(current) => current.await,
            None => std::future::pending().await,
        };
        self.current = None;
        outcome
    }
}

async fn ask(
    fetcher: Fetcher,
    mut chain: RedirectChain,
    mut request: RangeRequest,
    headers: Vec<(&'static str, String)>,
    timeout: Duration,
) -> QueryOutcome {
    let began = Instant::now();
    let mut hop = tokio::time::timeout(timeout, fetcher.hop(&mut chain, &request, &headers)).await;
    let is_about_the_part = matches!(&hop, Ok(Err(error)) if error.failure.kind == RunFailure::NoRanges);
    if is_about_the_part && request.is_part() {
        request = RangeRequest::everything();
        hop = tokio::time::timeout(timeout, fetcher.hop(&mut chain, &request, &headers)).await;
    }
    match hop {
        Err(_) => {
            let url = chain.end().to_string();
            QueryOutcome::Failed(Failure::passing(DownloadError::Silent { url, after: timeout }))
        }
        Ok(Err(error)) => QueryOutcome::Failed(error.failure),
        Ok(Ok(Hop::Opened(opened))) => QueryOutcome::Direct { chain, opened, request, began },
        Ok(Ok(Hop::Redirect(answer, page))) => {
            let mirrors = link::mirrors(chain.previous(), answer.head().all("link"));
            let digest = observed::digest_of_target(answer.head());
            let description = link::description(chain.previous(), answer.head().all("link"));
            QueryOutcome::Redirect { chain, mirrors, digest, description, page }
        }
    }
}
