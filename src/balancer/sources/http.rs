//! Backends from an HTTP server: our list format, or targets in the format of Prometheus (`http_sd`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::SourceError;
use super::merge::SourceAnswer;
use crate::balancer::backends::Backend;
use crate::balancer::backends::list::{self, LineError};
use crate::balancer::backends::watch::MAX_LIST_BYTES;
use crate::http::client::{HttpClient, Request};

/// The time limit of a request with its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest entity tag that is sent back, in bytes.
const MAX_TAG_BYTES: usize = 1024;

/// Requests the backends, with the tag of the last answer.
pub(super) struct HttpReader {
    client: HttpClient,
    url: Url,
    tag: Option<String>,
}

impl HttpReader {
    pub(super) fn new(url: Url, client: HttpClient) -> Self {
        Self { client, url, tag: None }
    }

    /// `None` if the answer is still the last good one.
    pub(super) async fn read(&mut self) -> Result<Option<SourceAnswer>, SourceError> {
        let late = SourceError::TimedOut(TIMEOUT);
        timeout(TIMEOUT, self.request()).await.unwrap_or(Err(late))
    }

    async fn request(&mut self) -> Result<Option<SourceAnswer>, SourceError> {
        let mut request = Request::get(self.url.clone()).with("Accept", "application/json, text/plain");
        if let Some(tag) = &self.tag {
            request = request.with("If-None-Match", tag.as_str());
        }
        let mut answer = self.client.send(&request).await?;
        match answer.head.status {
            200 => {}
            304 if self.tag.is_some() => return Ok(None),
            status => return Err(SourceError::Status(status)),
        }
        let tag = answer.head.header("etag").filter(|tag| tag.len() <= MAX_TAG_BYTES).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await? {
            if (body.len() + bytes.len()) as u64 > MAX_LIST_BYTES {
                return Err(SourceError::TooLarge);
            }
            body.extend_from_slice(&bytes);
        }
        let parsed = parse(&body)?;
        // Only a usable answer may be confirmed by a 304.
        self.tag = tag;
        Ok(Some(parsed))
    }
}

/// Parses a body. A body without any backend is an error, because a fault of the source looks the same.
fn parse(body: &[u8]) -> Result<SourceAnswer, SourceError> {
    let answer = if body.trim_ascii_start().starts_with(b"[") {
        parse_targets(body)?
    } else {
        let list = list::parse(body);
        let first = list.problems.first();
        if let (Some(first), true) = (first, list.backends.is_empty()) {
            return Err(SourceError::Garbage(first.to_string()));
        }
        let skipped = list.problems.len() + list.unlisted_problems;
        SourceAnswer { backends: list.backends, left: Vec::new(), skipped }
    };
    if answer.backends.is_empty() { Err(SourceError::Empty) } else { Ok(answer) }
}

/// A group of targets in the format of Prometheus. Other keys and labels are ignored.
#[derive(Debug, Deserialize)]
struct TargetGroup {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn parse_targets(body: &[u8]) -> Result<SourceAnswer, SourceError> {
    let groups: Vec<TargetGroup> =
        serde_json::from_slice(body).map_err(|error| SourceError::Garbage(error.to_string()))?;
    let mut answer = SourceAnswer::default();
    let mut first_problem = None;
    for group in &groups {
        for target in &group.targets {
            match backend(target, &group.labels) {
                Ok(backend) => answer.backends.push(backend),
                Err(problem) => {
                    answer.skipped += 1;
                    first_problem.get_or_insert(problem);
                }
            }
        }
    }
    match first_problem {
        Some(problem) if answer.backends.is_empty() => Err(SourceError::Garbage(problem.to_string())),
        _ => Ok(answer),
    }
}

fn backend(target: &str, labels: &BTreeMap<String, String>) -> Result<Backend, LineError> {
    let label = |name: &str| labels.get(&format!("__{name}")).or_else(|| labels.get(name));
    let scheme = labels.get("__scheme__").map_or(String::new(), |scheme| format!("{scheme}://"));
    let attributes = ["weight", "tier", "zone"];
    let attributes = attributes
        .iter()
        .filter_map(|name| label(name).map(|value| format!("{name}={value}")))
        .collect::<Vec<_>>();
    list::from_words(&format!("{scheme}{target}"), attributes.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(body: &str) -> Vec<String> {
        parse(body.as_bytes()).unwrap().backends.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn targets_of_prometheus_are_backends() {
        let body = r#" [
            {"targets": ["10.0.0.1:8080", "mirror.example:81"],
             "labels": {"__weight": "3", "zone": "eu", "__scheme__": "https", "job": "files"}},
            {"targets": ["10.0.0.2:8080", "10.0.0.3 weight=9:1", "10.0.0.4"]}, {"targets": []}
        ]"#;
        assert_eq!(
            lines(body),
            [
                "https://10.0.0.1:8080 weight=3 zone=eu",
                "https://mirror.example:81 weight=3 zone=eu",
                "10.0.0.2:8080"
            ]
        );
        assert_eq!(parse(body.as_bytes()).unwrap().skipped, 2);
    }

    #[test]
    fn a_list_is_read_like_a_file() {
        assert_eq!(lines("# ours\n10.0.0.1:80 weight=2\nx\n"), ["10.0.0.1:80 weight=2"]);
    }

    #[test]
    fn an_answer_without_a_backend_is_an_error() {
        for body in [
            "",
            "[]",
            "# none\n",
            "<html>\n",
            "[{\"targets\": []}]",
            "[{\"targets\": [\"x\"]}]",
            "[1",
            "[{}]",
        ] {
            parse(body.as_bytes()).unwrap_err();
        }
    }
}
