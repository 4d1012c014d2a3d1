//! One probe: a fetch of the probe file, timed in its parts.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Uri;
use actix_http::error::PayloadError;
use actix_rt::net::TcpStream;
use actix_service::Service;
use actix_tls::connect::{self, ConnectInfo, Connection};
use awc::error::{ConnectError, SendRequestError};
use awc::http::header;
use awc::{Client, ClientResponse, Connector};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use crate::balancer::admin::metrics::ReportMetrics;
use crate::balancer::backends::BackendId;
use crate::balancer::expectation::Expectation;
use crate::balancer::health::{Failure, FailureKind, ProbeOutcome};
use crate::balancer::load_report::{self, LoadReport};
use crate::balancer::probe::ProbePlan;
use crate::http::tls;
use crate::telemetry::chain;

/// A probe reads at most this much of a body; the probe file is a line of text.
pub const LARGEST_BODY: usize = 1 << 20;

/// Probes one backend. Lives on one thread, as awc's client does.
pub struct Prober {
    client: Client,
    url: String,
    timeout: Duration,
    clock: ConnectClock,
    reports: ReportMetrics,
    expectation: Option<Arc<Expectation>>,
}

/// How far a probe came; says where the time went when it runs out.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Head,
    Body,
}

impl Prober {
    /// A prober that fetches the plan's path below `backend`, and expects this content.
    ///
    /// Each probe opens a connection of its own and asks the server to close it, so that it measures what a new
    /// client would see, and a server that closes without saying so does no harm.
    #[must_use]
    pub fn new(backend: &BackendId, plan: &ProbePlan, expectation: Option<Arc<Expectation>>) -> Self {
        let timeout = plan.timeout;
        // A probe has one time-out, which says what it waited for; those of awc come too late to speak first.
        let late = timeout.saturating_mul(2);
        let clock = ConnectClock::default();
        let mut connector = Connector::new()
            .connector(Timed { inner: connect::Connector::default().service(), clock: clock.clone() })
            .timeout(late)
            .handshake_timeout(late)
            .limit(2);
        if backend.is_https() {
            match tls::client_config() {
                Ok(config) => connector = connector.rustls_0_23(config),
                // Each probe will fail and say so in the status; this line says why.
                Err(error) => tracing::error!(%backend, error = chain(error), "backend cannot be probed"),
            }
        }
        let client = Client::builder()
            .connector(connector)
            .timeout(late)
            .disable_redirects()
            .no_default_headers()
            .add_default_header((header::USER_AGENT, concat!("fingerpost/", env!("CARGO_PKG_VERSION"))))
            .add_default_header((header::ACCEPT_ENCODING, "identity"))
            .finish();
        let (url, reports) = (format!("{backend}{}", plan.path), plan.reports.clone());
        Self { client, url, timeout, clock, reports, expectation }
    }

    /// Fetches the probe file once. Only a 200 whose whole body arrived is a success.
    pub async fn probe(&self) -> ProbeOutcome {
        let phase = Cell::new(Phase::Head);
        match timeout(self.timeout, self.exchange(&phase)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(failure)) => failure,
            Err(_) => {
                let waited = humantime::format_duration(self.timeout);
                let what = match phase.get() {
                    Phase::Head if self.clock.took.get().is_none() => "no connection",
                    Phase::Head => "no answer",
                    Phase::Body => "the body did not end",
                };
                failure(FailureKind::TimedOut, format!("{what} within {waited}"))
            }
        }
    }

    async fn exchange(&self, phase: &Cell<Phase>) -> Result<ProbeOutcome, ProbeOutcome> {
        let started = Instant::now();
        self.clock.took.set(None);
        let mut response =
            self.client.get(&self.url).force_close().send().await.map_err(|error| refused(&error))?;
        let first_byte = started.elapsed();
        phase.set(Phase::Body);
        let report = self.report_of(&response);
        if response.status() != awc::http::StatusCode::OK {
            let status = response.status();
            let words = status.canonical_reason().unwrap_or_default();
            return Err(failure(FailureKind::Status(status.as_u16()), words.to_owned()));
        }
        let mut body = self.expectation.is_some().then(Vec::new);
        read_whole(&mut response, body.as_mut()).await?;
        let total = started.elapsed();
        if let (Some(expectation), Some(body)) = (&self.expectation, &body)
            && !expectation.is_met(body)
        {
            return Err(failure(FailureKind::Content, String::new()));
        }
        let connect = self.clock.took.get().unwrap_or(first_byte);
        Ok(ProbeOutcome::Success { connect, first_byte, total, report })
    }

    fn report_of<S>(&self, response: &ClientResponse<S>) -> Option<LoadReport> {
        let value = response.headers().get(load_report::HEADER)?;
        match load_report::parse(value.as_bytes()) {
            Ok(parsed) => {
                self.reports.clamped.inc_by(parsed.clamped.into());
                Some(parsed.report)
            }
            Err(error) => {
                self.reports.unreadable.inc();
                tracing::debug!(url = self.url, %error, "load report left out");
                None
            }
        }
    }
}

