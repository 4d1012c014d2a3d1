use std::cell::Cell;

use super::*;
use crate::balancer::policy::Avoid;

const GAP: usize = 1000;

/// Backends at the multiples of [`GAP`]; counts the lookups.
struct Sparse {
    count: usize,
    lookups: Cell<usize>,
}

impl BackendSet for Sparse {
    fn count(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize) -> Option<BackendRef> {
        self.lookups.set(self.lookups.get() + 1);
        let backend = (index / GAP) as u32;
        index.is_multiple_of(GAP).then_some(BackendRef { backend, identity: backend, number: backend })
    }

    fn indices_from(&self, index: usize) -> impl Iterator<Item = usize> {
        let start = index.div_ceil(GAP);
        (start..self.count).chain(0..start).map(|backend| backend * GAP)
    }
}

#[test]
fn the_cost_of_a_search_does_not_depend_on_the_gaps_between_backends() {
    let backends = Sparse { count: 3, lookups: Cell::new(0) };
    let mut avoid = Avoid::default();
    avoid.add(1);
    for (request, found) in
        [(PickRequest::default(), 3), (PickRequest { avoid, ..PickRequest::default() }, 2)]
    {
        let mut picks = Picks::new(3);
        fill_up(&backends, &request, &mut picks, || 0);
        assert_eq!(picks.len(), found);
    }
    assert!(backends.lookups.get() < 50, "{}", backends.lookups.get());
}
