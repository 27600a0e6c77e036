//! One conversation on one connection: what was sent, what waits, what is not acked. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::gateway::protocol::event::{About, Event};
use crate::gateway::traced::Push;

/// How long an unacked event waits before it is sent again, at first and at most.
pub(super) const FIRST_REDELIVERY_MS: u64 = 5_000;
const LONGEST_REDELIVERY_MS: u64 = 60_000;

/// Where a device stands in a conversation.
#[derive(Debug)]
pub(super) struct Flow {
    /// `seq` of the own `member_joined`; 0 for those who were there from the beginning.
    pub(super) joined: u64,
    /// Everything up to here was sent on this connection, or needed no sending.
    pub(super) sent: u64,
    /// Everything up to here was acked.
    pub(super) acked: u64,
    /// The highest number known to be committed.
    pub(super) head: u64,
    /// The user's watermark, as far as it is known.
    pub(super) delivered: u64,
    /// Has to be sent before `synced`; 0 once it was, or where nothing has to.
    pub(super) sync_to: u64,
    /// `seq` of a later own `member_joined`, told before the end of this stay was sent.
    pub(super) rejoined: Option<u64>,
    /// Whether it stands in the queue of those whose turn to send comes.
    pub(super) queued: bool,
    /// Whether its next events are being read, or stand in the queue for it.
    pub(super) wanted: bool,
    /// Events under way; absent while there are none, which is nearly always.
    pub(super) events: Option<Box<Events>>,
}

/// Events under way.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Sent and not acked, by `seq`.
    pub(super) flight: VecDeque<Flight>,
    /// To be sent: without a gap from `sent` on.
    waiting: VecDeque<Ready>,
    /// Came before those that lead up to them: without a gap in themselves.
    ahead: VecDeque<Ready>,
}

/// An event that was sent and not acked.
#[derive(Debug)]
pub(super) struct Flight {
    seq: u64,
    frame: Bytes,
    due_ms: u64,
    tries: u8,
}

/// An event to be sent.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) seq: u64,
    pub(super) about: About,
    pub(super) frame: Bytes,
    pub(super) push: Option<Arc<Push>>,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        Self { seq: event.seq, about: event.about, frame: event.frame.clone(), push: event.push.clone() }
    }
}

/// A count of events and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Amount {
    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.events -= other.events;
        self.bytes -= other.bytes;
    }

    pub(super) fn of(frame: &Bytes) -> Self {
        Self { events: 1, bytes: frame.len() }
    }

    fn of_all<'a>(frames: impl Iterator<Item = &'a Bytes>) -> Self {
        frames.fold(Self::default(), |mut sum, frame| {
            sum.add(Self::of(frame));
            sum
        })
    }
}

impl Flow {
    /// A flow that begins after `after`.
    pub(super) fn new(joined: u64, after: u64, head: u64) -> Self {
        Self {
            joined,
            sent: after,
            acked: after,
            head: head.max(after),
            delivered: 0,
            sync_to: 0,
            rejoined: None,
            queued: false,
            wanted: false,
            events: None,
        }
    }

    /// The number of the next event to be put at the end of those that wait.
    pub(super) fn next(&self) -> u64 {
        self.sent + 1 + self.events.as_ref().map_or(0, |events| events.waiting.len() as u64)
    }

    /// What has to be read: after which number, and up to which.
    pub(super) fn gap(&self) -> Option<(u64, u64)> {
        let next = self.next();
        let ahead = self.events.as_ref().and_then(|events| events.ahead.front());
        let upto = ahead.map_or(self.head, |ready| ready.seq - 1);
        (next <= upto).then(|| (next - 1, upto))
    }

