//! Properties of the pure modules, tested with random inputs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

mod false_reports;
mod geography;
mod health;
mod list;
mod load_report;
mod location;
mod policies;
mod restarts;
mod sharing;
mod silence;
mod tiers;
