//! Explains the choice for one request without a redirect: every backend with its score, or the reason of its exclusion.

use std::net::IpAddr;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::BalancerState;
use super::choice::{Choice, ChoiceReason, KnownFile};
use super::client::Client;
use super::location::{Target, TargetError};
use super::service::{AnswerPlan, RedirectRequest, is_not_found};
use crate::balancer::policy::{Avoid, DEFAULT_SIZE, LoadSlab, PolicyName, digest};
use crate::balancer::presence::HasFile;
use crate::balancer::presence::generation::Location;
use crate::balancer::ranking::selection::Eligibility;
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};
use crate::balancer::sizes::ExpectedSize;

/// The content of `/api/v1/explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    /// Path and query of the request.
    pub path: String,
    /// The address of the client, if it was given.
    pub client: Option<IpAddr>,
    /// The rule that selected the candidates, as text.
    pub mode: String,
    /// The policy that chooses among the candidates.
    pub policy: String,
    /// The status of the answer.
    pub status: u16,
    /// The expected size of the download in bytes, if it is known or similar files are.
    pub size: Option<u64>,
    /// The origin of `size`.
    pub size_origin: SizeOrigin,
    /// A possible choice. Most policies choose another candidate for the next client.
    pub choice: Option<ExplainedChoice>,
    /// All backends, in the order of the list.
    pub backends: Vec<ExplainedBackend>,
}

/// The origin of an expected size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SizeOrigin {
    /// A server sent the size of the file, which is rounded to its size class.
    Known,
    /// The mean of files with the same extension, or of the same directory.
    SimilarFiles,
    /// The policy assumes the mean of all downloads.
    AllDownloads,
}

/// A choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExplainedChoice {
    /// The address of the backend.
    pub backend: String,
    /// The reason, as text.
    pub reason: String,
    /// The backends in the `Link` lines.
    pub alternates: Vec<String>,
}

/// The part of one backend in a choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExplainedBackend {
    /// The address of the backend.
    pub backend: String,
    /// Whether this client can be sent to it.
    pub candidate: bool,
    /// The reason, as text.
    pub reason: String,
    /// Its weight: of an order or the list, reduced by its health; 0 if it is not a candidate.
    pub weight: f64,
    /// Its estimated response time, in milliseconds.
    pub response_ms: Option<f64>,
    /// Its estimated requests in flight.
    pub in_flight: u64,
    /// Whether it has the file, if there is a catalogue: `yes`, `no` or `unproven`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_file: Option<String>,
    /// The reason, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_file_reason: Option<String>,
    /// The bytes of its downloads that are not sent yet, as the policy expects them; only under `adaptive`.
    pub booked_bytes: Option<u64>,
    /// The time in seconds that the download is expected to take on it; only under `adaptive`.
    pub expected_seconds: Option<f64>,
    /// The orders of operators for it, as text with their notes.
    pub orders: Vec<String>,
}

