//! One connection of one device as a state machine: frames, events and time come in, frames and actions go out.
//!
//! No I/O and no clock: whoever drives it says what time it is, in milliseconds since any moment.

mod commands;
mod delivery;
mod flow;
mod plan;
#[cfg(test)]
mod random;
mod receipts;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use platform::auth::Caller;
use schemas::rest::{FieldError, SendMessage};
use schemas::ws::close;
use time::OffsetDateTime;
use uuid::Uuid;

use super::protocol::frame::PING;
use super::traced::Push;
pub(crate) use delivery::{Missed, Page};
use flow::{Amount, Flow};
pub(crate) use plan::{Begin, Cursor, Plan, Stay, Stored};
use receipts::Marks;

/// How often the server pings, as `welcome` says it.
pub(crate) const HEARTBEAT_S: u64 = 30;
const HEARTBEAT_MS: u64 = HEARTBEAT_S * 1_000;
/// Who says nothing for this long is gone.
const SILENCE_MS: u64 = 2 * HEARTBEAT_MS;
/// How long a `hello` may take.
const HELLO_MS: u64 = 10_000;
/// Who acks nothing for this long while events wait is too slow.
const PATIENCE_MS: u64 = 120_000;
/// This many refusals within this time are too many.
const REFUSALS: usize = 100;
const REFUSALS_MS: u64 = 10_000;
/// How long what could not be done rests before it is tried again.
const RETRY_MS: u64 = 500;

/// What a session wants done.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Find out where the device begins.
    Start {
        /// Cursors that it gave.
        given: Vec<(Uuid, u64)>,
    },
    /// Find out which conversations the user is in.
    Stays,
    /// Read events.
    Read(Vec<Range>),
    /// Read watermarks.
    Receipts(Vec<(Uuid, Option<OffsetDateTime>)>),
    /// Carry out a `send`.
    Send {
        /// The frame's `ref`.
        reference: Option<Box<str>>,
        /// The conversation.
        conversation_id: Uuid,
        /// The message.
        message: Box<SendMessage>,
        /// The trace that it is to be part of.
        traceparent: Option<Arc<str>>,
    },
    /// Advance the user's watermarks.
    Advance(Advance),
    /// Verify an access token.
    Verify {
        /// The frame's `ref`.
        reference: Option<Box<str>>,
        /// The token.
        access_token: String,
    },
    /// Keep a device's cursor.
    Keep(Cursor),
    /// Forget a device's cursor of a stay that ended.
    Forget(Uuid),
    /// Close the connection.
    Close(u16, &'static str),
    /// Let go of the connection.
    Drop,
}

/// Events to be read: `after < seq <= upto`, at most `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// `seq` of the own `member_joined`, before which a member may see less.
    pub(crate) joined: u64,
    /// Exclusive.
    pub(crate) after: u64,
    /// Inclusive.
    pub(crate) upto: u64,
    /// At most so many.
    pub(crate) limit: u64,
}

/// A user's watermarks to be advanced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Advance {
    /// The frame's `ref`.
    pub(crate) reference: Option<Box<str>>,
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// By an `ack`.
    pub(crate) delivered_to: Option<u64>,
    /// By a `read`.
    pub(crate) read_to: Option<u64>,
    /// Whether nobody here knows of an event with that number: then it counts only if the command side takes it.
    pub(crate) decides: bool,
}

/// What a session puts out.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To be written, in this order.
    pub(crate) frames: VecDeque<Bytes>,
    /// To be done.
    pub(crate) actions: Vec<Action>,
    /// Events sent for the first time since somebody looked.
    pub(crate) delivered: u64,
    /// Events sent again since somebody looked.
    pub(crate) redelivered: u64,
    /// Of the events sent for the first time those whose trace somebody looks at, until they are written.
    pub(crate) traced: Vec<Arc<Push>>,
}

