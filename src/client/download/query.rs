//! Requests to the address given by the user: a balancer names servers, a server answers with the file.

use std::time::Duration;

use futures_util::FutureExt;
use rand::RngExt;
use tokio::time::Instant;
use url::Url;

use super::super::address;
use super::super::checksum::Checksum;
use super::super::error::DownloadError;
use super::super::event::{Event, WaitStep};
use super::super::identity::{self, Authority};
use super::super::link;
use super::super::plan::{RunFailure, SourceId};
use super::super::redirect::RedirectChain;
use super::countdown::Countdown;
use super::engine::Engine;
use super::fetch::{FetchError, Hop, Opened, RangeRequest, Shown};
use super::{FileOrigin, Unavailable};

/// Wait after a 503 without `Retry-After`.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Result of a request to the address given by the user.
pub(super) enum QueryOutcome {
    Redirect {
        chain: RedirectChain,
        mirrors: Vec<link::Mirror>,
        digest: Option<Checksum>,
        shown: Shown,
    },
    Direct {
        chain: RedirectChain,
        opened: Box<Opened>,
        wanted: RangeRequest,
        began: Instant,
    },
    Failed(FetchError),
    Silent,
    /// One more second of the wait after a 503 has passed.
    Waiting(Countdown),
    /// The wait after a 503 is over.
    Waited,
}

