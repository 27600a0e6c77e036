//! Unique values and look-ups of a batch: what was read of `log.keys`, what the batch changes, and the net of it.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

/// One change, in the order in which commands made them.
#[derive(Debug, Clone)]
struct Op {
    scope: &'static str,
    key: String,
    change: Change,
    before: Before,
}

/// What a look-up would have said before a change.
#[derive(Debug, Clone, Copy)]
enum Before {
    Unknown,
    Known(Option<Uuid>),
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// No one has it.
    Release,
    /// The owner, whoever had it.
    Put(Uuid),
    /// The owner; an error where someone has it.
    Claim(Uuid),
}

/// The keys that a batch looks at and changes.
#[derive(Debug, Default)]
pub(crate) struct KeyOps {
    known: HashMap<&'static str, HashMap<String, Option<Uuid>>>,
    ops: Vec<Op>,
}

impl KeyOps {
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.ops.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Takes note of what the database says.
    pub(crate) fn load(&mut self, scope: &'static str, key: String, owner: Option<Uuid>) {
        self.known.entry(scope).or_default().insert(key, owner);
    }

    pub(crate) fn get(&self, scope: &'static str, key: &str) -> Option<Uuid> {
        *self
            .known
            .get(scope)
            .and_then(|keys| keys.get(key))
            .unwrap_or_else(|| panic!("a key of scope {scope:?} is not among the command's reads"))
    }

    pub(crate) fn claim(&mut self, scope: &'static str, key: String, owner: Uuid) {
        self.push(scope, key, Change::Claim(owner), Some(owner));
    }

    pub(crate) fn put(&mut self, scope: &'static str, key: String, owner: Uuid) {
        self.push(scope, key, Change::Put(owner), Some(owner));
    }

    pub(crate) fn release(&mut self, scope: &'static str, key: String) {
        self.push(scope, key, Change::Release, None);
    }

    fn push(&mut self, scope: &'static str, key: String, change: Change, now: Option<Uuid>) {
        let before = self.known.entry(scope).or_default().insert(key.clone(), now);
        let before = before.map_or(Before::Unknown, Before::Known);
        self.ops.push(Op { scope, key, change, before });
    }

    /// Undoes all but the first `length` changes.
    pub(crate) fn truncate(&mut self, length: usize) {
        while self.ops.len() > length {
            let Some(Op { scope, key, before, .. }) = self.ops.pop() else { break };
            let keys = self.known.entry(scope).or_default();
            match before {
                Before::Known(owner) => keys.insert(key, owner),
                Before::Unknown => keys.remove(&key),
            };
        }
    }

    /// One change a key, in the order of the keys: all transactions take their locks in it.
    ///
    /// Two claims of one key stay two, so that the database refuses them.
    pub(crate) fn net(&self) -> Vec<(&'static str, &str, Change)> {
        let mut net: BTreeMap<(&'static str, &str), Vec<Change>> = BTreeMap::new();
        for Op { scope, key, change, .. } in &self.ops {
            let changes = net.entry((scope, key)).or_default();
            match (changes.pop(), *change) {
                // What was claimed had no owner before, and has none now.
                (Some(Change::Claim(_)), Change::Release) => {}
                (Some(Change::Claim(_)), Change::Put(owner)) => changes.push(Change::Claim(owner)),
                (Some(Change::Release), Change::Claim(owner)) => changes.push(Change::Put(owner)),
                (Some(taken @ (Change::Claim(_) | Change::Put(_))), claim @ Change::Claim(_)) => {
                    changes.extend([taken, claim]);
                }
                (_, last) => changes.push(last),
            }
        }
        net.into_iter()
            .flat_map(|((scope, key), changes)| changes.into_iter().map(move |change| (scope, key, change)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    #[test]
    fn the_net_of_changes_is_one_a_key_in_the_order_of_keys() {
        let mut keys = KeyOps::default();
        keys.claim("name", "z".into(), A);
        keys.put("name", "z".into(), B);
        keys.release("name", "moved".into());
        keys.claim("name", "moved".into(), B);
        keys.claim("name", "brief".into(), A);
        keys.release("name", "brief".into());
        keys.put("device", "x".into(), A);
        keys.put("device", "x".into(), B);
        keys.release("device", "x".into());
        assert_eq!(
            keys.net(),
            [("device", "x", Change::Release), ("name", "moved", Change::Put(B)), ("name", "z", Change::Claim(B)),]
        );
    }

    #[test]
    fn a_key_claimed_twice_stays_claimed_twice() {
        let mut keys = KeyOps::default();
        keys.claim("name", "a".into(), A);
        keys.claim("name", "a".into(), B);
        assert_eq!(keys.net(), [("name", "a", Change::Claim(A)), ("name", "a", Change::Claim(B))]);
    }

    #[test]
    fn undone_changes_are_not_seen() {
        let mut keys = KeyOps::default();
        keys.load("name", "a".into(), Some(A));
        keys.load("name", "b".into(), None);
        keys.put("name", "a".into(), B);
        let length = keys.len();
        keys.release("name", "a".into());
        keys.claim("name", "b".into(), A);
        assert_eq!((keys.get("name", "a"), keys.get("name", "b")), (None, Some(A)));
        keys.truncate(length);
        assert_eq!((keys.get("name", "a"), keys.get("name", "b")), (Some(B), None));
        keys.truncate(0);
        assert_eq!(keys.get("name", "a"), Some(A));
    }
}
