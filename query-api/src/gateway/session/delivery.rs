//! Events on their way to the device: in order, within the window, again until they are acked.

use schemas::ws::close;
use uuid::Uuid;

use super::flow::{Amount, FIRST_REDELIVERY_MS, Flow};
use super::{Action, Cursor, Output, Phase, RETRY_MS, Range, Session};
use crate::gateway::protocol::answer;
use crate::gateway::protocol::event::{About, Event};

/// At most so much is sent and not acked; one event that is larger goes alone.
const WINDOW: Amount = Amount { events: 256, bytes: 256 * 1024 };
/// At most so much of what is live is held until its turn comes; the rest is read when it is wanted.
const HOLD: Amount = Amount { events: 512, bytes: 512 * 1024 };
/// The next events are read once no more than this is held.
const READ_BELOW: Amount = Amount { events: 256, bytes: 256 * 1024 };
/// Events read at once, and conversations that share them.
const READ_EVENTS: u64 = 512;
const READ_CONVERSATIONS: usize = 16;
/// Events that one conversation sends before the next has its turn.
const TURN: usize = 16;
/// How long a read that brought nothing rests at first; each time twice as long.
const LAG_MS: u64 = 5;
const LONGEST_LAG_DOUBLINGS: u8 = 6;

/// What was read for one range.
#[derive(Debug)]
pub(crate) struct Page {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// By `seq`.
    pub(crate) events: Vec<Event>,
}

/// What the live bus told and this session did not get, for want of room.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Conversations with the highest number told of each.
    pub(crate) heads: Vec<(Uuid, u64)>,
    /// Conversations whose watermarks moved.
    pub(crate) receipts: Vec<Uuid>,
}

impl Session {
    /// Something happened, by the live bus.
    pub(crate) fn event(&mut self, now_ms: u64, event: &Event, out: &mut Output) {
        self.take(event, true, out);
        self.pump(now_ms, out);
    }

    /// The highest numbers committed.
    pub(crate) fn heads(&mut self, now_ms: u64, heads: &[(Uuid, u64)], out: &mut Output) {
        for (conversation_id, head) in heads {
            if let Some(flow) = self.flows.get_mut(conversation_id) {
                flow.head = flow.head.max(*head);
                self.want(*conversation_id);
            }
        }
        self.pump(now_ms, out);
    }

    /// Something was told that had no room.
    pub(crate) fn missed(&mut self, now_ms: u64, missed: Missed, out: &mut Output) {
        self.receipts_missed(missed.receipts);
        out.act(Action::Stays);
        self.heads(now_ms, &missed.heads, out);
    }

    /// The conversations that the user is in, each with its `joined` and head.
    pub(crate) fn stays(&mut self, now_ms: u64, stays: &[(Uuid, u64, u64)], out: &mut Output) {
        for &(conversation_id, joined, head) in stays {
            if let Some(flow) = self.flows.get_mut(&conversation_id) {
                flow.head = flow.head.max(head);
                self.want(conversation_id);
                continue;
            }
            // The read model may not know yet that a stay has ended.
            if self.ended.iter().all(|(id, left)| *id != conversation_id || joined > *left) {
                self.join(conversation_id, joined, head, out);
                self.want(conversation_id);
            }
        }
        self.tell_receipts_again(out);
        self.pump(now_ms, out);
    }

    /// It could not be found out which conversations the user is in.
    pub(crate) fn no_stays(&mut self, now_ms: u64) {
        self.stays_due = true;
        self.retry_at(now_ms + RETRY_MS);
    }

    /// Events were read.
    pub(crate) fn pages(&mut self, now_ms: u64, pages: &[Page], out: &mut Output) {
        self.reading = false;
        let before = self.held.events;
        for page in pages {
            if let Some(flow) = self.flows.get_mut(&page.conversation_id) {
                flow.wanted = false;
            }
            for event in &page.events {
                self.take(event, false, out);
            }
            self.want(page.conversation_id);
        }
        if self.held.events > before {
            self.fruitless = 0;
        } else if !self.wants.is_empty() {
            // The read model lags behind the log.
            self.unwant(now_ms);
        }
        self.pump(now_ms, out);
    }

