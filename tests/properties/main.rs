//! What holds for every input: properties of the pure modules, tried on random ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

mod boots;
mod health;
mod lies;
mod list;
mod load_report;
mod location;
mod policies;
mod silence;
mod tiers;
