//! How far the user has read, of each conversation, until the server has answered. Pure.

use std::{collections::HashMap, time::Instant};

use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be written, at once or not before an instant.
    Waiting(Option<Instant>),
    /// Written to the connection, not answered yet.
    Written,
}

#[derive(Debug)]
struct Read {
    seq: u64,
    state: State,
    refusals: u32,
}

/// The furthest read of each conversation that the server has not answered.
#[derive(Debug, Default)]
pub(crate) struct Reads(HashMap<Uuid, Read>);

impl Reads {
    /// The user has read everything of the conversation up to `seq`.
    pub(crate) fn take(&mut self, conversation: Uuid, seq: u64) {
        if self.0.get(&conversation).is_none_or(|read| read.seq < seq) {
            self.0.insert(conversation, Read { seq, state: State::Waiting(None), refusals: 0 });
        }
    }

    /// What is to be written now.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<(Uuid, u64)> {
        let mut out = Vec::new();
        for (conversation, read) in &mut self.0 {
            if matches!(read.state, State::Waiting(not_before) if not_before.is_none_or(|at| at <= now)) {
                read.state = State::Written;
                out.push((*conversation, read.seq));
            }
        }
        out
    }

    /// When `drain` has something next, if it is a matter of time.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = |read: &Read| match read.state {
            State::Waiting(not_before) => not_before,
            State::Written => None,
        };
        self.0.values().filter_map(waits).min()
    }

    /// The server has answered for good.
    pub(crate) fn settled(&mut self, conversation: Uuid, seq: u64) {
        if self.0.get(&conversation).is_some_and(|read| read.seq <= seq) {
            self.0.remove(&conversation);
        }
    }

    /// The server refused for now: it is written again when `wait` says, given how often it was refused before.
    pub(crate) fn retry(&mut self, conversation: Uuid, seq: u64, wait: impl FnOnce(u32) -> Instant) {
        if let Some(read) = self.0.get_mut(&conversation).filter(|read| read.seq == seq) {
            read.state = State::Waiting(Some(wait(read.refusals)));
            read.refusals += 1;
        }
    }

    /// The connection is gone: what was written may not have arrived.
    pub(crate) fn disconnected(&mut self) {
        for read in self.0.values_mut() {
            read.state = State::Waiting(None);
        }
    }

    /// Forgets a conversation that its user has left.
    pub(crate) fn leave(&mut self, conversation: Uuid) {
        self.0.remove(&conversation);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_furthest_is_written_until_it_is_answered() {
        let (mut reads, conversation, now) = (Reads::default(), Uuid::now_v7(), Instant::now());
        reads.take(conversation, 3);
        assert_eq!(reads.drain(now), [(conversation, 3)]);
        assert_eq!(reads.drain(now), []);
        reads.disconnected();
        assert_eq!(reads.drain(now), [(conversation, 3)]);
        reads.take(conversation, 2);
        assert_eq!(reads.drain(now), []);
        reads.take(conversation, 5);
        reads.settled(conversation, 3);
        assert_eq!(reads.drain(now), [(conversation, 5)]);
        reads.settled(conversation, 5);
        reads.disconnected();
        assert_eq!(reads.drain(now), []);
    }

    #[test]
    fn what_was_refused_for_now_is_written_again_later() {
        let (mut reads, conversation, now) = (Reads::default(), Uuid::now_v7(), Instant::now());
        reads.take(conversation, 3);
        for refused in 0..3 {
            assert_eq!(reads.drain(now + Duration::from_secs(1)), [(conversation, 3)]);
            reads.retry(conversation, 3, |before| {
                assert_eq!(before, refused);
                now + Duration::from_secs(1)
            });
            assert_eq!((reads.drain(now), reads.due()), (vec![], Some(now + Duration::from_secs(1))));
        }
        reads.take(conversation, 4);
        reads.retry(conversation, 3, |_| panic!("a later one was read since"));
        assert_eq!((reads.due(), reads.drain(now)), (None, vec![(conversation, 4)]));
        reads.leave(conversation);
        reads.disconnected();
        assert_eq!(reads.drain(now), []);
    }
}
