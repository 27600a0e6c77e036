//! Messages on their way: each is tried under its one id until the server has answered for it. Pure.
//!
//! The order of one conversation's messages is kept: a message leaves only when none before it waits. With a pipeline of
//! one, the default, not even a refusal that is worth a retry (a rate limit) lets a later message overtake.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use uuid::Uuid;

use schemas::rest::SendMessage;

/// A message and where it is bound for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Draft {
    /// The conversation that it is sent to.
    pub conversation_id: Uuid,
    /// The message, with the id that it keeps over every retry.
    #[serde(flatten)]
    pub message: SendMessage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be sent, at once or not before an instant.
    Waiting(Option<Instant>),
    /// Written to the connection, not answered yet.
    InFlight(Instant),
}

#[derive(Debug)]
struct Entry {
    draft: Draft,
    state: State,
    attempts: u32,
}

/// The queue of messages that are not answered yet, oldest first.
#[derive(Debug)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    pipeline: usize,
    patience: Duration,
}

impl Outbox {
    /// At most `pipeline` messages of a conversation are in flight at once; one that is not answered within `patience` is
    /// sent again.
    pub(crate) fn new(pipeline: usize, patience: Duration) -> Self {
        Self { entries: VecDeque::new(), pipeline: pipeline.max(1), patience }
    }

    /// Queues a message; `false` if one with its id is queued already.
    pub(crate) fn push(&mut self, draft: Draft) -> bool {
        if self.position(draft.message.message_id).is_some() {
            return false;
        }
        self.entries.push_back(Entry { draft, state: State::Waiting(None), attempts: 0 });
        true
    }

