//! Follows the facts of a batch one after the other: what was sent, and what each watermark passed.

use std::collections::HashMap;

use uuid::Uuid;

use super::delays::Tally;
use super::facts::{Change, Fact, Mark, What};
use super::watermarks::{Marks, Watermarks, Who};

/// What came of a batch.
pub(super) struct Course {
    pub(super) watermarks: Watermarks,
    pub(super) sent: Vec<Sent>,
    /// By conversation.
    pub(super) moves: HashMap<Uuid, Vec<Move>>,
    pub(super) settled: Settled,
}

/// A message that is counted for the first time.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) conversation_id: Uuid,
    pub(super) shard: u16,
    pub(super) seq: u64,
    pub(super) sender_id: Uuid,
    pub(super) at_ms: i64,
}

/// A watermark passed what is behind `from` and not behind `to`.
pub(super) struct Move {
    pub(super) user_id: Uuid,
    pub(super) mark: Mark,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) shard: u16,
    pub(super) at_ms: i64,
    /// What it passed, once the messages have been looked at.
    pub(super) tally: Tally,
}

/// By conversation, the place behind which messages may be read by all now that were not before.
pub(super) type Settled = HashMap<Uuid, u64>;

impl Course {
    pub(super) fn of(facts: &[Fact<'_>], watermarks: Watermarks) -> Self {
        let mut course = Self { watermarks, sent: Vec::new(), moves: HashMap::new(), settled: Settled::new() };
        for fact in facts {
            match fact.what {
                What::Numbered { seq, ref change } => course.numbered(fact, seq, change),
                What::Moved { user_id, mark, up_to } => course.moved(fact, user_id, mark, up_to),
            }
        }
        course
    }

    fn numbered(&mut self, fact: &Fact<'_>, seq: u64, change: &Change<'_>) {
        let Fact { conversation_id, shard, at_ms, .. } = *fact;
        if !self.watermarks.count(conversation_id, seq) {
            return;
        }
        let who = |user_id| Who { conversation_id, user_id };
        match *change {
            Change::Created(members) => {
                for member in members {
                    self.watermarks.set(who(member.user_id), Some(Marks { delivered_to: 0, read_to: 0 }));
                }
            }
            Change::Joined(user_id) => {
                self.watermarks.set(who(user_id), Some(Marks { delivered_to: seq, read_to: seq }));
            }
            Change::Left(user_id) => {
                self.watermarks.set(who(user_id), None);
                self.settle(conversation_id, 0);
            }
            Change::SentBy(sender_id) => {
                self.sent.push(Sent { conversation_id, shard, seq, sender_id, at_ms });
                // It may be for nobody.
                self.settle(conversation_id, seq - 1);
            }
            Change::Nothing => {}
        }
    }

    /// What comes again finds the watermark there already, or further, or its member gone.
    fn moved(&mut self, fact: &Fact<'_>, user_id: Uuid, mark: Mark, up_to: u64) {
        let Fact { conversation_id, shard, at_ms, .. } = *fact;
        let who = Who { conversation_id, user_id };
        let Some(before) = self.watermarks.get(who) else { return };
        let mut after = Marks { delivered_to: before.delivered_to.max(up_to), ..before };
        if mark == Mark::Read {
            after.read_to = before.read_to.max(up_to);
        }
        if after == before {
            return;
        }
        self.watermarks.set(who, Some(after));
        let passed =
            [(Mark::Delivered, before.delivered_to, after.delivered_to), (Mark::Read, before.read_to, after.read_to)];
        let moves = self.moves.entry(conversation_id).or_default();
        for (mark, from, to) in passed.into_iter().filter(|(_, from, to)| from < to) {
            moves.push(Move { user_id, mark, from, to, shard, at_ms, tally: Tally::default() });
        }
        if before.read_to < after.read_to {
            self.settle(conversation_id, before.read_to);
        }
    }

    fn settle(&mut self, conversation_id: Uuid, after: u64) {
        let lowest = self.settled.entry(conversation_id).or_insert(after);
        *lowest = after.min(*lowest);
    }
}
