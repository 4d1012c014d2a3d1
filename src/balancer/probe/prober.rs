//! One probe: a request of the probe file, with the duration of each phase.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use awc::http::StatusCode;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::balancer::backends::BackendId;
use crate::balancer::expectation::Expectation;
use crate::balancer::health::{FailureKind, ProbeFailure, ProbeOutcome};
use crate::balancer::metrics::ReportMetrics;
use crate::balancer::probe::{ProbePlan, ProbeSettings};
use crate::http::client::head::Head;
use crate::http::client::{Answer, ConnectionUse, HttpClient, Request, TransportError, TransportSettings};
use crate::load_report::{self, LoadReport};
use crate::telemetry::chain;

/// The largest body of a probe answer, in bytes.
pub(crate) const LARGEST_BODY: usize = 1 << 20;

/// The request times out this much later than the connection, so that the reason names the phase that was too slow.
const GRACE: Duration = Duration::from_millis(5);

/// Probes one backend. Not `Send`, because the client of awc is not.
pub(crate) struct Prober {
    transport: HttpClient,
    /// `None` if backend and path do not form a URL.
    request: Option<Request>,
    timeout: Duration,
    reports: ReportMetrics,
    expectation: Option<Arc<Expectation>>,
}

impl Prober {
    /// A prober that requests the path of `plan` below `backend` and expects this content.
    ///
    /// Each probe opens a new connection and sends `Connection: close`. It so measures the latency of a new client, and a
    /// server that closes idle connections causes no failed probe.
    pub(crate) fn new(backend: &BackendId, plan: &ProbePlan, expectation: Option<Arc<Expectation>>) -> Self {
        let ProbeSettings { path, timeout, trust, .. } = plan.settings();
        let settings = TransportSettings {
            connect_timeout: *timeout,
            trust: trust.clone(),
            ..TransportSettings::default()
        };
        let request = Url::parse(&format!("{backend}{path}")).ok().map(|url| Request {
            connection: ConnectionUse::Single,
            ..Request::get(url).with("User-Agent", concat!("fingerpost/", env!("CARGO_PKG_VERSION")))
        });
        Self {
            transport: HttpClient::with_resolver(settings, plan.resources.resolver.clone()),
            request,
            timeout: *timeout,
            reports: plan.resources.reports.clone(),
            expectation,
        }
    }

    /// Requests the probe file once. Only a 200 with a complete body is a success.
    pub(crate) async fn probe(&self) -> ProbeOutcome {
        self.exchange().await.unwrap_or_else(ProbeOutcome::Failure)
    }

    async fn exchange(&self) -> Result<ProbeOutcome, ProbeFailure> {
        let Some(request) = &self.request else {
            return Err(failure(FailureKind::Prober, "backend and probe_path do not form a URL"));
        };
        let started = Instant::now();
        let deadline = started + self.timeout;
        let mut answer = match timeout_at(deadline + GRACE, self.transport.send(request)).await {
            Ok(answer) => answer.map_err(|error| probe_failure(&error))?,
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

    fn timed_out(&self, phase: &str) -> ProbeFailure {
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
                tracing::debug!(url, %error, "load report ignored");
                None
            }
        }
    }
}

/// Reads the body to its end. Appends it to `body` if the caller needs the content.
async fn read_whole(answer: &mut Answer, mut body: Option<&mut Vec<u8>>) -> Result<(), ProbeFailure> {
    let mut read: usize = 0;
    while let Some(bytes) = answer.chunk().await.map_err(|error| probe_failure(&error))? {
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

/// Converts an error of the request to a failed probe. A lack of resources on this machine is a failure of the prober, not
/// of the backend.
fn probe_failure(error: &TransportError) -> ProbeFailure {
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
        // The kind is the whole reason.
        _ if kind == FailureKind::Refused => String::new(),
        // Only the cause: the text of the error repeats the kind or the name of the backend.
        TransportError::Resolve { source, .. } => source.to_string(),
        TransportError::Connect { source, .. }
        | TransportError::Certificate { source, .. }
        | TransportError::Tls { source, .. } => source.to_string(),
        error => chain(error),
    };
    failure(kind, detail)
}

fn failure(kind: FailureKind, detail: impl Into<String>) -> ProbeFailure {
    ProbeFailure { kind, detail: detail.into() }
}
