//! What policies share that draw their backends one after the other.

use super::{Candidate, Picks, Request};

/// How often a draw may hit a backend that is avoided or picked already before its neighbours are tried in turn.
const DRAWS: usize = 4;

/// What stands for one backend in a policy.
pub(super) trait Choice {
    /// Its place in the routing table.
    fn backend(&self) -> u32;
    /// The identity of its ledger.
    fn identity(&self) -> u32;
}

/// What is drawn from. Not every index need have a choice.
pub(super) trait Choices {
    type Choice: Choice;
    /// How many choices there are.
    fn count(&self) -> usize;
    /// The choice of an index.
    fn get(&self, index: usize) -> Option<&Self::Choice>;
    /// The indices of all choices, those from `index` on first.
    fn from(&self, index: usize) -> impl Iterator<Item = usize>;
}

impl Choice for Candidate {
    fn backend(&self) -> u32 {
        self.backend
    }

    fn identity(&self) -> u32 {
        self.ledger.identity()
    }
}

impl Choices for [Candidate] {
    type Choice = Candidate;

    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, index: usize) -> Option<&Candidate> {
        self.get(index)
    }

    fn from(&self, index: usize) -> impl Iterator<Item = usize> {
        (index..self.len()).chain(0..index)
    }
}

/// Fills `picks` from `draw`, which yields indices into `choices`, and notes the redirect unless the chosen backend is
/// given.
pub(super) fn fill(
    choices: &[Candidate],
    request: &Request,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    if picks.chosen().is_none() {
        let first = draw();
        let index = acceptable(choices, request, picks, first, &mut draw).unwrap_or(first);
        let Some(chosen) = choices.get(index) else { return };
        chosen.ledger.line().redirected();
        picks.push(chosen.backend);
    }
    fill_up(choices, request, picks, draw);
}

/// Fills what is left of `picks` with runners-up.
pub(super) fn fill_up<C: Choices + ?Sized>(
    choices: &C,
    request: &Request,
    picks: &mut Picks,
    mut draw: impl FnMut() -> usize,
) {
    while !picks.is_full() && picks.len() < choices.count() {
        let index = draw();
        let found = acceptable(choices, request, picks, index, &mut draw);
        let Some(found) = found.and_then(|index| choices.get(index)) else { return };
        picks.push(found.backend());
    }
}

/// `index` if its choice is neither avoided nor picked already, else one drawn anew, else the next after it;
/// `None` when there is no such choice.
pub(super) fn acceptable<C: Choices + ?Sized>(
    choices: &C,
    request: &Request,
    picks: &Picks,
    mut index: usize,
    draw: &mut impl FnMut() -> usize,
) -> Option<usize> {
    let accepts = |index: &usize| {
        choices.get(*index).is_some_and(|choice| {
            !request.avoid.contains(choice.identity()) && !picks.contains(choice.backend())
        })
    };
    for _ in 1..DRAWS {
        if accepts(&index) {
            return Some(index);
        }
        index = draw();
    }
    // Few backends can be avoided or picked, so this ends soon whatever their number.
    choices.from(index).find(accepts)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::balancer::policy::Avoid;

    struct Place(u32);

    impl Choice for Place {
        fn backend(&self) -> u32 {
            self.0
        }

        fn identity(&self) -> u32 {
            self.0
        }
    }

    /// Choices far apart, and how often one was looked for.
    struct Sparse {
        places: Vec<Place>,
        looked: Cell<usize>,
    }

    const APART: usize = 1000;

    impl Choices for Sparse {
        type Choice = Place;

        fn count(&self) -> usize {
            self.places.len()
        }

        fn get(&self, index: usize) -> Option<&Place> {
            self.looked.set(self.looked.get() + 1);
            self.places.get(index / APART).filter(|_| index.is_multiple_of(APART))
        }

        fn from(&self, index: usize) -> impl Iterator<Item = usize> {
            let start = index.div_ceil(APART);
            (start..self.count()).chain(0..start).map(|place| place * APART)
        }
    }

    #[test]
    fn what_few_choices_cost_does_not_depend_on_how_far_apart_they_are() {
        let choices = Sparse { places: (0..3).map(Place).collect(), looked: Cell::new(0) };
        let mut avoid = Avoid::default();
        avoid.add(1);
        for (request, found) in [(Request::default(), 3), (Request { avoid, ..Request::default() }, 2)] {
            let mut picks = Picks::new(3);
            fill_up(&choices, &request, &mut picks, || 0);
            assert_eq!(picks.len(), found);
        }
        assert!(choices.looked.get() < 50, "{}", choices.looked.get());
    }
}
