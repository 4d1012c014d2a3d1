//! Maps cells to backends.

use crate::balancer::policy::draw::{BackendRef, BackendSet};

/// The candidates by the number of their cell. Cells of other backends lie between those of the candidates.
#[derive(Debug)]
pub(super) struct CellMap {
    by_cell: Box<[Option<BackendRef>]>,
    /// The numbers of the candidates' cells, in ascending order.
    occupied: Box<[u32]>,
}

impl CellMap {
    pub(super) fn new(mut by_cell: Vec<Option<BackendRef>>) -> Self {
        let occupied: Box<[u32]> =
            (0..).zip(&by_cell).filter_map(|(cell, backend)| backend.map(|_| cell)).collect();
        by_cell.truncate(occupied.last().map_or(0, |last| *last as usize + 1));
        Self { by_cell: by_cell.into_boxed_slice(), occupied }
    }

    /// The number of cells up to the last candidate's.
    pub(super) fn cells(&self) -> usize {
        self.by_cell.len()
    }
}

impl BackendSet for CellMap {
    fn count(&self) -> usize {
        self.occupied.len()
    }

    #[inline]
    fn get(&self, index: usize) -> Option<BackendRef> {
        *self.by_cell.get(index)?
    }

    fn indices_from(&self, index: usize) -> impl Iterator<Item = usize> {
        let start = self.occupied.partition_point(|cell| (*cell as usize) < index);
        let (before, from) = self.occupied.split_at_checked(start).unwrap_or_default();
        from.iter().chain(before).map(|cell| *cell as usize)
    }
}
