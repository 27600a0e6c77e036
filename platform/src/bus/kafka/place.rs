//! One shard of a subscription: how far it was read, and what waits to be handed on.

use std::collections::VecDeque;
use std::sync::Arc;

use schemas::Record;
use tokio::time::Instant;

use super::peek::Span;

/// A shard that is read.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shard: u16,
    /// The last position that was taken from the partition.
    pub(super) last: u64,
    /// The offset that comes next.
    pub(super) next: i64,
    /// What was taken and not handed on yet, with its size.
    pub(super) held: VecDeque<(Arc<Record>, usize)>,
    /// The position after which a gap was seen: the partition is read again from where the missing may be, once.
    suspect: Option<u64>,
    /// Nothing is taken until then, for what comes next is not there or cannot be read.
    pub(super) stalled: Option<Instant>,
    /// Whether a record that is none of ours was told of.
    pub(super) foreign_told: bool,
    /// Whether it is known to have records that have not come yet, right after the partition was opened.
    pub(super) awaited: bool,
    /// The partition's end as of the last look, while it is beyond what has come.
    pub(super) beyond: Option<i64>,
    /// The offset that came next when the look began that is under way: more may have come by the time that it ends.
    looked_from: i64,
}

/// What to do with the record at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is next.
    Take,
    /// It was taken before.
    Pass,
    /// Something is missing before it: read again.
    Reread,
    /// The same after that.
    Missing,
}

impl Place {
    pub(super) fn new(shard: u16, last: u64) -> Self {
        Self {
            shard,
            last,
            next: 0,
            held: VecDeque::new(),
            suspect: None,
            stalled: None,
            foreign_told: false,
            awaited: false,
            beyond: None,
            looked_from: 0,
        }
    }

    /// Reading begins in a partition as it is now.
    pub(super) fn open(&mut self, span: Span) {
        self.next = start(self.last, span);
        self.awaited = self.next < span.high;
        self.beyond = None;
        self.looked_from = self.next;
        self.stalled = None;
    }

    /// A look at the partition's end begins.
    pub(super) fn look(&mut self) {
        self.looked_from = self.next;
    }

    /// What to do with the record at this position, the next that came.
    pub(super) fn judge(&mut self, position: u64) -> Verdict {
        if position <= self.last {
            Verdict::Pass
        } else if position == self.last + 1 {
            Verdict::Take
        } else if self.suspect.replace(self.last) == Some(self.last) {
            Verdict::Missing
        } else {
            Verdict::Reread
        }
    }

    /// Whether the partition is another than the one that was opened, or its records do not come. `waited` says that
    /// all that came since the last look was taken.
    pub(super) fn is_lost(&mut self, span: Span, waited: bool) -> bool {
        let overdue = waited && self.beyond.is_some_and(|high| self.next < high);
        self.beyond = (self.next < span.high).then_some(span.high);
        overdue || span.high < self.looked_from
    }
}

/// Where reading begins, after the position `last`.
///
/// Position p stands at offset p - 1 or behind, so that what comes after `last` is not before offset `last`. Where the
/// partition ends before that, it is being filled again, and nothing of interest has come yet.
pub(super) fn start(last: u64, span: Span) -> i64 {
    let lowest = i64::try_from(last).unwrap_or(i64::MAX);
    lowest.min(span.high).max(span.low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(low: i64, high: i64) -> Span {
        Span { shard: 0, low, high }
    }

    #[test]
    fn begins_where_the_next_may_be_at_the_earliest() {
        let mut place = Place::new(0, 7);
        place.open(span(0, 20));
        assert!(place.next == 7 && place.awaited);
        place.open(span(0, 7));
        assert!(place.next == 7 && !place.awaited);
    }

    #[test]
    fn begins_at_the_end_of_what_is_filled_again_and_at_the_beginning_of_what_was_cut() {
        assert_eq!([start(7, span(0, 3)), start(7, span(12, 12)), start(7, span(12, 14))], [3, 12, 12]);
    }

    #[test]
    fn takes_each_position_once_and_reads_again_before_it_says_that_one_is_missing() {
        let mut place = Place::new(0, 7);
        assert_eq!([place.judge(3), place.judge(7), place.judge(8)], [Verdict::Pass, Verdict::Pass, Verdict::Take]);
        place.last = 8;
        assert_eq!([place.judge(10), place.judge(10)], [Verdict::Reread, Verdict::Missing]);
        assert_eq!(place.judge(9), Verdict::Take);
        place.last = 9;
        assert_eq!(place.judge(11), Verdict::Reread);
    }

    #[test]
    fn a_partition_that_shrank_or_keeps_its_records_is_lost() {
        let mut place = Place::new(0, 5);
        place.open(span(0, 9));
        assert!(!place.is_lost(span(0, 9), true), "there was no time for them to come");
        assert!(!place.is_lost(span(0, 9), false), "others may be in their way");
        assert!(place.is_lost(span(0, 9), true));
        place.next = 9;
        place.look();
        assert!(!place.is_lost(span(0, 9), true));
        place.next = 12;
        assert!(!place.is_lost(span(0, 9), true), "three came while it was looked at");
        place.look();
        assert!(place.is_lost(span(0, 4), true));
    }
}
