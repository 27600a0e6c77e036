//! Where a device begins: from what is stored of it and what it says itself. Pure.

use std::collections::{HashMap, HashSet};

use schemas::rest::FieldError;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// A device that is new begins this far before the head.
const BACKLOG_OF_NEW_DEVICES: u64 = 50;
/// Clocks differ, and watermarks that move while a device acks are told again rather than not.
const RECEIPTS_MARGIN: Duration = Duration::seconds(60);

/// What is stored of a device and its user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// Whether the device said hello before.
    pub(crate) known: bool,
    /// The conversations that the user is in.
    pub(crate) stays: Vec<Stay>,
    /// The device's cursors, and those of conversations that it named where the user is or was.
    pub(crate) cursors: Vec<Cursor>,
    /// Conversations that the device has a cursor of, or named, which the user was in and is no longer.
    pub(crate) former: Vec<Uuid>,
}

/// A user's membership of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stay {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// `seq` of the own `member_joined`; 0 for those it was created with.
    pub(crate) joined: u64,
    /// The highest number known to be committed.
    pub(crate) head: u64,
    /// The user's own watermark.
    pub(crate) delivered_to: u64,
    /// How many members there are.
    pub(crate) members: u32,
}

/// What a device has taken of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// The stay, by its `joined`; absent where the device was never connected in it.
    pub(crate) joined: Option<u64>,
    /// Everything up to here.
    pub(crate) acked: u64,
    /// When the device last said so; absent where it never did.
    pub(crate) acked_at: Option<OffsetDateTime>,
}

/// Where a device begins.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Each conversation.
    pub(crate) flows: Vec<Begin>,
    /// Conversations that the user is not in any more, or not any more in the same stay.
    pub(crate) left: Vec<Uuid>,
    /// Cursors that were given and are not good.
    pub(crate) errors: Vec<FieldError>,
    /// Cursors that have to be stored.
    pub(crate) store: Vec<Cursor>,
    /// Whose cursors have to be forgotten.
    pub(crate) forget: Vec<Uuid>,
    /// Whether the device is new.
    pub(crate) is_new: bool,
    /// How far the log had got, by shard, before watermarks were read: what it tells up to there is in them.
    pub(crate) read_at: Box<[u64]>,
}

/// Where a device begins in a conversation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Begin {
    /// The membership.
    pub(crate) stay: Stay,
    /// After which number.
    pub(crate) after: u64,
    /// Told are watermarks that moved later than this; all, where it is absent.
    pub(crate) receipts_since: Option<OffsetDateTime>,
    /// What the device acked, where the user's watermark does not show it.
    pub(crate) unreported: Option<u64>,
}

impl Plan {
    /// Compares what is stored with what the device says; `heads` are those of the log.
    pub(crate) fn new(stored: &Stored, given: &[(Uuid, u64)], heads: &HashMap<Uuid, u64>) -> Self {
        let mut plan = Self { is_new: !stored.known, ..Self::default() };
        let cursors: HashMap<_, _> = stored.cursors.iter().map(|cursor| (cursor.conversation_id, *cursor)).collect();
        let given_by_conversation: HashMap<_, _> = given.iter().copied().collect();
        let mut known = HashSet::new();
        for stay in &stored.stays {
            known.insert(stay.conversation_id);
            let given = given_by_conversation.get(&stay.conversation_id).copied();
            let cursor = cursors.get(&stay.conversation_id).copied();
            plan.begin(*stay, cursor, given, heads);
        }
        for conversation in &stored.former {
            if known.insert(*conversation) && cursors.contains_key(conversation) {
                plan.left.push(*conversation);
                plan.forget.push(*conversation);
            }
        }
        for (conversation, seq) in given {
            if *seq > 0 && !known.contains(conversation) {
                plan.refuse(*conversation);
            }
        }
        plan
    }

    fn begin(&mut self, mut stay: Stay, cursor: Option<Cursor>, given: Option<u64>, heads: &HashMap<Uuid, u64>) {
        let Stay { conversation_id, joined, .. } = stay;
        stay.head = stay.head.max(heads.get(&conversation_id).copied().unwrap_or_default());
        let of_this_stay = cursor.filter(|cursor| match cursor.joined {
            Some(of) => of == joined,
            None => cursor.acked + 1 >= joined,
        });
        // Left, and came again, while the device was away: what it knows of the earlier stay counts no more.
        let came_again = of_this_stay.is_none() && cursor.is_some_and(|cursor| cursor.joined.is_some());
        if came_again {
            self.left.push(conversation_id);
        }
        let given = given.filter(|given| !came_again || *given >= joined);
        let stored = of_this_stay.unwrap_or_else(|| {
            let acked =
                if self.is_new { stay.head.saturating_sub(BACKLOG_OF_NEW_DEVICES) } else { joined.saturating_sub(1) };
            let cursor = Cursor { conversation_id, joined: Some(joined), acked, acked_at: None };
            self.store.push(cursor);
            cursor
        });
        let after = match given {
            Some(given) if given > stay.head => {
                self.refuse(conversation_id);
                stored.acked
            }
            Some(given) => given,
            None => stored.acked,
        };
        let acked = stored.acked_at.is_some().then_some(stored.acked);
        self.flows.push(Begin {
            stay,
            after,
            receipts_since: stored.acked_at.map(|at| at - RECEIPTS_MARGIN),
            unreported: acked.filter(|acked| *acked > stay.delivered_to.max(joined)),
        });
    }