impl BalancerState {
    /// Explains the choice for a request of `target`: a path, or a URL whose host is ignored. Changes nothing: the choice is
    /// made from copies of all loads, and is not recorded.
    pub(in crate::balancer) fn explain(
        &self,
        target: &str,
        client: Option<IpAddr>,
        is_https: bool,
    ) -> Result<Explanation, TargetError> {
        let target = Target::parse(target.as_bytes())?;
        let client = Client { address: client.map(|client| client.to_canonical()), is_https };
        let now = Instant::now();
        let mut random = SmallRng::from_rng(&mut rand::rng());
        let answers = self.answers.load_full();
        let table = self.copied_table(&answers, now, &mut random);
        let path_hash = digest(target.path());
        let wanted = RedirectRequest {
            target: &target,
            path_hash,
            is_head: false,
            range: None,
            tag: None,
            avoid: Avoid::default(),
            client,
        };
        let current = self.presence.as_ref().map(|presence| presence.current());
        let generation = current.as_ref().and_then(|current| current.as_deref());
        let location = generation.map(|generation| generation.locate(target.path(), path_hash));
        let timestamp = self.clock.timestamp(now);
        let size = self.sizes.as_ref().and_then(|sizes| sizes.known(target.path(), path_hash));
        let expected = size.map_or(DEFAULT_SIZE, ExpectedSize::bytes);
        // Before the choice, which books the download.
        let work: Vec<_> =
            table.entries.iter().map(|entry| entry.load.booked_work(expected, timestamp)).collect();
        let file = KnownFile::new(location.as_ref(), size.map(ExpectedSize::bytes));
        let choice = answers.choose(&table, &wanted, file, timestamp, &mut random);
        let failed = choice.as_ref().and_then(Choice::failed).map(|failed| failed.identity);
        let address =
            |index: &u32| table.entries.get(*index as usize).map(|entry| entry.backend.id().to_string());
        let has_candidate = table
            .entries
            .iter()
            .any(|entry| is_chosen(entry) && !table.is_excluded_by(client.needs(), entry));
        let backends = table.entries.iter().zip(work).map(|(entry, work)| {
            let (has_file, file_reason) = self.has_file(entry, location.as_ref()).unzip();
            let exclusion = if has_file == Some(HasFile::No) {
                Some(format!("lacks the file: {}", file_reason.as_deref().unwrap_or_default()))
            } else if table.is_excluded_by(client.needs(), entry) {
                Some("does not suit the client: it needs https, or an IPv4 address".to_owned())
            } else {
                exclusion(entry, has_candidate)
            };
            let weight = match entry.eligibility {
                _ if exclusion.is_some() => 0.0,
                Eligibility::Chosen(share) => f64::from(entry.weight()) * share,
                _ => f64::from(entry.weight()),
            };
            let reason = match &exclusion {
                Some(reason) => reason.clone(),
                None if failed == Some(entry.load.identity()) => {
                    "avoided if possible: the client was sent to it for this file in the last minute"
                        .to_owned()
                }
                None => entry.health.reason().to_string(),
            };
            ExplainedBackend {
                backend: entry.backend.id().to_string(),
                candidate: exclusion.is_none(),
                reason,
                weight,
                response_ms: entry.estimate.response_time().map(|time| time.as_micros() as f64 / 1000.0),
                in_flight: entry.load.outstanding(),
                has_file: has_file.map(|has_file| has_file.as_str().to_owned()),
                has_file_reason: file_reason,
                booked_bytes: work.map(|work| work.bytes),
                expected_seconds: work.map(|work| work.expected.as_secs_f64()),
                orders: entry
                    .orders
                    .iter()
                    .flat_map(|orders| orders.iter())
                    .map(ToString::to_string)
                    .collect(),
            }
        });
        Ok(Explanation {
            path: String::from_utf8_lossy(target.as_bytes()).into_owned(),
            client: client.address,
            mode: table.mode.to_string(),
            policy: answers.policy.to_string(),
            size: size.map(|size| size.bytes() as u64),
            size_origin: match size {
                Some(ExpectedSize::Known(_)) => SizeOrigin::Known,
                Some(ExpectedSize::Mean(_)) => SizeOrigin::SimilarFiles,
                None => SizeOrigin::AllDownloads,
            },
            status: match choice {
                Some(_) => answers.status.code(),
                None if is_not_found(&table, location.as_ref()) => 404,
                None => 503,
            },
            choice: choice.as_ref().map(|choice| ExplainedChoice {
                backend: choice.backend.to_string(),
                reason: choice_reason(choice.reason, answers.policy),
                alternates: choice.picks.alternates().iter().filter_map(address).collect(),
            }),
            backends: backends.collect(),
        })
    }

    /// Whether a backend has a path, and the reason; `None` without a catalogue.
    fn has_file(&self, entry: &BackendEntry, location: Option<&Location<'_>>) -> Option<(HasFile, String)> {
        let presence = self.presence.as_ref()?;
        Some(match location? {
            Location::File(file) => presence.explain(file, entry.load.number()),
            Location::Folder => (HasFile::Unproven, "it is a folder".to_owned()),
            Location::Unknown if entry.backend.is_origin() => {
                (HasFile::Unproven, "it is the origin, and the catalogue does not have the path".to_owned())
            }
            Location::Unknown => (HasFile::No, "the catalogue does not have the path".to_owned()),
        })
    }

