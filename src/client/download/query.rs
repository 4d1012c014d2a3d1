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
use super::super::plan::{Failure, SourceId};
use super::super::redirect::Trail;
use super::countdown::Countdown;
use super::engine::Engine;
use super::fetch::{Hop, OpenError, Opened, Shown, Wanted};
use super::{Origin, Unavailable};

/// Wait after a 503 without `Retry-After`.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Result of a request to the address given by the user.
pub(super) enum AskOutcome {
    Redirect {
        trail: Trail,
        mirrors: Vec<link::Mirror>,
        digest: Option<Checksum>,
        shown: Shown,
    },
    Direct {
        trail: Trail,
        opened: Box<Opened>,
        wanted: Wanted,
        began: Instant,
    },
    Failed(OpenError),
    Silent,
    /// One more second of the wait after a 503 has passed.
    Waiting(Countdown),
    /// The wait after a 503 is over.
    Waited,
}

impl Engine<'_> {
    pub(super) fn ask(&mut self) {
        let Origin::Address(url) = &self.job.origin else { return };
        let mut trail = Trail::new(url.clone(), self.context.options.max_redirects);
        let gap = self.plan.missing().iter().next();
        let wanted = match gap {
            Some(range) if range.start > 0 && self.is_of_address(url) => Wanted {
                range,
                size: self.plan.size(),
                validator: self.identity.validator().map(ToOwned::to_owned),
            },
            _ => Wanted::everything(),
        };
        let failed: Vec<SourceId> = self.sources.ids().filter(|id| !self.plan.is_trusted(*id)).collect();
        let avoid = self.sources.authorities(failed.into_iter());
        let headers = if avoid.is_empty() { Vec::new() } else { vec![("Fingerpost-Avoid", avoid)] };
        let fetcher = self.fetcher.clone();
        let plan = &self.context.options.plan;
        // Until a server is known, the address itself is the only source.
        let patience = if self.sources.is_empty() { plan.drop_lone_after() } else { plan.drop_after };
        self.asked = self.asked.saturating_add(1);
        let asking = async move {
            let began = Instant::now();
            let mut wanted = wanted;
            let mut hop = tokio::time::timeout(patience, fetcher.hop(&mut trail, &wanted, &headers)).await;
            let is_about_the_part =
                matches!(&hop, Ok(Err(error)) if error.failure() == Failure::NoRanges) && wanted.is_part();
            if is_about_the_part {
                wanted = Wanted::everything();
                hop = tokio::time::timeout(patience, fetcher.hop(&mut trail, &wanted, &headers)).await;
            }
            match hop {
                Err(_) => AskOutcome::Silent,
                Ok(Err(error)) => AskOutcome::Failed(error),
                Ok(Ok(Hop::Opened(opened))) => AskOutcome::Direct { trail, opened, wanted, began },
                Ok(Ok(Hop::Redirect(answer, shown))) => {
                    let mirrors = link::mirrors(trail.previous(), answer.head.all("link"));
                    let digest = identity::digest_of_target(&answer.head);
                    answer.finish();
                    AskOutcome::Redirect { trail, mirrors, digest, shown }
                }
            }
        };
        self.asking = Some(asking.boxed_local());
    }

    pub(super) fn take_answer(&mut self, outcome: AskOutcome) -> Result<(), DownloadError> {
        let now = Instant::now();
        match outcome {
            AskOutcome::Redirect { trail, mirrors, digest, shown } => {
                let to = trail.end();
                self.observer.notice(&Event::Redirected { head: &shown.head, page: &shown.page, to });
                if self.identity.digest.is_none() {
                    self.identity.digest = digest.map(|digest| (digest, Authority::Given));
                }
                let others: Vec<Trail> =
                    mirrors.into_iter().map(|mirror| trail.turned_to(mirror.url)).collect();
                let before = self.sources.len();
                let resource = self.resource_at(to);
                self.add_source(trail, &resource);
                for other in others {
                    self.add_source(other, &resource);
                }
                let new = self.sources.len().saturating_sub(before);
                self.plan.named(new, rand::rng().random(), now);
            }
            AskOutcome::Direct { trail, opened, wanted, began } => {
                self.plan.is_without_balancer();
                self.plan.asked(None, rand::rng().random(), now);
                if self.sources.is_empty() {
                    let resource = self.resource_at(trail.end());
                    self.add_source(trail, &resource);
                    let run = self.plan.adopt(SourceId(0), wanted.range, began);
                    if let Some(entry) = self.sources.get(SourceId(0)) {
                        let (url, range) = (entry.trail.end(), wanted.range);
                        self.observer.notice(&Event::Chosen { source: 0, url, range });
                    }
                    self.begin(run, SourceId(0), wanted, began);
                    self.judge(run, *opened, now)?;
                }
            }
            AskOutcome::Failed(error) => return self.asking_failed(error, now),
            AskOutcome::Silent => {
                let url = match &self.job.origin {
                    Origin::Address(url) => url.to_string(),
                    Origin::Mirrors { .. } => String::new(),
                };
                let plan = &self.context.options.plan;
                let is_lone = self.sources.is_empty();
                let after = if is_lone { plan.drop_lone_after() } else { plan.drop_after };
                let error = DownloadError::Silent { url, after };
                if self.sources.is_empty() && !self.context.options.retry_first {
                    return Err(error);
                }
                self.last_error = Some((error, None));
                self.plan.asked(None, rand::rng().random(), now);
            }
            AskOutcome::Waiting(countdown) => {
                let left = countdown.left(now);
                self.observer.notice(&Event::Waiting { left, step: WaitStep::Further });
                self.count_down(countdown);
            }
            AskOutcome::Waited => {
                self.plan.keep_asking();
                self.plan.asked(Some(Duration::ZERO), 0.0, now);
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
            Origin::Address(requested) => identity::resource(requested, named),
            Origin::Mirrors { .. } => String::new(),
        }
    }

    fn asking_failed(&mut self, error: OpenError, now: Instant) -> Result<(), DownloadError> {
        let failure = error.failure();
        let retry_after = match failure {
            Failure::Passing { retry_after } => retry_after,
            _ => None,
        };
        let is_unavailable = matches!(error, OpenError::Refused { status: 503, .. });
        let (error, shown) = error.into_error();
        if is_unavailable && self.context.options.unavailable == Unavailable::Wait {
            if let Some(shown) = &shown {
                self.observer.notice(&Event::Refused { head: &shown.head, page: &shown.page });
            }
            self.wait(retry_after.unwrap_or(DEFAULT_WAIT));
            return Ok(());
        }
        let may_pass = matches!(failure, Failure::Passing { .. });
        if self.sources.is_empty() && !(self.context.options.retry_first && may_pass) {
            if let Some(shown) = &shown {
                self.observer.notice(&Event::Refused { head: &shown.head, page: &shown.page });
            }
            return Err(error);
        }
        self.last_error.get_or_insert((error, shown));
        self.plan.asked(retry_after, rand::rng().random(), now);
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
            if countdown.tick().await { AskOutcome::Waiting(countdown) } else { AskOutcome::Waited }
        };
        self.asking = Some(ticking.boxed_local());
    }
}
