//! Lines that were written twice, by one who had no answer or by two who both led for a moment, told from the first of each.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Which lines were read before: eight bytes of each, by a hash that nobody can aim at.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    read: HashSet<u64>,
    hasher: RandomState,
}

impl Repeats {
    /// Whether this line is read for the first time. Two lines of one number that differ are both.
    pub(crate) fn is_new(&mut self, line: &str) -> bool {
        self.read.insert(self.hasher.hash_one(line))
    }

    pub(crate) fn clear(&mut self) {
        self.read.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_new_once() {
        let mut repeats = Repeats::default();
        let lines = ["one", "two", "one", "three", "two", "two", "another two"];
        let new: Vec<_> = lines.into_iter().filter(|line| repeats.is_new(line)).collect();
        assert_eq!(new, ["one", "two", "three", "another two"]);
        repeats.clear();
        assert!(repeats.is_new("one"));
    }
}
