//! Who has which line.

use crate::balancer::policy::draw::{Choice, Choices};

/// A backend as the world outside of a policy knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) backend: u32,
    pub(super) identity: u32,
}

impl Choice for Name {
    fn backend(&self) -> u32 {
        self.backend
    }

    fn identity(&self) -> u32 {
        self.identity
    }
}

/// The backends by the numbers of their lines, between which there are lines of backends that are not chosen from.
#[derive(Debug)]
pub(super) struct Names {
    by_line: Box<[Option<Name>]>,
    /// The numbers of those lines that have a name, in order.
    named: Box<[u32]>,
}

impl Names {
    pub(super) fn new(mut by_line: Vec<Option<Name>>) -> Self {
        let named: Box<[u32]> = (0..).zip(&by_line).filter_map(|(line, name)| name.map(|_| line)).collect();
        by_line.truncate(named.last().map_or(0, |last| *last as usize + 1));
        Self { by_line: by_line.into_boxed_slice(), named }
    }

    /// How many lines there are up to the last one with a name.
    pub(super) fn lines(&self) -> usize {
        self.by_line.len()
    }
}

impl Choices for Names {
    type Choice = Name;

    fn count(&self) -> usize {
        self.named.len()
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&Name> {
        self.by_line.get(index)?.as_ref()
    }

    fn from(&self, index: usize) -> impl Iterator<Item = usize> {
        let start = self.named.partition_point(|line| (*line as usize) < index);
        let (before, from) = self.named.split_at_checked(start).unwrap_or_default();
        from.iter().chain(before).map(|line| *line as usize)
    }
}
