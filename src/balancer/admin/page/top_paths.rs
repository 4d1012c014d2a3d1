//! The paths that clients request most, from samples, in bounded memory. Pure.

use std::collections::HashMap;

/// The number of paths that are counted.
const MOST_PATHS: usize = 256;

/// The part of each count that remains after a minute, so that a path of the last hour disappears.
const DECAY: f64 = 0.9;

/// The counts of the most frequent paths ("space saving": a new path takes over the smallest count, so a frequent path is
/// never missed, and a count may be too large by the smallest one).
#[derive(Debug, Default)]
pub(super) struct TopPaths(HashMap<Box<[u8]>, f64>);

impl TopPaths {
    pub(super) fn add(&mut self, path: Box<[u8]>) {
        if let Some(count) = self.0.get_mut(&path) {
            *count += 1.0;
            return;
        }
        let mut inherited = 0.0;
        if self.0.len() >= MOST_PATHS {
            let smallest = self.0.iter().min_by(|(_, one), (_, other)| one.total_cmp(other));
            if let Some((path, count)) = smallest.map(|(path, count)| (path.clone(), *count)) {
                self.0.remove(&path);
                inherited = count;
            }
        }
        self.0.insert(path, inherited + 1.0);
    }

    /// Must be called once a minute.
    pub(super) fn decay(&mut self) {
        self.0.retain(|_, count| {
            *count *= DECAY;
            *count > 0.1
        });
    }

    /// The most frequent paths with their shares of all samples.
    pub(super) fn top(&self, count: usize) -> Vec<(&[u8], f64)> {
        let all: f64 = self.0.values().sum();
        let mut paths: Vec<(&[u8], f64)> =
            self.0.iter().map(|(path, count)| (&**path, count / all)).collect();
        paths.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
        paths.truncate(count);
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequent_path_is_found_among_any_number_of_rare_ones() {
        let mut paths = TopPaths::default();
        for number in 0..10_000 {
            paths.add(format!("/rare/{number}").into_bytes().into());
            if number % 3 == 0 {
                paths.add(b"/frequent"[..].into());
            }
        }
        assert_eq!(paths.0.len(), MOST_PATHS);
        assert_eq!(paths.top(10)[0].0, b"/frequent");
        for _ in 0..200 {
            paths.decay();
        }
        assert!(paths.top(10).is_empty());
    }
}
