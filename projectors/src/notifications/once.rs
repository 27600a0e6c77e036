//! What lasts is said once, and again only after it was over.

use std::collections::HashSet;

use uuid::Uuid;

/// Those of whom it was said.
#[derive(Default)]
pub(super) struct Once(HashSet<Uuid>);

impl Once {
    /// Those of whom it is to be said, of all of whom it is true now.
    pub(super) fn news(&mut self, now: &[Uuid]) -> Vec<Uuid> {
        let before = std::mem::replace(&mut self.0, now.iter().copied().collect());
        now.iter().copied().filter(|one| !before.contains(one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_it_once_while_it_lasts() {
        let [first, second] = [1, 2].map(Uuid::from_u128);
        let mut once = Once::default();
        assert_eq!(once.news(&[first]), [first]);
        assert_eq!(once.news(&[first, second]), [second]);
        assert!(once.news(&[second]).is_empty());
        assert_eq!(once.news(&[first, second]), [first]);
    }
}
