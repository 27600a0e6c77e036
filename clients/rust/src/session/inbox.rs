//! What a session has handed to the application of each conversation: drops repeats, refuses gaps. Pure.

use std::collections::HashMap;

use uuid::Uuid;

/// What is to be done with an event that came over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New and in order: the application gets it.
    Take,
    /// Had already: dropped.
    Duplicate,
    /// Something before it is missing: the connection is resumed from what we have.
    Gap {
        /// The seq that should have come.
        expected: u64,
    },
}

/// The highest seq taken of each conversation.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    taken: HashMap<Uuid, u64>,
}

impl Inbox {
    /// An inbox that has everything up to the given cursors.
    pub(crate) fn new(cursors: HashMap<Uuid, u64>) -> Self {
        Self { taken: cursors }
    }

    /// Judges the event `seq` of a conversation, and counts it as taken if it is the next.
    ///
    /// The first event of a conversation that is not known yet begins it: where, the server decides. `rejoined` says that
    /// the event is the own joining, from which a device starts anew, whatever it had before.
    pub(crate) fn offer(&mut self, conversation: Uuid, seq: u64, rejoined: bool) -> Verdict {
        match self.taken.get_mut(&conversation) {
            Some(taken) if seq <= *taken => Verdict::Duplicate,
            Some(taken) if seq == *taken + 1 || rejoined => {
                *taken = seq;
                Verdict::Take
            }
            Some(taken) => Verdict::Gap { expected: *taken + 1 },
            None => {
                self.taken.insert(conversation, seq);
                Verdict::Take
            }
        }
    }

    /// Forgets a conversation that its user has left.
    pub(crate) fn leave(&mut self, conversation: Uuid) {
        self.taken.remove(&conversation);
    }

    /// The highest seq taken of each conversation.
    pub(crate) fn taken(&self) -> &HashMap<Uuid, u64> {
        &self.taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_event_begins_a_conversation_wherever_it_is() {
        let (mut inbox, conversation) = (Inbox::default(), Uuid::now_v7());
        assert_eq!(inbox.offer(conversation, 51, false), Verdict::Take);
        assert_eq!(inbox.offer(conversation, 51, false), Verdict::Duplicate);
        assert_eq!(inbox.offer(conversation, 53, false), Verdict::Gap { expected: 52 });
        assert_eq!(inbox.offer(conversation, 52, false), Verdict::Take);
    }

    #[test]
    fn joining_again_skips_what_happened_between() {
        let (mut inbox, conversation) = (Inbox::default(), Uuid::now_v7());
        assert_eq!(inbox.offer(conversation, 1, false), Verdict::Take);
        assert_eq!(inbox.offer(conversation, 9, true), Verdict::Take);
        inbox.leave(conversation);
        assert_eq!(inbox.offer(conversation, 20, false), Verdict::Take);
    }

    proptest! {
        /// However often the server repeats, resumes and skips: what is taken ascends by one.
        #[test]
        fn what_is_taken_has_no_gap_and_no_repeat(
            start in 0u64..5,
            offers in prop::collection::vec((0usize..3, 1u64..40), 1..300),
        ) {
            let conversations = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];
            let mut inbox = Inbox::new(conversations.iter().map(|c| (*c, start)).collect());
            let mut next = [start + 1; 3];
            for (which, seq) in offers {
                match inbox.offer(conversations[which], seq, false) {
                    Verdict::Take => {
                        prop_assert_eq!(seq, next[which]);
                        next[which] += 1;
                    }
                    Verdict::Duplicate => prop_assert!(seq < next[which]),
                    Verdict::Gap { expected } => {
                        prop_assert_eq!(expected, next[which]);
                        prop_assert!(seq > expected);
                    }
                }
            }
        }
    }
}