    /// Events could not be read.
    pub(crate) fn not_read(&mut self, now_ms: u64, ranges: &[Range]) {
        self.reading = false;
        for range in ranges {
            if let Some(flow) = self.flows.get_mut(&range.conversation_id) {
                flow.wanted = false;
            }
        }
        self.retry_at(now_ms + RETRY_MS);
    }

    /// Lets what is wanted rest.
    fn unwant(&mut self, now_ms: u64) {
        for conversation_id in self.wants.drain(..) {
            if let Some(flow) = self.flows.get_mut(&conversation_id) {
                flow.wanted = false;
            }
        }
        self.retry_at(now_ms + (LAG_MS << self.fruitless));
        self.fruitless = (self.fruitless + 1).min(LONGEST_LAG_DOUBLINGS);
    }

    /// Takes an event in, from the live bus or from a page.
    fn take(&mut self, event: &Event, is_live: bool, out: &mut Output) {
        let id = event.conversation_id;
        let joined_now = event.about == About::Joined(self.caller.user_id);
        if !self.flows.contains_key(&id) {
            match event.about {
                About::Created => self.join(id, 0, event.seq, out),
                _ if joined_now => self.join(id, event.seq, event.seq, out),
                _ => return,
            }
        }
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if joined_now && event.seq > flow.joined.max(flow.sent) {
            flow.rejoined = Some(event.seq);
        }
        let room = !is_live || (self.held.events < HOLD.events && self.held.bytes < HOLD.bytes);
        self.held.add(flow.take(event, room));
        self.held.subtract(flow.close_gap());
        if flow.is_ready() && !flow.queued {
            flow.queued = true;
            self.turns.push_back(id);
        }
        if is_live {
            self.want(id);
        }
    }

    /// The user came into a conversation.
    fn join(&mut self, conversation_id: Uuid, joined: u64, head: u64, out: &mut Output) {
        if self.ended.iter().any(|(id, left)| *id == conversation_id && joined <= *left) {
            return;
        }
        let after = joined.saturating_sub(1);
        let mut flow = Flow::new(joined, after, head);
        flow.delivered = joined;
        self.flows.insert(conversation_id, flow);
        self.ended.retain(|(id, _)| *id != conversation_id);
        out.act(Action::Keep(Cursor { conversation_id, joined: Some(joined), acked: after, acked_at: None }));
    }

    /// The user's stay in a conversation ended with the event of this number, which was just sent.
    fn leave(&mut self, conversation_id: Uuid, left: u64, out: &mut Output) {
        let Some(flow) = self.flows.remove(&conversation_id) else { return };
        let (flight, held) = flow.amounts();
        self.flight.subtract(flight);
        self.held.subtract(held);
        self.synced_one(&flow);
        self.forget_marks(conversation_id);
        self.receipts_missed.retain(|id| *id != conversation_id);
        self.ended.retain(|(id, _)| *id != conversation_id);
        self.ended.push((conversation_id, left));
        out.frame(answer::left(conversation_id));
        out.act(Action::Forget(conversation_id));
        if let Some(joined) = flow.rejoined {
            self.join(conversation_id, joined, flow.head, out);
            self.want(conversation_id);
        }
    }

    /// Has the next events of a conversation read, if something is missing.
    pub(super) fn want(&mut self, conversation_id: Uuid) {
        if let Some(flow) = self.flows.get_mut(&conversation_id)
            && !flow.wanted
            && flow.gap().is_some()
        {
            flow.wanted = true;
            self.wants.push_back(conversation_id);
        }
    }

