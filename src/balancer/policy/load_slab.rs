//! The memory of all loads: cells side by side, in chunks that all tables share.

use std::array;
use std::fmt;
use std::sync::{Arc, Weak};

use super::load::BackendLoad;
use super::load_cell::LoadCell;

/// Cells in a chunk.
pub(super) const CHUNK_LEN: usize = 1024;

/// Cells of backends, in the order in which the slab assigned them.
pub(super) struct SlabChunk([LoadCell; CHUNK_LEN]);

impl SlabChunk {
    /// The cell at `index` modulo [`CHUNK_LEN`].
    #[inline]
    pub(super) fn cell(&self, index: usize) -> &LoadCell {
        let [first, ..] = &self.0;
        self.0.get(index % CHUNK_LEN).unwrap_or(first)
    }
}

impl fmt::Debug for SlabChunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SlabChunk")
    }
}

/// The location of a cell.
#[derive(Debug, Clone)]
pub(super) struct CellRef {
    pub(super) chunk: Arc<SlabChunk>,
    pub(super) index: usize,
    /// The number of the cell in its slab.
    number: u32,
}

impl CellRef {
    #[inline]
    pub(super) fn get(&self) -> &LoadCell {
        self.chunk.cell(self.index)
    }
}

/// Allocates load records. One process uses one slab, so that the cells of all backends fill few chunks.
#[derive(Debug, Default)]
pub struct LoadSlab {
    used: Vec<(CellRef, Weak<BackendLoad>)>,
    free: Vec<CellRef>,
    /// The number of cells.
    cells: u32,
}

impl LoadSlab {
    /// A record without load. `identity` is the [`identity`](super::identity) of the backend's authority.
    ///
    /// The slab reuses a cell after the last [`Arc`] of its record is gone.
    pub fn allocate(&mut self, identity: u32) -> Arc<BackendLoad> {
        self.allocate_as(identity, None)
    }

    /// The same with this number instead of the one of the cell.
    pub(super) fn allocate_as(&mut self, identity: u32, number: Option<u32>) -> Arc<BackendLoad> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let cell = self.free.pop().unwrap_or_else(|| self.add_chunk());
        let load = Arc::new(BackendLoad::new(cell.clone(), identity, number.unwrap_or(cell.number)));
        self.used.push((cell, Arc::downgrade(&load)));
        load
    }

    fn reclaim(&mut self) {
        let unused = self.used.extract_if(.., |(_, load)| load.strong_count() == 0);
        self.free = unused.map(|(cell, _)| cell).collect();
    }

    /// Adds a chunk and returns its first cell.
    fn add_chunk(&mut self) -> CellRef {
        let chunk = Arc::new(SlabChunk(array::from_fn(|_| LoadCell::default())));
        let first = self.cells;
        self.cells += CHUNK_LEN as u32;
        let cell = |index| CellRef { chunk: Arc::clone(&chunk), index, number: first + index as u32 };
        self.free.extend((1..CHUNK_LEN).rev().map(cell));
        cell(0)
    }
}
