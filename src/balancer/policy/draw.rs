//! Helpers for policies that draw one backend after another.

use super::{Avoid, Candidate, PickRequest, Picks};

/// The number of draws for one pick. If the request avoids all drawn backends or they are picked already, the neighbours
/// of the last one are tried in order.
const MAX_DRAWS: usize = 4;

/// Identifies a backend during a pick.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackendRef {
    /// Its index in the routing table.
    pub(super) backend: u32,
    /// Its number in [`Avoid`](super::Avoid).
    pub(super) identity: u32,
    /// Its number in [`Holders`](super::Holders).
    pub(super) number: u32,
}

/// The backends of a policy by index. An index need not have a backend.
pub(super) trait BackendSet {
    /// The number of backends.
    fn count(&self) -> usize;
    fn get(&self, index: usize) -> Option<BackendRef>;
    /// The indices of all backends, starting at `index` and wrapping around.
    fn indices_from(&self, index: usize) -> impl Iterator<Item = usize>;
}

impl BackendSet for [Candidate] {
    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, index: usize) -> Option<BackendRef> {
        let candidate = self.get(index)?;
        let load = &candidate.load;
        Some(BackendRef { backend: candidate.backend, identity: load.identity(), number: load.number() })
    }

    fn indices_from(&self, index: usize) -> impl Iterator<Item = usize> {
        (index..self.len()).chain(0..index)
    }
}

/// Fills `picks` with backends from `draw`, which yields indices of `candidates`. Counts the redirect to the first, unless
/// `picks` contained it already.
pub(super) fn fill(
    candidates: &[Candidate],
    request: &PickRequest,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    if picks.chosen().is_none() {
        let index = draw();
        let Some(index) = first(candidates, request, picks, index, &mut draw) else { return };
        let Some(chosen) = candidates.get(index) else { return };
        chosen.load.cell().count_redirect();
        picks.push(chosen.backend);
    }
    fill_up(candidates, request, picks, draw);
}

/// An acceptable index, `first` if possible, or one that the request avoids if it avoids all; `None` if no backend has the file.
pub(super) fn first<B: BackendSet + ?Sized>(
    backends: &B,
    request: &PickRequest,
    picks: &Picks,
    first: usize,
    draw: &mut impl FnMut() -> usize,
) -> Option<usize> {
    acceptable(backends, request, picks, first, draw).or_else(|| match request.spill_factor {
        // Another band may have a backend that the request does not avoid.
        Some(_) => None,
        None if request.is_restricted() => {
            acceptable(backends, &PickRequest { avoid: Avoid::default(), ..*request }, picks, first, draw)
        }
        None => Some(first),
    })
}

/// Adds alternates until `picks` is full or no acceptable backend is left.
pub(super) fn fill_up<B: BackendSet + ?Sized>(
    backends: &B,
    request: &PickRequest,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    while !picks.is_full() && picks.len() < backends.count() {
        let index = draw();
        let found = acceptable(backends, request, picks, index, &mut draw);
        let Some(found) = found.and_then(|index| backends.get(index)) else { return };
        picks.push(found.backend);
    }
}

/// `index` if its backend is acceptable: not avoided and not picked already. Otherwise the first acceptable index of
/// further draws, then the next acceptable index in order; `None` if no backend is acceptable.
pub(super) fn acceptable<B: BackendSet + ?Sized>(
    backends: &B,
    request: &PickRequest,
    picks: &Picks,
    mut index: usize,
    draw: &mut impl FnMut() -> usize,
) -> Option<usize> {
    let accepts = |index: &usize| accepts(backends, request, picks, *index);
    for _ in 1..MAX_DRAWS {
        if accepts(&index) {
            return Some(index);
        }
        index = draw();
    }
    if request.is_restricted() {
        // The first acceptable index in order would prefer backends after others that lack the file.
        let count = backends.indices_from(0).filter(accepts).count();
        return backends.indices_from(0).filter(accepts).nth(draw() % count.max(1));
    }
    // A request avoids few backends and a pick takes few, so the search is short even among 100 000 backends.
    backends.indices_from(index).find(accepts)
}

/// Whether the backend at `index` is acceptable.
#[inline]
pub(super) fn accepts<B: BackendSet + ?Sized>(
    backends: &B,
    request: &PickRequest,
    picks: &Picks,
    index: usize,
) -> bool {
    backends.get(index).is_some_and(|found| {
        !request.avoid.contains(found.identity)
            && !picks.contains(found.backend)
            && request.is_held_by(found.number)
    })
}

#[cfg(test)]
mod tests;
