//! Draws an index with a probability proportional to its weight, in constant time.

use std::hint::select_unpredictable;

/// Walker's alias table, built with Vose's algorithm (IEEE Transactions on Software Engineering 17(9), 1991): a column
/// yields its own index below a threshold and one other index above it.
#[derive(Debug)]
pub(super) struct AliasTable {
    columns: Box<[Column]>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    /// In units of 2^-32. A draw below it yields the column's own index.
    threshold: u32,
    alias: u32,
}

impl AliasTable {
    /// Builds the table. Weights must be finite and not negative. An index of weight 0 is never drawn, unless all weights
    /// are 0: then every index is equally likely.
    pub(super) fn new(weights: &[f64]) -> Self {
        let sum: f64 = weights.iter().sum();
        let scale = if sum > 0.0 { weights.len() as f64 / sum } else { 0.0 };
        let mut shares: Vec<f64> =
            weights.iter().map(|weight| if scale > 0.0 { weight * scale } else { 1.0 }).collect();
        let mut columns: Vec<Column> =
            (0..weights.len()).map(|index| Column { threshold: u32::MAX, alias: index as u32 }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..shares.len()).partition(|&index| shares.get(index).is_some_and(|share| *share < 1.0));
        // Because of rounding, the indices that are handled last may keep a whole column. Indices of weight 0 must not,
        // so they are handled first.
        small.sort_by_key(|&index| shares.get(index).is_some_and(|share| *share <= 0.0));
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            let Some(&share) = shares.get(low) else { break };
            if let Some(column) = columns.get_mut(low) {
                *column = Column { threshold: (share * 2f64.powi(32)) as u32, alias: high as u32 };
            }
            if let Some(rest) = shares.get_mut(high) {
                *rest -= 1.0 - share;
                if *rest < 1.0 {
                    large.pop();
                    small.push(high);
                }
            }
        }
        Self { columns: columns.into_boxed_slice() }
    }

    /// Maps a uniformly distributed number to an index; to 0 if the table is empty.
    ///
    /// The high half of the number selects the column, the low half is compared with its threshold.
    pub(super) fn index(&self, uniform: u64) -> usize {
        let column = (((uniform >> 32) * self.columns.len() as u64) >> 32) as usize;
        self.columns.get(column).map_or(column, |entry| {
            select_unpredictable(uniform as u32 >= entry.threshold, entry.alias as usize, column)
        })
    }
}

#[cfg(test)]
mod tests;