    fn refuse(&mut self, conversation: Uuid) {
        self.errors.push(FieldError {
            pointer: Some(format!("/cursors/{conversation}")),
            parameter: None,
            detail: "is beyond the last event".to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const AT: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn stay(number: u128, joined: u64, head: u64) -> Stay {
        Stay { conversation_id: id(number), joined, head, delivered_to: 0, members: 2 }
    }

    fn cursor(number: u128, joined: u64, acked: u64) -> Cursor {
        Cursor { conversation_id: id(number), joined: Some(joined), acked, acked_at: Some(AT) }
    }

    fn plan(stored: &Stored, given: &[(Uuid, u64)]) -> Plan {
        Plan::new(stored, given, &HashMap::new())
    }

    fn after(plan: &Plan) -> Vec<u64> {
        plan.flows.iter().map(|flow| flow.after).collect()
    }

    #[test]
    fn a_new_device_begins_fifty_before_the_head_and_that_is_stored() {
        let stored = Stored { stays: vec![stay(1, 0, 120), stay(2, 7, 30)], ..Stored::default() };
        let plan = plan(&stored, &[]);
        assert!(plan.is_new);
        assert_eq!(after(&plan), [70, 0]);
        let stored: Vec<_> = plan.store.iter().map(|cursor| (cursor.acked, cursor.acked_at)).collect();
        assert_eq!(stored, [(70, None), (0, None)]);
    }

    #[test]
    fn a_known_device_goes_on_where_it_acked_and_begins_what_is_new_at_the_join() {
        let stored = Stored {
            known: true,
            stays: vec![stay(1, 0, 120), stay(2, 7, 30), stay(3, 0, 5)],
            cursors: vec![cursor(1, 0, 100)],
            former: vec![],
        };
        let plan = plan(&stored, &[]);
        assert_eq!(after(&plan), [100, 6, 0]);
        assert_eq!(plan.store.iter().map(|cursor| cursor.conversation_id).collect::<Vec<_>>(), [id(2), id(3)]);
        assert_eq!(plan.flows[0].unreported, Some(100));
        assert_eq!(plan.flows[0].receipts_since, Some(AT - RECEIPTS_MARGIN));
        assert_eq!(plan.flows[1].receipts_since, None);
    }

    #[test]
    fn given_cursors_position_the_connection_and_are_not_stored() {
        let stored = Stored {
            known: true,
            stays: vec![stay(1, 0, 120), stay(2, 0, 30)],
            cursors: vec![cursor(1, 0, 100), cursor(2, 0, 10)],
            former: vec![id(4)],
        };
        let heads = HashMap::from([(id(2), 31)]);
        let given = [(id(1), 0), (id(2), 31), (id(3), 1), (id(4), 9), (id(5), 0)];
        let plan = Plan::new(&stored, &given, &heads);
        assert_eq!(after(&plan), [0, 31]);
        assert!(plan.store.is_empty() && plan.left.is_empty());
        let pointers: Vec<_> = plan.errors.into_iter().filter_map(|error| error.pointer).collect();
        assert_eq!(pointers, [format!("/cursors/{}", id(3))], "never there; of a former one nothing is said");
        let plan = Plan::new(&stored, &[(id(2), 32)], &heads);
        assert_eq!((after(&plan), plan.errors.len()), (vec![100, 10], 1), "beyond the head: the stored one");
    }

    #[test]
    fn who_left_while_away_is_told_and_begins_again_at_the_join() {
        let stored = Stored {
            known: true,
            stays: vec![stay(2, 20, 30)],
            cursors: vec![cursor(1, 0, 100), cursor(2, 0, 10)],
            former: vec![id(1), id(2)],
        };
        let plan = plan(&stored, &[(id(1), 100), (id(2), 10)]);
        assert_eq!(plan.left, [id(2), id(1)]);
        assert_eq!(plan.forget, [id(1)]);
        assert_eq!(after(&plan), [19]);
        assert_eq!(plan.store, [Cursor { conversation_id: id(2), joined: Some(20), acked: 19, acked_at: None }]);
        assert!(plan.errors.is_empty());
    }

    #[test]
    fn what_was_acked_without_a_connection_counts_in_its_stay() {
        let unconnected = |number, acked| Cursor { joined: None, ..cursor(number, 0, acked) };
        let stored = Stored {
            known: true,
            stays: vec![stay(1, 20, 30), stay(2, 20, 30)],
            cursors: vec![unconnected(1, 25), unconnected(2, 5)],
            former: vec![],
        };
        let plan = plan(&stored, &[]);
        assert_eq!((after(&plan), plan.left), (vec![25, 19], vec![]));
    }

    #[test]
    fn a_cursor_without_any_known_stay_is_left_alone() {
        let stored = Stored { known: true, cursors: vec![cursor(1, 0, 100)], ..Stored::default() };
        assert_eq!(plan(&stored, &[]), Plan::default());
    }
}