    /// Whether something can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.events.as_ref().is_some_and(|events| !events.waiting.is_empty())
    }

    /// Takes an event in, where it is wanted; answers how much is held more.
    pub(super) fn take(&mut self, event: &Event, may_hold: bool) -> Amount {
        self.head = self.head.max(event.seq);
        let next = self.next();
        if event.seq < next || !may_hold {
            return Amount::default();
        }
        let events = self.events.get_or_insert_default();
        let mut amount = Amount::default();
        if event.seq == next {
            events.waiting.push_back(event.into());
            amount.add(Amount::of(&event.frame));
            return amount;
        }
        match events.ahead.back() {
            Some(last) if event.seq <= last.seq => return amount,
            // What does not follow is read later, and with it what comes after.
            Some(last) if event.seq != last.seq + 1 => return amount,
            _ => events.ahead.push_back(event.into()),
        }
        amount.add(Amount::of(&event.frame));
        amount
    }

    /// Puts what came early behind what waits, once nothing is missing between them; answers how much is held less.
    pub(super) fn close_gap(&mut self) -> Amount {
        let mut next = self.next();
        let mut doubles = Amount::default();
        if let Some(events) = &mut self.events {
            while let Some(ready) = events.ahead.pop_front_if(|ready| ready.seq <= next) {
                if ready.seq == next {
                    events.waiting.push_back(ready);
                    next += 1;
                } else {
                    doubles.add(Amount::of(&ready.frame));
                }
            }
        }
        doubles
    }

    /// The next event to be sent.
    pub(super) fn peek(&self) -> Option<&Ready> {
        self.events.as_ref()?.waiting.front()
    }

    /// Takes the next event out to be sent.
    pub(super) fn send(&mut self, now_ms: u64) -> Option<Ready> {
        let events = self.events.as_mut()?;
        let ready = events.waiting.pop_front()?;
        self.sent = ready.seq;
        events.flight.push_back(Flight {
            seq: ready.seq,
            frame: ready.frame.clone(),
            due_ms: now_ms + FIRST_REDELIVERY_MS,
            tries: 0,
        });
        Some(ready)
    }

    /// Everything up to `seq` was taken: answers how much is in flight less, and held less.
    pub(super) fn ack(&mut self, seq: u64) -> (Amount, Amount) {
        let (mut landed, mut unheld) = (Amount::default(), Amount::default());
        self.acked = self.acked.max(seq);
        self.sent = self.sent.max(seq);
        if let Some(events) = &mut self.events {
            while let Some(flight) = events.flight.pop_front_if(|flight| flight.seq <= seq) {
                landed.add(Amount::of(&flight.frame));
            }
            while let Some(ready) = events.waiting.pop_front_if(|ready| ready.seq <= seq) {
                unheld.add(Amount::of(&ready.frame));
            }
        }
        unheld.add(self.close_gap());
        self.rest();
        (landed, unheld)
    }

    /// Lets go of memory that nothing uses.
    fn rest(&mut self) {
        if self
            .events
            .as_ref()
            .is_some_and(|events| events.flight.is_empty() && events.waiting.is_empty() && events.ahead.is_empty())
        {
            self.events = None;
        }
    }

    /// Hands what is due again to `send`, lowest first; answers when the next is.
    pub(super) fn again(&mut self, now_ms: u64, mut send: impl FnMut(Bytes)) -> Option<u64> {
        let events = self.events.as_mut()?;
        for flight in events.flight.iter_mut().filter(|flight| flight.due_ms <= now_ms) {
            flight.tries = flight.tries.saturating_add(1);
            let wait = FIRST_REDELIVERY_MS.checked_shl(flight.tries.into()).unwrap_or(LONGEST_REDELIVERY_MS);
            flight.due_ms = now_ms + wait.min(LONGEST_REDELIVERY_MS);
            send(flight.frame.clone());
        }
        events.flight.iter().map(|flight| flight.due_ms).min()
    }

    /// What is in flight, and what is held.
    pub(super) fn amounts(&self) -> (Amount, Amount) {
        let Some(events) = &self.events else { return Default::default() };
        let held = events.waiting.iter().chain(&events.ahead).map(|ready| &ready.frame);
        (Amount::of_all(events.flight.iter().map(|flight| &flight.frame)), Amount::of_all(held))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(seq: u64) -> Event {
        Event {
            conversation_id: Uuid::nil(),
            seq,
            about: About::Other,
            frame: Bytes::from(seq.to_string()),
            push: None,
        }
    }

    fn sent(flow: &mut Flow) -> Vec<u64> {
        std::iter::from_fn(|| flow.send(0).map(|ready| ready.seq)).collect()
    }

    #[test]
    fn what_comes_early_waits_for_what_is_missing() {
        let mut flow = Flow::new(0, 0, 0);
        for seq in [1, 4, 5, 5, 7] {
            flow.take(&event(seq), true);
        }
        assert_eq!(sent(&mut flow), [1]);
        assert_eq!(flow.gap(), Some((1, 3)));
        flow.take(&event(2), true);
        flow.take(&event(3), true);
        flow.close_gap();
        assert_eq!(sent(&mut flow), [2, 3, 4, 5]);
        assert_eq!(flow.gap(), Some((5, 7)), "7 did not follow, and is read");
    }

    #[test]
    fn what_may_not_be_held_is_read_later() {
        let mut flow = Flow::new(0, 3, 3);
        assert_eq!(flow.take(&event(4), false), Amount::default());
        assert_eq!(flow.gap(), Some((3, 4)));
        assert!(!flow.is_ready());
    }

    #[test]
    fn acks_are_cumulative_and_may_reach_beyond_what_was_sent() {
        let mut flow = Flow::new(0, 0, 9);
        for seq in 1..=5 {
            flow.take(&event(seq), true);
        }
        flow.send(0);
        flow.send(0);
        let (landed, unheld) = flow.ack(3);
        assert_eq!((landed.events, unheld.events), (2, 1));
        assert_eq!(sent(&mut flow), [4, 5]);
        assert_eq!(flow.ack(5).0.events, 2);
        assert!(flow.events.is_none(), "nothing is held");
        assert_eq!(flow.ack(2), Default::default(), "never back");
        assert_eq!((flow.acked, flow.sent), (5, 5));
    }

    #[test]
    fn redelivery_doubles_to_a_minute() {
        let mut flow = Flow::new(0, 0, 0);
        flow.take(&event(1), true);
        flow.send(0);
        let mut times = Vec::new();
        let mut due = FIRST_REDELIVERY_MS;
        for _ in 0..7 {
            let next = flow.again(due, |_| times.push(due)).unwrap();
            assert_eq!(flow.again(due, |_| panic!("not yet")), Some(next));
            due = next;
        }
        assert_eq!(times, [5_000, 15_000, 35_000, 75_000, 135_000, 195_000, 255_000]);
    }
}
