//! Requests to the admin listener of a running balancer, for the commands of operators.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::balancer::admin::access;
use crate::cli::AdminArguments;
use crate::configuration;
use crate::http::client::{HttpClient, Request, TransportError, TransportSettings};
use crate::http::tls::Trust;
use crate::telemetry;

/// The variable that names the admin address.
const VARIABLE: &str = "FINGERPOST_ADMIN";

/// The largest answer that is read, in bytes. The table of 100 000 backends has about 40 MB.
const LARGEST_ANSWER: usize = 256 << 20;

/// The time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An error of a command for a running balancer. It is only shown.
pub(crate) type QueryError = Box<dyn Error>;

/// The part of a problem (RFC 9457) for people.
#[derive(Deserialize)]
struct ProblemDetail {
    detail: String,
}

/// A running balancer.
pub(crate) struct AdminClient {
    base: String,
    token: Option<String>,
    client: HttpClient,
}

impl AdminClient {
    /// The balancer that the arguments name. Must be called in an actix system.
    pub(crate) fn new(arguments: &AdminArguments) -> Result<Self, QueryError> {
        let variable = || std::env::var(VARIABLE).ok().filter(|address| !address.is_empty());
        let address = match arguments.admin.clone().or_else(variable) {
            Some(given) => given,
            None => {
                configuration::load(arguments.config.config.as_deref(), Vec::new(), Ok)?
                    .settings
                    .balancer
                    .admin
            }
        };
        if address.ends_with(":0") {
            return Err(format!(
                "balancer.admin has no fixed port: give the address that the balancer printed at its start, as in --admin \
                 http://127.0.0.1:9100/, or set {VARIABLE}"
            )
            .into());
        }
        let scheme = if address.contains("://") { "" } else { "http://" };
        let base = format!("{scheme}{}/api/v1", address.trim_end_matches('/'));
        let token = arguments.token.as_deref().map(access::read_token).transpose()?;
        let trust = Trust { authorities: arguments.ca.clone(), ..Trust::default() };
        let client = HttpClient::new(TransportSettings {
            connect_timeout: TIMEOUT,
            trust,
            ..TransportSettings::default()
        });
        Ok(Self { base, token, client })
    }

    /// Requests a path below `/api/v1`. Returns the body, and its content.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(Vec<u8>, T), QueryError> {
        self.request(path, Request::get).await
    }

    /// Sends JSON to a path below `/api/v1`. Returns the body, and its content.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(Vec<u8>, T), QueryError> {
        self.request(path, |url| Request::post_json(url, body)).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        path: &str,
        request: impl FnOnce(Url) -> Request,
    ) -> Result<(Vec<u8>, T), QueryError> {
        let url = format!("{}{path}", self.base);
        let unreachable = |reason: String| {
            format!(
                "cannot query the balancer at {url}: {reason}; check that it runs and that this is its admin address"
            )
        };
        let other = |reason: String| {
            format!(
                "the server at {url} is not a fingerpost balancer of this version: {reason}; give the admin address, not the address for clients"
            )
        };
        let mut request = request(Url::parse(&url).map_err(|error| unreachable(error.to_string()))?);
        if let Some(token) = &self.token {
            request = request.with("Authorization", format!("Bearer {token}"));
        }
        let answered = tokio::time::timeout(TIMEOUT, self.exchange(&request)).await;
        let answered = answered.unwrap_or_else(|_| {
            Err(format!("no complete answer within {}", humantime::format_duration(TIMEOUT)))
        });
        let (status, body) = answered.map_err(unreachable)?;
        if !(200..300).contains(&status) {
            return Err(match serde_json::from_slice(&body) {
                Ok(ProblemDetail { detail }) => format!("the balancer refused: {detail}").into(),
                Err(_) => other(format!("it answered with status {status}")).into(),
            });
        }
        let content = serde_json::from_slice(&body).map_err(|error| other(error.to_string()))?;
        Ok((body, content))
    }

    async fn exchange(&self, request: &Request) -> Result<(u16, Vec<u8>), String> {
        let broken = |error: TransportError| match error {
            TransportError::Certificate { host, source } => {
                format!(
                    "the certificate of {host} cannot be trusted ({source}); name its authority with --ca FILE"
                )
            }
            error => telemetry::chain(&error),
        };
        let mut answer = self.client.send(request).await.map_err(broken)?;
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(broken)? {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_ANSWER {
                return Err("the answer is too long".to_owned());
            }
        }
        Ok((answer.head.status, body))
    }
}
