//! What policies share that draw their backends one after the other.

use super::{Candidate, Picks, Request};

/// How often a draw may hit a backend that is avoided or picked already before its neighbours are tried in turn.
const DRAWS: usize = 4;

/// Fills `picks` from `draw`, which yields indices into `candidates`, and notes the redirect.
pub(super) fn fill(
    candidates: &[Candidate],
    request: &Request,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    let first = draw();
    let chosen = acceptable(candidates, request, picks, first, &mut draw).or_else(|| candidates.get(first));
    let Some(chosen) = chosen else { return };
    chosen.ledger.redirected();
    picks.push(chosen.backend);
    while !picks.is_full() {
        let index = draw();
        let Some(found) = acceptable(candidates, request, picks, index, &mut draw) else { return };
        picks.push(found.backend);
    }
}

/// The candidate at `index` if it is neither avoided nor picked already, else one drawn anew, else the next after it;
/// `None` when there is no such candidate.
fn acceptable<'a>(
    candidates: &'a [Candidate],
    request: &Request,
    picks: &Picks,
    mut index: usize,
    draw: &mut impl FnMut() -> usize,
) -> Option<&'a Candidate> {
    let accepts = |candidate: &&Candidate| {
        !request.avoid.contains(candidate.backend) && !picks.contains(candidate.backend)
    };
    for _ in 1..DRAWS {
        if let Some(candidate) = candidates.get(index).filter(accepts) {
            return Some(candidate);
        }
        index = draw();
    }
    // Few backends can be avoided or picked, so this ends soon whatever the number of candidates.
    let (before, from) = candidates.split_at_checked(index)?;
    from.iter().chain(before).find(accepts)
}