    /// Sends what the window has room for, and has read what comes next.
    pub(super) fn pump(&mut self, now_ms: u64, out: &mut Output) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        while let Some(conversation_id) = self.turns.front().copied() {
            if !self.turn(conversation_id, now_ms, out) {
                break;
            }
        }
        self.read(out);
        if self.unsynced == Some(0) && self.receipts_due.is_empty() {
            self.unsynced = None;
            out.frame(answer::synced());
        }
        if self.unsynced.is_none() {
            self.end_overlap(now_ms);
        }
    }

    /// Has a conversation send while it may; `false` if the window is full.
    fn turn(&mut self, conversation_id: Uuid, now_ms: u64, out: &mut Output) -> bool {
        for _ in 0..TURN {
            let Some(flow) = self.flows.get_mut(&conversation_id) else { break };
            let Some(next) = flow.peek() else { break };
            let amount = Amount::of(&next.frame);
            let room = self.flight.events < WINDOW.events && self.flight.bytes + amount.bytes <= WINDOW.bytes;
            if !room && self.flight.events > 0 {
                return false;
            }
            let Some(ready) = flow.send(now_ms) else { break };
            if self.flight.events == 0 {
                self.progress_ms = now_ms;
            }
            self.held.subtract(amount);
            self.flight.add(amount);
            self.redeliver_ms = self.redeliver_ms.min(now_ms + FIRST_REDELIVERY_MS);
            out.delivered += 1;
            out.traced.extend(ready.push);
            out.frame(ready.frame);
            let (joined, synced) = (flow.joined, flow.sync_to > 0 && flow.sent >= flow.sync_to);
            if synced {
                flow.sync_to = 0;
                self.unsynced = self.unsynced.map(|count| count - 1);
            }
            if ready.about == About::Left(self.caller.user_id) && ready.seq > joined {
                self.leave(conversation_id, ready.seq, out);
            }
        }
        self.turns.pop_front();
        if let Some(flow) = self.flows.get_mut(&conversation_id) {
            flow.queued = flow.is_ready();
            if flow.queued {
                self.turns.push_back(conversation_id);
            }
        }
        true
    }

    /// One that had to send something before `synced` no longer has to.
    fn synced_one(&mut self, flow: &Flow) {
        if flow.sync_to > 0 {
            self.unsynced = self.unsynced.map(|count| count - 1);
        }
    }

    /// Has events read, where there is room for them.
    fn read(&mut self, out: &mut Output) {
        // What is held behind a gap leaves only once the gap was read: it must not stand in that reading's way.
        let has_enough = self.held.events > READ_BELOW.events || self.held.bytes > READ_BELOW.bytes;
        if self.reading || (has_enough && !self.turns.is_empty()) {
            return;
        }
        let mut ranges = Vec::new();
        while ranges.len() < READ_CONVERSATIONS
            && let Some(conversation_id) = self.wants.pop_front()
        {
            let Some(flow) = self.flows.get_mut(&conversation_id) else { continue };
            match flow.gap() {
                Some((after, upto)) => {
                    ranges.push(Range { conversation_id, joined: flow.joined, after, upto, limit: 0 });
                }
                None => flow.wanted = false,
            }
        }
        if ranges.is_empty() {
            return;
        }
        let limit = READ_EVENTS / ranges.len() as u64;
        for range in &mut ranges {
            range.limit = limit;
        }
        self.reading = true;
        out.act(Action::Read(ranges));
    }

    /// The device has everything up to `seq`.
    pub(super) fn acked(&mut self, now_ms: u64, conversation_id: Uuid, seq: u64) {
        let Some(flow) = self.flows.get_mut(&conversation_id) else { return };
        if seq > flow.acked {
            self.progress_ms = now_ms;
        }
        let (landed, unheld) = flow.ack(seq);
        self.flight.subtract(landed);
        self.held.subtract(unheld);
        if flow.sync_to > 0 && flow.sent >= flow.sync_to {
            flow.sync_to = 0;
            self.unsynced = self.unsynced.map(|count| count - 1);
        }
        if flow.is_ready() && !flow.queued {
            flow.queued = true;
            self.turns.push_back(conversation_id);
        }
        self.want(conversation_id);
    }

    /// Sends again what is due, unless what was sent before has not even left.
    pub(super) fn redeliver(&mut self, now_ms: u64, out: &mut Output) {
        if !out.frames.is_empty() {
            self.redeliver_ms = now_ms + RETRY_MS;
            return;
        }
        let mut next = u64::MAX;
        for flow in self.flows.values_mut() {
            let due = flow.again(now_ms, |frame| {
                out.redelivered += 1;
                out.frame(frame);
            });
            next = next.min(due.unwrap_or(u64::MAX));
        }
        self.redeliver_ms = next;
    }

    /// The connection took nothing for too long.
    pub(crate) fn stalled(&mut self, out: &mut Output) {
        self.close(close::TOO_SLOW, "nothing was read for too long", out);
    }
}