/// Reads the body to its end, into `body` if it is needed, and counts it, since awc takes a connection that closes early for the end.
async fn read_whole<S>(
    response: &mut ClientResponse<S>,
    mut body: Option<&mut Vec<u8>>,
) -> Result<(), ProbeOutcome>
where
    S: futures_util::Stream<Item = Result<bytes::Bytes, PayloadError>> + Unpin,
{
    let announced = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    let mut read: usize = 0;
    while let Some(chunk) = response.next().await {
        let chunk = chunk.map_err(|error| failure(FailureKind::ClosedEarly, error.to_string()))?;
        read = read.saturating_add(chunk.len());
        if read > LARGEST_BODY {
            return Err(failure(FailureKind::TooLarge, format!("sent more than {LARGEST_BODY} bytes")));
        }
        if let Some(body) = &mut body {
            body.extend_from_slice(&chunk);
        }
    }
    match announced {
        Some(length) if length != read as u64 => {
            Err(failure(FailureKind::ClosedEarly, format!("closed after {read} of {length} bytes")))
        }
        _ => Ok(()),
    }
}

fn refused(error: &SendRequestError) -> ProbeOutcome {
    let kind = match error {
        SendRequestError::Timeout | SendRequestError::Connect(ConnectError::Timeout) => FailureKind::TimedOut,
        SendRequestError::Connect(ConnectError::Resolver(_) | ConnectError::NoRecords) => {
            FailureKind::Resolve
        }
        SendRequestError::Connect(ConnectError::SslIsNotSupported) => FailureKind::Tls,
        SendRequestError::Connect(ConnectError::Io(error)) => kind_of(error),
        SendRequestError::Connect(ConnectError::Disconnected) | SendRequestError::Send(_) => {
            FailureKind::ClosedEarly
        }
        SendRequestError::Connect(_) => FailureKind::Unreachable,
        // Nothing was sent.
        SendRequestError::Url(_) | SendRequestError::Http(_) => FailureKind::Prober,
        _ => FailureKind::Malformed,
    };
    let detail = match (kind, error) {
        // The kind says it all.
        (FailureKind::Refused, _) => String::new(),
        // awc's words before the cause repeat the kind.
        (_, SendRequestError::Connect(ConnectError::Resolver(cause))) => cause.to_string(),
        (_, SendRequestError::Connect(ConnectError::Io(cause))) => cause.to_string(),
        (_, error) => error.to_string(),
    };
    failure(kind, detail)
}

fn kind_of(error: &io::Error) -> FailureKind {
    // EMFILE, ENFILE: this process or machine has no descriptor left, which says nothing about the backend.
    let is_ours = matches!(error.raw_os_error(), Some(23 | 24))
        || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse);
    match error.kind() {
        _ if is_ours => FailureKind::Prober,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => FailureKind::Refused,
        io::ErrorKind::InvalidData => FailureKind::Tls,
        _ => FailureKind::Unreachable,
    }
}

fn failure(kind: FailureKind, detail: String) -> ProbeOutcome {
    ProbeOutcome::Failure(Failure { kind, detail })
}

/// How long the latest connect took; written by the connector inside awc, read by the prober around it.
#[derive(Debug, Clone, Default)]
struct ConnectClock {
    took: Rc<Cell<Option<Duration>>>,
}

/// A connector that notes how long a connect took, name resolution included.
#[derive(Clone)]
struct Timed<S> {
    inner: S,
    clock: ConnectClock,
}

impl<S> Service<ConnectInfo<Uri>> for Timed<S>
where
    S: Service<ConnectInfo<Uri>, Response = Connection<Uri, TcpStream>, Error = connect::ConnectError>,
    S::Future: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures_util::future::LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    actix_service::forward_ready!(inner);

    fn call(&self, info: ConnectInfo<Uri>) -> Self::Future {
        let started = Instant::now();
        let clock = self.clock.clone();
        let connecting = self.inner.call(info);
        Box::pin(async move {
            let connection = connecting.await?;
            clock.took.set(Some(started.elapsed()));
            Ok(connection)
        })
    }
}