    /// The messages to write now, in order; they count as in flight from here on.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<Draft> {
        let mut in_flight: HashMap<Uuid, usize> = HashMap::new();
        for entry in &self.entries {
            if self.is_in_flight(entry, now) {
                *in_flight.entry(entry.draft.conversation_id).or_default() += 1;
            }
        }
        let mut held: HashSet<Uuid> = HashSet::new();
        let mut out = Vec::new();
        let (pipeline, patience) = (self.pipeline, self.patience);
        for entry in &mut self.entries {
            let conversation = entry.draft.conversation_id;
            let ready = match entry.state {
                State::Waiting(not_before) => not_before.is_none_or(|at| at <= now),
                State::InFlight(since) if since + patience <= now => true,
                State::InFlight(_) => continue,
            };
            let flying = in_flight.entry(conversation).or_default();
            if !ready {
                held.insert(conversation);
                continue;
            }
            if held.contains(&conversation) || *flying >= pipeline {
                // No longer a matter of time, but of those before it.
                entry.state = State::Waiting(None);
                held.insert(conversation);
                continue;
            }
            *flying += 1;
            entry.state = State::InFlight(now);
            entry.attempts += 1;
            out.push(entry.draft.clone());
        }
        out
    }

    /// When `drain` may have something next, if it is only a matter of time.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.entries
            .iter()
            .filter_map(|entry| match entry.state {
                State::Waiting(not_before) => not_before,
                State::InFlight(since) => Some(since + self.patience),
            })
            .min()
    }

    /// The server answered for good: the message leaves the queue.
    pub(crate) fn resolve(&mut self, message: Uuid) -> Option<Draft> {
        let position = self.position(message)?;
        self.entries.remove(position).map(|entry| entry.draft)
    }

    /// The server refused for now: the message is sent again, not before `at`.
    pub(crate) fn retry(&mut self, message: Uuid, at: Instant) {
        if let Some(position) = self.position(message) {
            self.entries[position].state = State::Waiting(Some(at));
        }
    }

    /// How often a message was written, 0 if it is not queued.
    pub(crate) fn attempts(&self, message: Uuid) -> u32 {
        self.position(message).map_or(0, |position| self.entries[position].attempts)
    }

    /// The connection is gone: what was in flight may or may not have arrived, so it is sent again first.
    pub(crate) fn disconnected(&mut self) {
        for entry in &mut self.entries {
            entry.state = State::Waiting(None);
        }
    }

    fn position(&self, message: Uuid) -> Option<usize> {
        self.entries.iter().position(|entry| entry.draft.message.message_id == message)
    }

    fn is_in_flight(&self, entry: &Entry, now: Instant) -> bool {
        matches!(entry.state, State::InFlight(since) if since + self.patience > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn draft(conversation: u128, message: u128) -> Draft {
        Draft {
            conversation_id: Uuid::from_u128(conversation),
            message: SendMessage { message_id: Uuid::from_u128(message), ..crate::text_message("hello") },
        }
    }

    fn ids(drafts: &[Draft]) -> Vec<u128> {
        drafts.iter().map(|draft| draft.message.message_id.as_u128()).collect()
    }

    #[test]
    fn one_at_a_time_in_a_conversation_and_conversations_beside_each_other() {
        let (mut outbox, now) = (Outbox::new(1, PATIENCE), Instant::now());
        for (conversation, message) in [(1, 10), (1, 11), (2, 20)] {
            assert!(outbox.push(draft(conversation, message)));
        }
        assert!(!outbox.push(draft(1, 10)), "queued already");
        assert_eq!(ids(&outbox.drain(now)), [10, 20]);
        assert_eq!(ids(&outbox.drain(now)), []);
        assert!(outbox.resolve(Uuid::from_u128(10)).is_some());
        assert_eq!(ids(&outbox.drain(now)), [11]);
        assert!(outbox.resolve(Uuid::from_u128(10)).is_none(), "answered twice");
    }

    #[test]
    fn a_refusal_for_now_holds_what_comes_after() {
        let (mut outbox, now) = (Outbox::new(1, PATIENCE), Instant::now());
        outbox.push(draft(1, 10));
        outbox.push(draft(1, 11));
        assert_eq!(ids(&outbox.drain(now)), [10]);
        let later = now + Duration::from_secs(2);
        outbox.retry(Uuid::from_u128(10), later);
        assert_eq!(ids(&outbox.drain(now)), []);
        assert_eq!(outbox.due(), Some(later));
        assert_eq!(ids(&outbox.drain(later)), [10]);
        assert_eq!(outbox.attempts(Uuid::from_u128(10)), 2);
    }

    #[test]
    fn what_is_not_answered_is_sent_again_in_its_order() {
        let (mut outbox, now) = (Outbox::new(8, PATIENCE), Instant::now());
        for message in 10..13 {
            outbox.push(draft(1, message));
        }
        assert_eq!(ids(&outbox.drain(now)), [10, 11, 12]);
        outbox.resolve(Uuid::from_u128(11));
        outbox.disconnected();
        assert_eq!(ids(&outbox.drain(now)), [10, 12]);
        assert_eq!(outbox.due(), Some(now + PATIENCE));
        assert_eq!(ids(&outbox.drain(now + PATIENCE)), [10, 12]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u128),
        Write,
        /// The server handles the oldest frame on the wire; the flag says whether its answer gets through.
        Serve(bool),
        /// The server refuses the oldest frame for now.
        Refuse,
        Disconnect,
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u128..3).prop_map(Step::Push),
            3 => Just(Step::Write),
            4 => any::<bool>().prop_map(Step::Serve),
            1 => Just(Step::Refuse),
            1 => Just(Step::Disconnect),
            1 => Just(Step::Wait),
        ]
    }

    /// A server that keeps the first transmission of each id, as ours does.
    #[derive(Default)]
    struct Server {
        log: Vec<Draft>,
    }

    impl Server {
        fn take(&mut self, draft: &Draft) {
            if !self.log.iter().any(|known| known.message.message_id == draft.message.message_id) {
                self.log.push(draft.clone());
            }
        }

        fn of(&self, conversation: u128) -> Vec<u128> {
            let of: Vec<_> = self
                .log
                .iter()
                .filter(|draft| draft.conversation_id == Uuid::from_u128(conversation))
                .cloned()
                .collect();
            ids(&of)
        }
    }

    proptest! {
        /// Whatever is lost and refused on the way: every message arrives once, in the order of its conversation.
        #[test]
        fn every_message_arrives_once_and_in_order(
            pipeline in 1usize..4,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut now = Instant::now();
            let mut outbox = Outbox::new(pipeline, PATIENCE);
            let (mut server, mut wire) = (Server::default(), VecDeque::new());
            let mut pushed: HashMap<u128, Vec<u128>> = HashMap::new();
            let mut next = 100u128;
            // With a pipeline, a refusal lets the others that fly already overtake; order is promised without one.
            let refusals = pipeline == 1;
            for step in steps {
                match step {
                    Step::Push(conversation) => {
                        next += 1;
                        outbox.push(draft(conversation, next));
                        pushed.entry(conversation).or_default().push(next);
                    }
                    Step::Write => wire.extend(outbox.drain(now)),
                    Step::Serve(answered) => {
                        if let Some(draft) = wire.pop_front() {
                            server.take(&draft);
                            if answered {
                                outbox.resolve(draft.message.message_id);
                            }
                        }
                    }
                    Step::Refuse if refusals => {
                        if let Some(draft) = wire.pop_front() {
                            outbox.retry(draft.message.message_id, now + Duration::from_secs(1));
                        }
                    }
                    Step::Refuse => {}
                    Step::Disconnect => {
                        wire.clear();
                        outbox.disconnected();
                    }
                    Step::Wait => now += Duration::from_secs(1),
                }
            }
            for _ in 0..2 * next {
                now += PATIENCE;
                for draft in wire.drain(..).chain(outbox.drain(now)) {
                    server.take(&draft);
                    outbox.resolve(draft.message.message_id);
                }
            }
            prop_assert!(outbox.entries.is_empty());
            for (conversation, messages) in pushed {
                prop_assert_eq!(server.of(conversation), messages);
            }
        }
    }
}