impl Engine<'_> {
    pub(super) fn query_balancer(&mut self) {
        let FileOrigin::Address(url) = &self.job.origin else { return };
        let mut chain = RedirectChain::new(url.clone(), self.context.options.max_redirects);
        let gap = self.plan.missing().iter().next();
        let wanted = match gap {
            Some(range) if range.start > 0 && self.is_of_address(url) => RangeRequest {
                range,
                size: self.plan.size(),
                validator: self.identity.validator().map(ToOwned::to_owned),
            },
            _ => RangeRequest::everything(),
        };
        let failed: Vec<SourceId> = self.sources.ids().filter(|id| !self.plan.is_trusted(*id)).collect();
        let avoid = self.sources.authorities(failed.into_iter());
        let headers = if avoid.is_empty() { Vec::new() } else { vec![("Fingerpost-Avoid", avoid)] };
        let fetcher = self.fetcher.clone();
        let plan = &self.context.options.plan;
        // Until a server is known, the address itself is the only source.
        let timeout = if self.sources.is_empty() { plan.drop_lone_after() } else { plan.drop_after };
        self.queries = self.queries.saturating_add(1);
        let request = async move {
            let began = Instant::now();
            let mut wanted = wanted;
            let mut hop = tokio::time::timeout(timeout, fetcher.hop(&mut chain, &wanted, &headers)).await;
            let is_about_the_part =
                matches!(&hop, Ok(Err(error)) if error.failure() == RunFailure::NoRanges) && wanted.is_part();
            if is_about_the_part {
                wanted = RangeRequest::everything();
                hop = tokio::time::timeout(timeout, fetcher.hop(&mut chain, &wanted, &headers)).await;
            }
            match hop {
                Err(_) => QueryOutcome::Silent,
                Ok(Err(error)) => QueryOutcome::Failed(error),
                Ok(Ok(Hop::Opened(opened))) => QueryOutcome::Direct { chain, opened, wanted, began },
                Ok(Ok(Hop::Redirect(answer, shown))) => {
                    let mirrors = link::mirrors(chain.previous(), answer.head.all("link"));
                    let digest = identity::digest_of_target(&answer.head);
                    answer.finish();
                    QueryOutcome::Redirect { chain, mirrors, digest, shown }
                }
            }
        };
        self.query = Some(request.boxed_local());
    }

    pub(super) fn on_query_outcome(&mut self, outcome: QueryOutcome) -> Result<(), DownloadError> {
        let now = Instant::now();
        match outcome {
            QueryOutcome::Redirect { chain, mirrors, digest, shown } => {
                let to = chain.end();
                self.observer.notice(&Event::Redirected { head: &shown.head, page: &shown.page, to });
                if self.identity.digest.is_none() {
                    self.identity.digest = digest.map(|digest| (digest, Authority::Given));
                }
                let others: Vec<RedirectChain> =
                    mirrors.into_iter().map(|mirror| chain.with_end(mirror.url)).collect();
                let before = self.sources.len();
                let resource = self.resource_at(to);
                self.add_source(chain, &resource);
                for other in others {
                    self.add_source(other, &resource);
                }
                let new = self.sources.len().saturating_sub(before);
                self.plan.on_sources_named(new, rand::rng().random(), now);
            }
            QueryOutcome::Direct { chain, opened, wanted, began } => {
                self.plan.set_without_balancer();
                self.plan.on_query_finished(None, rand::rng().random(), now);
                if self.sources.is_empty() {
                    let resource = self.resource_at(chain.end());
                    self.add_source(chain, &resource);
                    let run = self.plan.adopt(SourceId(0), wanted.range, began);
                    if let Some(entry) = self.sources.get(SourceId(0)) {
                        let (url, range) = (entry.chain.end(), wanted.range);
                        self.observer.notice(&Event::Chosen { source: 0, url, range });
                    }
                    self.begin(run, SourceId(0), wanted, began);
                    self.judge(run, *opened, now)?;
                }
            }
            QueryOutcome::Failed(error) => return self.query_failed(error, now),
            QueryOutcome::Silent => {
                let url = match &self.job.origin {
                    FileOrigin::Address(url) => url.to_string(),
                    FileOrigin::Mirrors { .. } => String::new(),
                };
                let plan = &self.context.options.plan;
                let is_lone = self.sources.is_empty();
                let after = if is_lone { plan.drop_lone_after() } else { plan.drop_after };
                let error = DownloadError::Silent { url, after };
                if self.sources.is_empty() && !self.context.options.retry_first {
                    return Err(error);
                }
                self.last_error = Some((error, None));
                self.plan.on_query_finished(None, rand::rng().random(), now);
            }
            QueryOutcome::Waiting(countdown) => {
                let left = countdown.left(now);
                self.observer.notice(&Event::Waiting { left, step: WaitStep::Further });
                self.count_down(countdown);
            }
            QueryOutcome::Waited => {
                self.plan.reset_query_failures();
                self.plan.on_query_finished(Some(Duration::ZERO), 0.0, now);
            }
        }
        Ok(())
    }

    /// Whether the known validators belong to `requested` or to an address that it redirects to.
    fn is_of_address(&self, requested: &Url) -> bool {
        self.identity.resource.split(' ').next() == Some(&address::shown(requested))
    }

    /// The resource at `named`, the target of a redirect from the requested address. The mirrors of that
    /// redirect have the same resource.
    fn resource_at(&self, named: &Url) -> String {
        match &self.job.origin {
            FileOrigin::Address(requested) => identity::resource(requested, named),
            FileOrigin::Mirrors { .. } => String::new(),
        }
    }

    fn query_failed(&mut self, error: FetchError, now: Instant) -> Result<(), DownloadError> {
        let failure = error.failure();
        let retry_after = match failure {
            RunFailure::Passing { retry_after } => retry_after,
            _ => None,
        };
        let is_unavailable = matches!(error, FetchError::Refused { status: 503, .. });
        let (error, shown) = error.into_error();
        if is_unavailable && self.context.options.unavailable == Unavailable::Wait {
            if let Some(shown) = &shown {
                self.observer.notice(&Event::Refused { head: &shown.head, page: &shown.page });
            }
            self.wait(retry_after.unwrap_or(DEFAULT_WAIT));
            return Ok(());
        }
        let may_pass = matches!(failure, RunFailure::Passing { .. });
        if self.sources.is_empty() && !(self.context.options.retry_first && may_pass) {
            if let Some(shown) = &shown {
                self.observer.notice(&Event::Refused { head: &shown.head, page: &shown.page });
            }
            return Err(error);
        }
        self.last_error.get_or_insert((error, shown));
        self.plan.on_query_finished(retry_after, rand::rng().random(), now);
        Ok(())
    }

    /// Waits before the next request to the balancer, and shows a countdown.
    fn wait(&mut self, wait: Duration) {
        let now = Instant::now();
        let countdown = Countdown::new(wait, now);
        self.observer.notice(&Event::Waiting { left: countdown.left(now), step: WaitStep::First });
        self.count_down(countdown);
    }

    fn count_down(&mut self, countdown: Countdown) {
        let ticking = async move {
            if countdown.tick().await { QueryOutcome::Waiting(countdown) } else { QueryOutcome::Waited }
        };
        self.query = Some(ticking.boxed_local());
    }
}
