//! One probe: a fetch of the probe file, timed in its parts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use awc::http::StatusCode;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::balancer::admin::metrics::ReportMetrics;
use crate::balancer::backends::BackendId;
use crate::balancer::expectation::Expectation;
use crate::balancer::health::{Failure, FailureKind, ProbeOutcome};
use crate::balancer::load_report::{self, LoadReport};
use crate::balancer::probe::ProbePlan;
use crate::http::client::head::Head;
use crate::http::client::{Answer, ConnectionUse, Request, Transport, TransportError, TransportSettings};
use crate::telemetry::chain;

/// A probe reads at most this much of a body; the probe file is a line of text.
pub const LARGEST_BODY: usize = 1 << 20;

/// How much later than connecting the whole probe times out, so that the reason names the phase that took so long.
const GRACE: Duration = Duration::from_millis(5);

/// Probes one backend. Stays on one thread, as awc's client does.
pub struct Prober {
    transport: Transport,
    /// `None` if backend and path do not form an address.
    request: Option<Request>,
    timeout: Duration,
    reports: ReportMetrics,
    expectation: Option<Arc<Expectation>>,
}

impl Prober {
    /// A prober that fetches the plan's path below `backend`, and expects this content.
    ///
    /// Each probe opens a connection of its own and asks the server to close it, so that it measures what a new
    /// client would experience, and a server that closes without notice does no harm.
    #[must_use]
    pub fn new(backend: &BackendId, plan: &ProbePlan, expectation: Option<Arc<Expectation>>) -> Self {
        let settings = TransportSettings { connect_timeout: plan.timeout, ..TransportSettings::default() };
        let request = Url::parse(&format!("{backend}{}", plan.path)).ok().map(|url| Request {
            connection: ConnectionUse::Single,
            ..Request::get(url).with("User-Agent", concat!("fingerpost/", env!("CARGO_PKG_VERSION")))
        });
        Self {
            transport: Transport::with_resolver(settings, plan.resolver.clone()),
            request,
            timeout: plan.timeout,
            reports: plan.reports.clone(),
            expectation,
        }
    }

    /// Fetches the probe file once. Only a 200 whose whole body arrived is a success.
    pub async fn probe(&self) -> ProbeOutcome {
        self.exchange().await.unwrap_or_else(ProbeOutcome::Failure)
    }

    async fn exchange(&self) -> Result<ProbeOutcome, Failure> {
        let Some(request) = &self.request else {
            return Err(failure(FailureKind::Prober, "probe_path is not part of an address"));
        };
        let started = Instant::now();
        let deadline = started + self.timeout;
        let mut answer = match timeout_at(deadline + GRACE, self.transport.send(request)).await {
            Ok(answer) => answer.map_err(|error| refused(&error))?,
            Err(_) => return Err(self.timed_out("no answer")),
        };
        let first_byte = started.elapsed();
        let report = self.report_of(&answer.head);
        if answer.head.status != 200 {
            let status = answer.head.status;
            let words = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            return Err(failure(FailureKind::Status(status), words.unwrap_or_default()));
        }
        let mut body = self.expectation.is_some().then(Vec::new);
        match timeout_at(deadline, read_whole(&mut answer, body.as_mut())).await {
            Ok(result) => result?,
            Err(_) => return Err(self.timed_out("the body did not end")),
        }
        let total = started.elapsed();
        if let (Some(expectation), Some(body)) = (&self.expectation, &body)
            && !expectation.is_met(body)
        {
            return Err(failure(FailureKind::Content, ""));
        }
        let connect = answer.connecting.unwrap_or_default();
        Ok(ProbeOutcome::Success { connect, first_byte, total, report })
    }

    fn timed_out(&self, phase: &str) -> Failure {
        let waited = humantime::format_duration(self.timeout);
        failure(FailureKind::TimedOut, format!("{phase} within {waited}"))
    }

    fn report_of(&self, head: &Head) -> Option<LoadReport> {
        match load_report::parse(head.header(load_report::HEADER)?.as_bytes()) {
            Ok(parsed) => {
                self.reports.clamped.inc_by(parsed.clamped.into());
                Some(parsed.report)
            }
            Err(error) => {
                self.reports.unreadable.inc();
                let url = self.request.as_ref().map(|request| request.url.as_str());
                tracing::debug!(url, %error, "load report left out");
                None
            }
        }
    }
}

/// Reads the body to its end, into `body` if its content is needed.
async fn read_whole(answer: &mut Answer, mut body: Option<&mut Vec<u8>>) -> Result<(), Failure> {
    let mut read: usize = 0;
    while let Some(bytes) = answer.chunk().await.map_err(|error| refused(&error))? {
        read = read.saturating_add(bytes.len());
        if read > LARGEST_BODY {
            return Err(failure(FailureKind::TooLarge, format!("sent more than {LARGEST_BODY} bytes")));
        }
        if let Some(body) = &mut body {
            body.extend_from_slice(&bytes);
        }
    }
    Ok(())
}

/// What an error of the exchange proves of the backend: nothing, if this machine lacks something.
fn refused(error: &TransportError) -> Failure {
    let kind = match error {
        TransportError::Shortage { .. }
        | TransportError::Request(_)
        | TransportError::Scheme { .. }
        | TransportError::NoHost(_)
        | TransportError::Proxy(_) => FailureKind::Prober,
        TransportError::Resolve { .. } | TransportError::ResolveProxy { .. } => FailureKind::Resolve,
        TransportError::ConnectTimeout { .. } => FailureKind::TimedOut,
        TransportError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => FailureKind::Refused,
            _ => FailureKind::Unreachable,
        },
        TransportError::Certificate { .. } | TransportError::Tls { .. } | TransportError::TrustAnchors(_) => {
            FailureKind::Tls
        }
        TransportError::Send(_)
        | TransportError::Receive(_)
        | TransportError::EmptyReply
        | TransportError::HalfHead
        | TransportError::Body(_) => FailureKind::ClosedEarly,
        TransportError::Head(_) | TransportError::EndlessInterim | TransportError::ProxyRefused { .. } => {
            FailureKind::Malformed
        }
    };
    let detail = match error {
        TransportError::ConnectTimeout { after, .. } => {
            format!("no connection within {}", humantime::format_duration(*after))
        }
        // The kind says it all.
        _ if kind == FailureKind::Refused => String::new(),
        // The text before the cause repeats the kind, or the name of the backend.
        TransportError::Resolve { source, .. } => source.to_string(),
        TransportError::Connect { source, .. }
        | TransportError::Certificate { source, .. }
        | TransportError::Tls { source, .. } => source.to_string(),
        error => chain(error),
    };
    failure(kind, detail)
}

fn failure(kind: FailureKind, detail: impl Into<String>) -> Failure {
    Failure { kind, detail: detail.into() }
}
