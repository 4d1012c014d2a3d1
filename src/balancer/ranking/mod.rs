//! From probe outcomes to what the policies choose by.

pub mod estimate;
