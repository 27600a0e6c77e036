//! Which acks are owed to the server, and when: cumulative, coalesced by number and by time. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// Acks that wait to be written, and what was written on this connection.
#[derive(Debug)]
pub(crate) struct Acks {
    every: u64,
    within: Duration,
    owed: HashMap<Uuid, u64>,
    events: u64,
    since: Option<Instant>,
    written: HashMap<Uuid, u64>,
}

impl Acks {
    /// Acks are due once they cover `every` events, or the oldest has waited for `within`.
    pub(crate) fn new(every: u32, within: Duration) -> Self {
        Self {
            every: u64::from(every.max(1)),
            within,
            owed: HashMap::new(),
            events: 0,
            since: None,
            written: HashMap::new(),
        }
    }

    /// The application has everything of the conversation up to `seq`.
    pub(crate) fn take(&mut self, conversation: Uuid, seq: u64, now: Instant) {
        let before = self.owed.get(&conversation).or_else(|| self.written.get(&conversation)).copied();
        if before.is_some_and(|before| seq <= before) {
            return;
        }
        self.owed.insert(conversation, seq);
        self.events += before.map_or(1, |before| seq - before);
        self.since.get_or_insert(now);
    }

    /// An event came again: its ack may have been lost, so it is owed once more if it was written.
    pub(crate) fn repeat(&mut self, conversation: Uuid, seq: u64, now: Instant) {
        if let Some(written) = self.written.get(&conversation).copied().filter(|written| seq <= *written) {
            self.owed.entry(conversation).or_insert(written);
            self.since.get_or_insert(now);
        }
    }

    /// When the acks that are owed have to leave; none are owed if `None`.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.since?;
        Some(if self.events >= self.every { since } else { since + self.within })
    }

    /// The acks to write, if they are due.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<(Uuid, u64)> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.drain_all()
    }

    /// All acks that are owed, due or not.
    pub(crate) fn drain_all(&mut self) -> Vec<(Uuid, u64)> {
        self.events = 0;
        self.since = None;
        let acks: Vec<_> = self.owed.drain().collect();
        self.written.extend(acks.iter().copied());
        acks
    }

    /// The connection is gone, and with it perhaps the last acks: all that were written on it are owed again.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        for (conversation, seq) in self.written.drain() {
            let owed = self.owed.entry(conversation).or_insert(seq);
            *owed = seq.max(*owed);
        }
        if !self.owed.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// Forgets a conversation that its user has left.
    pub(crate) fn leave(&mut self, conversation: Uuid) {
        self.owed.remove(&conversation);
        self.written.remove(&conversation);
        if self.owed.is_empty() {
            self.since = None;
            self.events = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_millis(50);

    #[test]
    fn acks_wait_for_each_other_but_not_for_long() {
        let (mut acks, conversation, now) = (Acks::new(100, WITHIN), Uuid::now_v7(), Instant::now());
        assert_eq!(acks.due(), None);
        acks.take(conversation, 7, now);
        acks.take(conversation, 8, now + WITHIN / 2);
        assert_eq!(acks.due(), Some(now + WITHIN));
        assert_eq!(acks.drain(now), []);
        assert_eq!(acks.drain(now + WITHIN), [(conversation, 8)]);
        assert_eq!(acks.due(), None);
        acks.take(conversation, 8, now + WITHIN);
        assert_eq!(acks.due(), None, "acked already");
    }

    #[test]
    fn a_hundred_events_are_acked_at_once() {
        let (mut acks, conversation, now) = (Acks::new(100, WITHIN), Uuid::now_v7(), Instant::now());
        for seq in 1..=100 {
            assert_eq!(acks.drain(now), []);
            acks.take(conversation, seq, now);
        }
        assert_eq!(acks.drain(now), [(conversation, 100)]);
    }

    #[test]
    fn what_a_lost_connection_may_have_swallowed_is_acked_again() {
        let (mut acks, conversation, now) = (Acks::new(1, WITHIN), Uuid::now_v7(), Instant::now());
        acks.take(conversation, 3, now);
        assert_eq!(acks.drain(now), [(conversation, 3)]);
        acks.disconnected(now);
        assert_eq!(acks.drain(now + WITHIN), [(conversation, 3)]);
        acks.repeat(conversation, 2, now);
        assert_eq!(acks.drain(now + WITHIN), [(conversation, 3)]);
        acks.leave(conversation);
        acks.disconnected(now);
        assert_eq!(acks.due(), None);
    }
}
