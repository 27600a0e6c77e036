//! What a member still uses of the parts that it holds, so that none is handed over in the midst of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Part;

/// How many pieces of work use each part.
#[derive(Clone, Debug, Default)]
pub struct InUse(Arc<Mutex<BTreeMap<Part, usize>>>);

/// One piece of work that uses a part, until this is dropped.
#[derive(Debug)]
pub struct Use {
    part: Part,
    of: InUse,
}

impl InUse {
    /// Says that a part is used, whether or not it still is held.
    #[must_use]
    pub fn hold(&self, part: Part) -> Use {
        *self.0.lock().entry(part).or_default() += 1;
        Use { part, of: self.clone() }
    }

    pub(super) fn has(&self, part: Part) -> bool {
        self.0.lock().contains_key(&part)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut uses = self.of.0.lock();
        if let Some(count) = uses.get_mut(&self.part) {
            *count -= 1;
            if *count == 0 {
                uses.remove(&self.part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::Topic;

    use super::*;

    #[test]
    fn a_part_is_in_use_until_the_last_is_done_with_it() {
        let in_use = InUse::default();
        let [part, other] = [(Topic::Users, 3), (Topic::Conversations, 3)];
        let (first, second) = (in_use.hold(part), in_use.clone().hold(part));
        assert!(in_use.has(part) && !in_use.has(other));
        drop(first);
        assert!(in_use.has(part));
        drop(second);
        assert!(!in_use.has(part) && in_use.0.lock().is_empty());
    }
}