    /// The latest table with copies of all loads.
    fn copied_table(&self, answers: &AnswerPlan, now: Instant, random: &mut SmallRng) -> RoutingTable {
        let latest = self.publisher.latest();
        let mut slab = LoadSlab::default();
        let mut entries = latest.entries.clone();
        for entry in &mut entries {
            entry.load = entry.load.copy(&mut slab);
        }
        let AnswerPlan { policy, health_check, .. } = answers;
        RoutingTable::from_entries(
            latest.generation,
            entries,
            *policy,
            health_check,
            &self.clock,
            now,
            random,
        )
    }
}

fn choice_reason(reason: ChoiceReason, policy: PolicyName) -> String {
    match reason {
        ChoiceReason::Policy => format!("the policy {policy} chose it among the candidates"),
        ChoiceReason::Retry => {
            "the client requests the file again, so it is sent to another server".to_owned()
        }
        ChoiceReason::AfterHead => {
            "the client sent a HEAD for this file before and was sent to it".to_owned()
        }
    }
}

fn is_chosen(entry: &BackendEntry) -> bool {
    matches!(entry.eligibility, Eligibility::Chosen(_))
}

/// The reason why the ranking excludes a backend. Without a candidate that suits the client, spare and ejected backends are
/// used, too.
fn exclusion(entry: &BackendEntry, has_candidate: bool) -> Option<String> {
    match entry.eligibility {
        Eligibility::Chosen(_) => None,
        Eligibility::SpareTier | Eligibility::Ejected(_) if !has_candidate => None,
        Eligibility::SpareTier => Some("a lower tier is used".to_owned()),
        Eligibility::Ejected(outlier) => Some(outlier.to_string()),
        Eligibility::Out => Some(format!("{}: {}", entry.health.state(), entry.health.reason())),
        Eligibility::Withdrawn => {
            let orders = entry.orders.as_deref().unwrap_or_default();
            let texts: Vec<String> = orders.iter().map(ToString::to_string).collect();
            Some(format!("order: {}", texts.join("; ")))
        }
    }
}

impl Explanation {
    /// The explanation as text for people: candidates with `+`, excluded backends with `-`.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.path.escape_debug(), self.status)];
        if let Some(choice) = &self.choice {
            lines.push(format!("  to {}: {}", choice.backend, choice.reason));
            lines.extend(choice.alternates.iter().map(|alternate| format!("  or {alternate}")));
        }
        lines.push(match (self.size, self.size_origin) {
            (Some(size), SizeOrigin::Known) => format!("size: {size} bytes, known to its size class"),
            (Some(size), _) => format!("size: {size} bytes, the mean of similar files"),
            (None, _) => "size: unknown, the mean of all downloads is assumed".to_owned(),
        });
        lines.push(format!("selection: {}, policy: {}", self.mode, self.policy));
        for backend in &self.backends {
            let ExplainedBackend { backend: address, weight, in_flight, orders, .. } = backend;
            let response = backend.response_ms.map_or("-".to_owned(), |time| format!("{time:.2} ms"));
            // The reason may contain text of a server, which must not send control characters to the terminal.
            let reason = backend.reason.escape_debug();
            lines.push(if backend.candidate {
                let file = match (&backend.has_file, &backend.has_file_reason) {
                    (Some(has_file), Some(reason)) => {
                        let word = if has_file == "yes" { "has the file" } else { "may have the file" };
                        format!("; {word}: {}", reason.escape_debug())
                    }
                    _ => String::new(),
                };
                let expected = backend.expected_seconds;
                let expected = expected.map(|seconds| format!(", sent in {seconds:.2} s"));
                let expected = expected.unwrap_or_default();
                format!(
                    "+ {address}  weight {weight:.2}, {response}, {in_flight} in flight{expected}; {reason}{file}"
                )
            } else {
                format!("- {address}  {reason}")
            });
            if backend.candidate {
                lines.extend(orders.iter().map(|order| format!("    order: {}", order.escape_debug())));
            }
        }
        lines.join("\n") + "\n"
    }
}
