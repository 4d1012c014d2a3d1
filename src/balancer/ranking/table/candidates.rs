//! The candidates of a table: for all clients, and for clients that need certain properties of a backend.

use std::sync::Arc;

use super::{BackendEntry, Needs};
use crate::balancer::policy::{Candidate, Policy};
use crate::balancer::ranking::selection::Eligibility;

/// The choice of a backend for clients with certain needs.
#[derive(Debug)]
pub(super) enum RestrictedPolicy {
    /// Every candidate meets the needs.
    Same,
    /// Chooses among the usable backends that meet the needs.
    Part(Box<dyn Policy>),
    /// No usable backend meets the needs.
    Unmet,
}

/// Candidates for clients with certain needs.
pub(super) enum CandidateSet {
    /// Candidates of the whole table.
    Subset(Vec<Candidate>),
    /// Usable backends that are not candidates of the whole table.
    Spare(Vec<Candidate>),
}

/// Selects the backends for clients with these needs: the candidates that meet the needs, else such backends of the lowest
/// spare tier, else ejected backends.
pub(super) fn restrict(
    needs: Needs,
    entries: &[BackendEntry],
    candidates: &[Candidate],
    build: impl FnOnce(CandidateSet) -> Box<dyn Policy>,
) -> RestrictedPolicy {
    let meets = |candidate: &&Candidate| {
        let entry = entries.get(candidate.backend as usize);
        entry.is_some_and(|entry| needs.are_met_by(entry.has))
    };
    let part: Vec<Candidate> = candidates.iter().filter(meets).cloned().collect();
    if !part.is_empty() {
        let is_whole = part.len() == candidates.len();
        return if is_whole {
            RestrictedPolicy::Same
        } else {
            RestrictedPolicy::Part(build(CandidateSet::Subset(part)))
        };
    }
    let usable = || (0..).zip(entries).filter(|(_, entry)| needs.are_met_by(entry.has));
    let spare = || usable().filter(|(_, entry)| entry.eligibility == Eligibility::SpareTier);
    let tier = spare().map(|(_, entry)| entry.tier).min();
    let of_tier = spare().filter(|(_, entry)| Some(entry.tier) == tier);
    let mut beside: Vec<Candidate> =
        of_tier.map(|(index, entry)| candidate_with(index, entry, 1.0, false)).collect();
    if beside.is_empty() {
        let aside = usable().filter(|(_, entry)| matches!(entry.eligibility, Eligibility::Ejected(_)));
        beside.extend(aside.map(|(index, entry)| candidate_with(index, entry, 1.0, false)));
    }
    if beside.is_empty() {
        RestrictedPolicy::Unmet
    } else {
        RestrictedPolicy::Part(build(CandidateSet::Spare(beside)))
    }
}

/// The candidate for this entry, if the entry is eligible.
pub(super) fn candidate(index: u32, entry: &BackendEntry, joins: bool) -> Option<Candidate> {
    let Eligibility::Chosen(share) = entry.eligibility else { return None };
    Some(candidate_with(index, entry, share, joins))
}

fn candidate_with(index: u32, entry: &BackendEntry, share: f64, joins: bool) -> Candidate {
    Candidate {
        backend: index,
        weight: f64::from(entry.weight()) * share,
        response_time: entry.response_time(),
        throughput: entry.estimate.throughput(),
        reports: entry.had_usable_report,
        joins,
        address: entry.address,
        load: Arc::clone(&entry.load),
    }
}
