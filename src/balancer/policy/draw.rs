//! What policies share that draw their backends one after the other.

use super::{Candidate, Ledger, Picks, Request};

/// How often a draw may hit a backend that is avoided or picked already before its neighbours are tried in turn.
const DRAWS: usize = 4;

/// What stands for one backend in a policy.
pub(super) trait Choice {
    /// Its place in the routing table.
    fn backend(&self) -> u32;
    /// What it was sent.
    fn ledger(&self) -> &Ledger;
}

impl Choice for Candidate {
    fn backend(&self) -> u32 {
        self.backend
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// Fills `picks` from `draw`, which yields indices into `choices`, and notes the redirect.
pub(super) fn fill<C: Choice>(
    choices: &[C],
    request: &Request,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    let first = draw();
    let chosen = acceptable(choices, request, picks, first, &mut draw).or_else(|| choices.get(first));
    let Some(chosen) = chosen else { return };
    chosen.ledger().redirected();
    picks.push(chosen.backend());
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
        let Some(found) = acceptable(choices, request, picks, index, &mut draw) else { return };
        picks.push(found.backend());
    }
}

/// The choice at `index` if it is neither avoided nor picked already, else one drawn anew, else the next after it;
/// `None` when there is no such choice.
pub(super) fn acceptable<'a, C: Choice>(
    choices: &'a [C],
    request: &Request,
    picks: &Picks,
    mut index: usize,
    draw: &mut impl FnMut() -> usize,
) -> Option<&'a C> {
    let accepts = |choice: &&C| {
        !request.avoid.contains(choice.ledger().identity()) && !picks.contains(choice.backend())
    };
    for _ in 1..DRAWS {
        if let Some(choice) = choices.get(index).filter(accepts) {
            return Some(choice);
        }
        index = draw();
    }
    // Few backends can be avoided or picked, so this ends soon whatever their number.
    let (before, from) = choices.split_at_checked(index)?;
    from.iter().chain(before).find(accepts)
}