impl Output {
    fn frame(&mut self, frame: Bytes) {
        self.frames.push_back(frame);
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

#[derive(Debug)]
enum Phase {
    /// Nothing was said yet.
    Connected { since_ms: u64 },
    /// Said hello; where to begin is being found out.
    Starting(Box<Hello>),
    /// Events flow.
    Open,
    /// Closed, for its own reasons or the client's.
    Closed,
}

/// What a `hello` said, and what is to be done once it is known where the device begins.
#[derive(Debug)]
struct Hello {
    reference: Option<Box<str>>,
    given: Vec<(Uuid, u64)>,
    errors: Vec<FieldError>,
    /// Acks that followed it and that the command side could not take yet: of each conversation the furthest.
    unreported: HashMap<Uuid, (u64, OffsetDateTime)>,
}

/// One connection of one device.
#[derive(Debug)]
pub(crate) struct Session {
    caller: Caller,
    phase: Phase,
    flows: HashMap<Uuid, Flow>,
    /// Stays that ended while connected, by the `seq` of their end: acks of theirs come late.
    ended: Vec<(Uuid, u64)>,
    /// Whose turn it is to send.
    turns: VecDeque<Uuid>,
    /// Whose events have to be read.
    wants: VecDeque<Uuid>,
    /// Whether a read is under way.
    reading: bool,
    /// Reads that brought nothing, in a row.
    fruitless: u8,
    /// Not acked.
    flight: Amount,
    /// Held until their turn comes.
    held: Amount,
    /// Flows that have to send something before `synced`, and reads of watermarks that have to end; absent once it was said.
    unsynced: Option<usize>,
    /// Conversations whose watermarks have to be told.
    receipts_due: Vec<(Uuid, Option<OffsetDateTime>)>,
    /// The first so many of these are being read.
    receipts_asked: usize,
    marks: Option<Box<Marks>>,
    /// Watermarks that the log tells of up to these positions, by shard, are known to the device, or it has seen later ones.
    read_at: Box<[u64]>,
    /// Whether it has to be asked again which conversations the user is in.
    stays_due: bool,
    /// Conversations whose watermarks may have moved unseen.
    receipts_missed: Vec<Uuid>,
    /// Acks that the command side could not take yet.
    unreported: Vec<Uuid>,
    refusals: VecDeque<u64>,
    // When what has to happen, in milliseconds; `u64::MAX` for never.
    expires_ms: u64,
    heard_ms: u64,
    ping_ms: u64,
    redeliver_ms: u64,
    /// When an ack last made progress, or the first event went into flight.
    progress_ms: u64,
    /// When to try again what could not be read or done.
    retry_ms: u64,
    start_ms: u64,
}

impl Session {
    /// The session of a connection that was just made, and whose token expires at `expires_ms`.
    pub(crate) fn new(caller: Caller, now_ms: u64, expires_ms: u64) -> Self {
        Self {
            caller,
            phase: Phase::Connected { since_ms: now_ms },
            flows: HashMap::new(),
            ended: Vec::new(),
            turns: VecDeque::new(),
            wants: VecDeque::new(),
            reading: false,
            fruitless: 0,
            flight: Amount::default(),
            held: Amount::default(),
            unsynced: None,
            receipts_due: Vec::new(),
            receipts_asked: 0,
            marks: None,
            read_at: Box::default(),
            stays_due: false,
            receipts_missed: Vec::new(),
            unreported: Vec::new(),
            refusals: VecDeque::new(),
            expires_ms,
            heard_ms: now_ms,
            ping_ms: now_ms + HEARTBEAT_MS,
            redeliver_ms: u64::MAX,
            progress_ms: now_ms,
            retry_ms: u64::MAX,
            start_ms: u64::MAX,
        }
    }

    /// Whose session it is.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether events are wanted now; until then they may wait where they are.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether nothing more will be said.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Anything came from the client.
    pub(crate) fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// Ends the session.
    pub(crate) fn close(&mut self, code: u16, reason: &'static str, out: &mut Output) {
        if !self.is_closed() {
            self.phase = Phase::Closed;
            out.act(Action::Close(code, reason));
        }
    }

    /// Where the device begins.
    pub(crate) fn started(&mut self, now_ms: u64, plan: Plan, out: &mut Output) {
        if !matches!(self.phase, Phase::Starting(_)) {
            return;
        }
        let Phase::Starting(mut hello) = std::mem::replace(&mut self.phase, Phase::Open) else { return };
        let unreported = std::mem::take(&mut hello.unreported);
        commands::say_hello_errors(*hello, plan.errors, out);
        for conversation_id in plan.left {
            out.frame(super::protocol::answer::left(conversation_id));
        }
        for conversation_id in plan.forget {
            out.act(Action::Forget(conversation_id));
        }
        let mut unsynced = 0;
        for Begin { stay, after, receipts_since, unreported } in plan.flows {
            let mut flow = Flow::new(stay.joined, after, stay.head);
            flow.delivered = stay.delivered_to.max(stay.joined);
            if flow.sent < flow.head {
                flow.sync_to = flow.head;
                unsynced += 1;
            }
            self.flows.insert(stay.conversation_id, flow);
            self.receipts_due.push((stay.conversation_id, receipts_since));
            if let Some(acked) = unreported {
                self.report(stay.conversation_id, acked, None, out);
            }
            self.want(stay.conversation_id);
        }
        self.unsynced = Some(unsynced);
        self.read_at = plan.read_at;
        self.marks = Some(Box::default());
        self.read_receipts(out);
        self.pump(now_ms, out);
        for (conversation_id, (acked, at)) in unreported {
            self.ack(now_ms, at, conversation_id, acked, None, out);
        }
    }

    /// It could not be found out where the device begins.
    pub(crate) fn not_started(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Starting(_)) {
            self.start_ms = now_ms + RETRY_MS;
        }
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn due_ms(&self) -> u64 {
        let patience = if self.flight.events > 0 { self.progress_ms + PATIENCE_MS } else { u64::MAX };
        let hello = match self.phase {
            Phase::Connected { since_ms } => since_ms + HELLO_MS,
            Phase::Starting(_) | Phase::Open => u64::MAX,
            Phase::Closed => return u64::MAX,
        };
        let marks = self.marks.as_ref().map_or(u64::MAX, |marks| marks.until_ms());
        let silence = self.heard_ms + SILENCE_MS;
        [
            hello,
            self.expires_ms,
            self.ping_ms,
            silence,
            self.redeliver_ms,
            patience,
            self.retry_ms,
            self.start_ms,
            marks,
        ]
        .into_iter()
        .fold(u64::MAX, u64::min)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now_ms: u64, out: &mut Output) {
        if now_ms < self.due_ms() {
            return;
        }
        if now_ms >= self.expires_ms {
            return self.close(close::TOKEN, "the access token has expired", out);
        }
        if let Phase::Connected { since_ms } = self.phase
            && now_ms >= since_ms + HELLO_MS
        {
            return self.close(close::NO_HELLO, "no hello", out);
        }
        if now_ms >= self.heard_ms + SILENCE_MS {
            self.phase = Phase::Closed;
            return out.act(Action::Drop);
        }
        if now_ms >= self.ping_ms {
            self.ping_ms = now_ms + HEARTBEAT_MS;
            out.frame(PING);
        }
        if self.flight.events > 0 && now_ms >= self.progress_ms + PATIENCE_MS {
            return self.close(close::TOO_SLOW, "nothing was acked for too long", out);
        }
        if now_ms >= self.start_ms
            && let Phase::Starting(hello) = &self.phase
        {
            self.start_ms = u64::MAX;
            out.act(Action::Start { given: hello.given.clone() });
        }
        if now_ms >= self.redeliver_ms {
            self.redeliver(now_ms, out);
        }
        if self.marks.as_ref().is_some_and(|marks| now_ms >= marks.until_ms()) {
            self.marks = None;
        }
        if now_ms >= self.retry_ms {
            self.retry_ms = u64::MAX;
            self.retry(out);
        }
        self.pump(now_ms, out);
    }

    /// Has [`Self::tick`] try again what could not be done, in a while.
    fn retry_at(&mut self, at_ms: u64) {
        self.retry_ms = self.retry_ms.min(at_ms);
    }

    fn retry(&mut self, out: &mut Output) {
        for conversation_id in std::mem::take(&mut self.unreported) {
            if let Some(flow) = self.flows.get(&conversation_id) {
                let acked = flow.acked;
                self.report(conversation_id, acked, None, out);
            }
        }
        let gaps: Vec<_> =
            self.flows.iter().filter(|(_, flow)| !flow.wanted && flow.gap().is_some()).map(|(id, _)| *id).collect();
        for conversation_id in gaps {
            self.want(conversation_id);
        }
        self.read_receipts(out);
        if std::mem::take(&mut self.stays_due) {
            out.act(Action::Stays);
        }
    }
}
