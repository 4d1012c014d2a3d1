//! What policies share that draw their backends one after the other.

use super::{Candidate, Picks, Request};

/// How often a draw may hit a backend that is avoided or picked already before its neighbours are tried in turn.
const DRAWS: usize = 4;

/// What stands for one backend in a policy.
pub(super) trait Choice {
    /// Its place in the routing table; [`NOBODY`] if it stands for none.
    fn backend(&self) -> u32;
    /// The identity of its ledger.
    fn identity(&self) -> u32;
}

/// The place of a backend that is not there.
pub(super) const NOBODY: u32 = u32::MAX;

impl Choice for Candidate {
    fn backend(&self) -> u32 {
        self.backend
    }

    fn identity(&self) -> u32 {
        self.ledger.identity()
    }
}

/// Fills `picks` from `draw`, which yields indices into `choices`, and notes the redirect.
pub(super) fn fill(
    choices: &[Candidate],
    request: &Request,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    let first = draw();
    let index = acceptable(choices, request, picks, first, &mut draw).unwrap_or(first);
    let Some(chosen) = choices.get(index) else { return };
    chosen.ledger.line().redirected();
    picks.push(chosen.backend);
    fill_up(choices, request, picks, draw);
}

/// Fills what is left of `picks` with runners-up.
pub(super) fn fill_up<C: Choice>(
    choices: &[C],
    request: &Request,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    while !picks.is_full() {
        let index = draw();
        let found = acceptable(choices, request, picks, index, &mut draw);
        let Some(found) = found.and_then(|index| choices.get(index)) else { return };
        picks.push(found.backend());
    }
}

/// `index` if its choice is neither avoided nor picked already, else one drawn anew, else the next after it;
/// `None` when there is no such choice.
pub(super) fn acceptable<C: Choice>(
    choices: &[C],
    request: &Request,
    picks: &Picks,
    mut index: usize,
    draw: &mut impl FnMut() -> usize,
) -> Option<usize> {
    let accepts = |index: &usize| {
        choices.get(*index).is_some_and(|choice| {
            choice.backend() != NOBODY
                && !request.avoid.contains(choice.identity())
                && !picks.contains(choice.backend())
        })
    };
    for _ in 1..DRAWS {
        if accepts(&index) {
            return Some(index);
        }
        index = draw();
    }
    // Few backends can be avoided or picked, so this ends soon whatever their number.
    (index..choices.len()).chain(0..index).find(accepts)
}
