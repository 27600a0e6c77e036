//! One session at a time, by hand.

use bytes::Bytes;
use platform::auth::Caller;
use schemas::rest::{MessageSent, Problem};
use schemas::ws::close;
use schemas::{Position, Topic};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::gateway::protocol::event::{About, Event, Receipt};
use crate::gateway::protocol::frame::{self, text_frame};

pub(super) const ANN: Uuid = Uuid::from_u128(0xA);
pub(super) const BEN: Uuid = Uuid::from_u128(0xB);
pub(super) const ROOM: Uuid = Uuid::from_u128(0x100);
const OTHER_ROOM: Uuid = Uuid::from_u128(0x200);

/// The JSON of a server's text frame; `null` for a ping.
pub(super) fn parse(frame: &Bytes) -> Value {
    if *frame == frame::PING {
        return Value::Null;
    }
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    serde_json::from_slice(&frame[header..]).unwrap()
}

pub(super) fn event_about(conversation_id: Uuid, seq: u64, about: About) -> Event {
    let text = json!({"type": "event", "conversation_id": conversation_id, "seq": seq}).to_string();
    let frame = text_frame(|out| out.extend_from_slice(text.as_bytes()));
    Event { conversation_id, seq, about, frame, push: None }
}

pub(super) fn event(seq: u64) -> Event {
    event_about(ROOM, seq, About::Other)
}

fn receipt(user_id: Uuid, delivered_to: u64, read_to: u64) -> Receipt {
    Receipt::new(ROOM, user_id, (delivered_to, read_to), OffsetDateTime::UNIX_EPOCH)
}

pub(super) fn caller() -> Caller {
    Caller {
        user_id: ANN,
        session_id: Uuid::from_u128(1),
        device_id: Uuid::from_u128(2),
        expires_at: OffsetDateTime::UNIX_EPOCH,
    }
}

pub(super) fn begin(conversation_id: Uuid, joined: u64, after: u64, head: u64) -> Begin {
    let stay = Stay { conversation_id, joined, head, delivered_to: 0, members: 2 };
    Begin { stay, after, receipts_since: None, unreported: None }
}

/// A session, and what came of it.
struct Bench {
    session: Session,
    out: Output,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self { session: Session::new(caller(), 0, 900_000), out: Output::default(), now_ms: 0 }
    }

    /// One that said hello and begins so; its watermarks are read.
    fn open(flows: Vec<Begin>) -> Self {
        let mut bench = Self::new();
        bench.say(&json!({"type": "hello"}));
        bench.actions();
        bench.start(Plan { flows, ..Plan::default() });
        bench
    }

    fn start(&mut self, plan: Plan) {
        self.session.started(self.now_ms, plan, &mut self.out);
        self.receipts_read(&[]);
    }

    /// Answers what was asked about watermarks.
    fn receipts_read(&mut self, receipts: &[Receipt]) {
        if self.take(|action| matches!(action, Action::Receipts(_))).is_some() {
            self.session.receipts_read(self.now_ms, receipts, &mut self.out);
        }
    }

    fn say(&mut self, frame: &Value) {
        self.session.heard(self.now_ms);
        self.session.text(self.now_ms, OffsetDateTime::UNIX_EPOCH, &frame.to_string(), &mut self.out);
    }

    fn ack(&mut self, seq: u64) {
        self.say(&json!({"type": "ack", "conversation_id": ROOM, "seq": seq}));
    }

    fn event(&mut self, event: &Event) {
        self.session.event(self.now_ms, event, &mut self.out);
    }

    fn frames(&mut self) -> Vec<Value> {
        self.out.frames.drain(..).map(|frame| parse(&frame)).collect()
    }

    /// The numbers of the events that were sent.
    fn seqs(&mut self) -> Vec<u64> {
        self.frames()
            .iter()
            .filter(|frame| frame["type"] == "event")
            .filter_map(|frame| frame["seq"].as_u64())
            .collect()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out.actions)
    }

    fn take(&mut self, wanted: impl Fn(&Action) -> bool) -> Option<Action> {
        let place = self.out.actions.iter().position(wanted)?;
        Some(self.out.actions.remove(place))
    }

    fn range(&mut self) -> Option<Range> {
        match self.take(|action| matches!(action, Action::Read(_)))? {
            Action::Read(ranges) => ranges.first().copied(),
            _ => None,
        }
    }

    /// Answers a read with these numbers.
    fn page(&mut self, seqs: impl IntoIterator<Item = u64>) {
        let events = seqs.into_iter().map(event).collect();
        self.session.pages(self.now_ms, &[Page { conversation_id: ROOM, events }], &mut self.out);
    }

    /// Lets time pass, as whoever drives the session does.
    fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            let due = self.session.due_ms();
            if due > until {
                break;
            }
            self.now_ms = self.now_ms.max(due);
            self.session.tick(self.now_ms, &mut self.out);
        }
        self.now_ms = until;
    }

    fn closed(&mut self) -> Option<u16> {
        match self.take(|action| matches!(action, Action::Close(..)))? {
            Action::Close(code, _) => Some(code),
            _ => None,
        }
    }

    fn has(&mut self, kind: &str) -> bool {
        self.frames().iter().any(|frame| frame["type"] == kind)
    }
}

#[test]
fn hello_is_the_first_frame_and_comes_once_and_soon() {
    let mut bench = Bench::new();
    bench.pass(9_999);
    assert_eq!(bench.closed(), None);
    bench.pass(1);
    assert_eq!(bench.closed(), Some(close::NO_HELLO));

    let mut bench = Bench::new();
    bench.say(&json!({"type": "ping"}));
    assert_eq!(bench.closed(), Some(close::PROTOCOL));
    assert!(bench.out.frames.is_empty());

    let mut bench = Bench::open(vec![]);
    bench.say(&json!({"type": "hello"}));
    assert_eq!(bench.closed(), Some(close::PROTOCOL));

    for text in ["[]", "x", "{}"] {
        let mut bench = Bench::open(vec![]);
        bench.session.text(0, OffsetDateTime::UNIX_EPOCH, text, &mut bench.out);
        assert_eq!(bench.closed(), Some(close::PROTOCOL), "{text}");
    }
}

#[test]
fn hello_is_welcomed_and_synced_where_nothing_is_owed() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello", "ref": "h", "cursors": {ROOM.to_string(): 7, "x": 1}}));
    assert_eq!(bench.actions(), [Action::Start { given: vec![(ROOM, 7)] }]);
    let welcome = &bench.frames()[0];
    assert_eq!(
        (&welcome["type"], &welcome["ref"], &welcome["heartbeat_s"]),
        (&json!("welcome"), &json!("h"), &json!(30))
    );
    bench.start(Plan { flows: vec![begin(ROOM, 0, 7, 7)], ..Plan::default() });
    let frames = bench.frames();
    assert_eq!((&frames[0]["type"], &frames[0]["ref"]), (&json!("error"), &json!("h")));
    assert_eq!(frames[0]["problem"]["errors"][0]["pointer"], "/cursors/x");
    assert_eq!(frames[1], json!({"type": "synced"}));
    assert_eq!(frames.len(), 2);
}

#[test]
fn a_start_that_failed_is_tried_again() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    bench.actions();
    bench.session.not_started(0);
    bench.pass(RETRY_MS);
    assert_eq!(bench.actions(), [Action::Start { given: vec![] }]);
}

#[test]
fn the_backlog_comes_before_synced_and_then_what_is_live() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 2, 5)]);
    let range = Range { conversation_id: ROOM, joined: 0, after: 2, upto: 5, limit: 512 };
    assert_eq!(bench.range(), Some(range));
    // Live before the backlog is there.
    bench.event(&event(6));
    bench.event(&event(7));
    assert_eq!(bench.seqs(), Vec::<u64>::new());
    bench.page(3..=5);
    let frames = bench.frames();
    let kinds: Vec<_> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap_or_default()).collect();
    assert_eq!(kinds, [3, 4, 5, 6, 7, 0]);
    assert_eq!(frames[5], json!({"type": "synced"}));
    bench.event(&event(8));
    bench.event(&event(8));
    bench.event(&event(4));
    assert_eq!(bench.seqs(), [8]);
    assert_eq!(bench.range(), None);
}

#[test]
fn a_read_model_that_lags_is_asked_again_until_it_has_all() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 3)]);
    assert!(bench.range().is_some());
    bench.page([]);
    assert_eq!(bench.range(), None, "not at once");
    bench.pass(5);
    assert!(bench.range().is_some());
    bench.page([1, 2]);
    let range = bench.range().map(|range| (range.after, range.upto));
    assert_eq!(range, Some((2, 3)), "what it has is taken");
    assert_eq!(bench.seqs(), [1, 2]);
    // A hole in it is not passed over.
    bench.page([4]);
    bench.pass(100);
    bench.page([3, 4]);
    assert_eq!(bench.seqs(), [3, 4]);
}

#[test]
fn a_hint_with_a_gap_means_read_the_range() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 5, 5)]);
    bench.frames();
    bench.event(&event(8));
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((5, 7)));
    bench.event(&event(9));
    bench.page(6..=7);
    assert_eq!(bench.seqs(), [6, 7, 8, 9]);
    bench.session.heads(0, &[(ROOM, 11)], &mut bench.out);
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((9, 11)));
    bench.page(10..=11);
    assert_eq!(bench.seqs(), [10, 11]);
}

#[test]
fn what_is_held_behind_a_gap_does_not_keep_the_gap_from_being_read() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 1)]);
    assert!(bench.range().is_some());
    for seq in 2..=400 {
        bench.event(&event(seq));
    }
    bench.page([]);
    bench.pass(10);
    assert!(bench.range().is_some(), "asked again though much is held");
    bench.page([1]);
    assert_eq!(bench.seqs(), (1..=256).collect::<Vec<_>>());
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.frames();
    for seq in 1..=300 {
        bench.event(&event(seq));
    }
    assert_eq!(bench.seqs().len(), 256);
    bench.ack(100);
    assert_eq!(bench.seqs(), (257..=300).collect::<Vec<_>>());

    // By bytes; one that is larger goes alone.
    let large = |seq, bytes: usize| Event { frame: Bytes::from(vec![b' '; bytes]), ..event(seq) };
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.frames();
    for (seq, bytes) in [(1, 200_000), (2, 60_000), (3, 10_000), (4, 900_000), (5, 10)] {
        bench.event(&large(seq, bytes));
    }
    let sent = |bench: &mut Bench| bench.out.frames.drain(..).map(|frame| frame.len()).collect::<Vec<_>>();
    assert_eq!(sent(&mut bench), [200_000, 60_000]);
    bench.ack(1);
    assert_eq!(sent(&mut bench), [10_000]);
    bench.ack(3);
    assert_eq!(sent(&mut bench), [900_000]);
    bench.ack(4);
    assert_eq!(bench.range().map(|range| range.after), Some(4), "what could not be held beside it is read");
}

#[test]
fn what_a_slow_client_does_not_take_is_read_when_it_does() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.frames();
    for seq in 1..=2000 {
        bench.event(&event(seq));
    }
    let mut sent = bench.seqs();
    let mut acked = 0;
    while *sent.last().unwrap() < 2000 {
        acked += 50;
        bench.ack(acked);
        if let Some(range) = bench.range() {
            assert!(bench.session.held.events <= 256, "held no more than is bounded");
            bench.page(range.after + 1..=range.upto.min(range.after + range.limit));
        }
        sent.extend(bench.seqs());
    }
    assert_eq!(sent, (1..=2000).collect::<Vec<_>>());
}

#[test]
fn conversations_take_turns() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 300), begin(OTHER_ROOM, 0, 0, 300)]);
    bench.frames();
    let Some(Action::Read(ranges)) = bench.take(|action| matches!(action, Action::Read(_))) else { panic!("no read") };
    assert_eq!(ranges.iter().map(|range| range.limit).collect::<Vec<_>>(), [256, 256]);
    let pages: Vec<_> = [ROOM, OTHER_ROOM]
        .map(|id| Page {
            conversation_id: id,
            events: (1..=256).map(|seq| event_about(id, seq, About::Other)).collect(),
        })
        .into();
    bench.session.pages(0, &pages, &mut bench.out);
    let frames = bench.frames();
    let mine = frames.iter().filter(|frame| frame["conversation_id"] == json!(ROOM)).count();
    assert_eq!((frames.len(), mine), (256, 128));
}

#[test]
fn what_is_not_acked_comes_again() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.pass(1_000);
    bench.event(&event(2));
    bench.frames();
    bench.pass(3_999);
    assert_eq!(bench.seqs(), Vec::<u64>::new());
    bench.pass(1);
    assert_eq!(bench.seqs(), [1]);
    bench.pass(1_000);
    assert_eq!(bench.seqs(), [2]);
    bench.pass(9_000);
    assert_eq!(bench.seqs(), [1]);
    bench.ack(2);
    bench.pass(40_000);
    assert_eq!(bench.seqs(), Vec::<u64>::new());
    // What was not even written is not written twice.
    bench.event(&event(3));
    bench.pass(14_000);
    assert_eq!(bench.seqs(), [3]);
}

#[test]
fn who_acks_nothing_for_two_minutes_is_too_slow() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.pass(20_000);
    bench.say(&json!({"type": "ping"}));
    bench.event(&event(1));
    bench.event(&event(2));
    bench.pass(50_000);
    bench.ack(1);
    bench.frames();
    for _ in 0..5 {
        bench.say(&json!({"type": "ping"}));
        bench.pass(20_000);
        assert_eq!(bench.closed(), None, "{}", bench.now_ms);
    }
    bench.say(&json!({"type": "ping"}));
    bench.pass(20_000);
    assert_eq!(bench.closed(), Some(close::TOO_SLOW));
}

#[test]
fn acks_move_the_cursor_and_the_watermark() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 9)]);
    bench.range();
    bench.page(1..=5);
    bench.frames();
    bench.actions();
    let kept = |acked| {
        let acked_at = Some(OffsetDateTime::UNIX_EPOCH);
        Action::Keep(Cursor { conversation_id: ROOM, joined: Some(0), acked, acked_at })
    };
    let advance = |seq, reference: Option<&str>, decides| {
        let (reference, delivered_to, read_to) = (reference.map(Into::into), Some(seq), None);
        Advance { reference, conversation_id: ROOM, delivered_to, read_to, decides }
    };
    bench.ack(3);
    assert_eq!(bench.actions(), [kept(3), Action::Advance(advance(3, None, false))]);
    // Stale ones are answered where an answer is wanted, and change nothing.
    bench.say(&json!({"type": "ack", "ref": "a", "conversation_id": ROOM, "seq": 2}));
    assert_eq!((bench.actions(), bench.frames()), (vec![], vec![json!({"type": "ok", "ref": "a"})]));
    // Beyond what was sent, but committed: taken, and not sent any more.
    bench.say(&json!({"type": "ack", "ref": "b", "conversation_id": ROOM, "seq": 7}));
    let acted = bench.actions();
    assert!(acted.contains(&kept(7)) && acted.contains(&Action::Advance(advance(7, Some("b"), false))), "{acted:?}");
    assert_eq!(bench.frames(), Vec::<Value>::new(), "answered when it is done");
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(7, Some("b"), false), Ok(()), &mut bench.out);
    assert_eq!(bench.frames(), [json!({"type": "ok", "ref": "b"})]);
    bench.page(8..=9);
    assert_eq!(bench.seqs(), [8, 9]);
    // Beyond what is known here: the log knows.
    bench.ack(10);
    assert_eq!(bench.actions(), [Action::Advance(advance(10, None, true))]);
    let refused = Err(problem(422));
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(10, None, true), refused, &mut bench.out);
    assert_eq!(bench.frames()[0]["problem"]["status"], 422);
    assert_eq!(bench.actions(), []);
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(10, None, true), Ok(()), &mut bench.out);
    assert_eq!(bench.actions(), [kept(10)]);
    bench.event(&event(10));
    assert_eq!(bench.seqs(), Vec::<u64>::new());
}

fn problem(status: u16) -> Problem {
    Problem {
        kind: "/problems/x".to_owned(),
        title: "x".to_owned(),
        status,
        detail: "x".to_owned(),
        retryable: matches!(status, 429 | 503),
        trace_id: "x".to_owned(),
        retry_after_s: None,
        errors: vec![],
    }
}

#[test]
fn an_ack_that_the_command_side_could_not_take_is_told_again() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.ack(1);
    let Some(Action::Advance(advance)) = bench.take(|action| matches!(action, Action::Advance(_))) else {
        panic!("not told")
    };
    bench.frames();
    bench.actions();
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance, Err(problem(503)), &mut bench.out);
    assert!(bench.frames().is_empty());
    bench.pass(2 * RETRY_MS);
    assert_eq!(bench.actions(), [Action::Advance(advance)]);
}

#[test]
fn reads_and_sends_are_handed_on_and_answered() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 5)]);
    bench.actions();
    bench.frames();
    bench.say(&json!({"type": "read", "ref": "r", "conversation_id": ROOM, "seq": 4}));
    let advance = Advance {
        reference: Some("r".into()),
        conversation_id: ROOM,
        delivered_to: None,
        read_to: Some(4),
        decides: false,
    };
    assert_eq!(bench.actions(), [Action::Advance(advance.clone())], "moves no cursor");
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance, Ok(()), &mut bench.out);
    assert_eq!(bench.frames(), [json!({"type": "ok", "ref": "r"})]);

    let message_id = Uuid::from_u128(9);
    bench.say(&json!({"type": "send", "ref": "s", "conversation_id": ROOM, "message_id": message_id, "content": "hi"}));
    let Some(Action::Send { reference, conversation_id, message, .. }) = bench.actions().pop() else {
        panic!("no send")
    };
    assert_eq!((reference.as_deref(), conversation_id, &*message.content), (Some("s"), ROOM, "hi"));
    let position = schemas::Position { topic: schemas::Topic::Conversations, shard: 1, position: 2 }.into();
    let sent = MessageSent { message_id, conversation_id, seq: 6, sent_at: OffsetDateTime::UNIX_EPOCH, position };
    bench.session.sent(0, Some("s"), Ok(sent.clone()), &mut bench.out);
    bench.session.sent(0, None, Ok(sent), &mut bench.out);
    let frames = bench.frames();
    assert_eq!((frames.len(), &frames[0]["ref"], &frames[0]["seq"]), (1, &json!("s"), &json!(6)));
    bench.session.sent(0, None, Err(problem(403)), &mut bench.out);
    assert_eq!(bench.frames()[0]["problem"]["status"], 403, "errors are answered without a ref");
    bench.say(&json!({"type": "ping", "ref": "p"}));
    bench.say(&json!({"type": "typing", "ref": "t", "conversation_id": ROOM, "on": true}));
    let frames = bench.frames();
    assert_eq!(frames[0], json!({"type": "pong", "ref": "p"}));
    assert_eq!((&frames[1]["ref"], &frames[1]["problem"]["status"]), (&json!("t"), &json!(422)));
    assert_eq!(bench.closed(), None);
}

#[test]
fn a_hundred_refusals_in_ten_seconds_are_too_many() {
    let mut bench = Bench::open(vec![]);
    for count in 0..150_u64 {
        bench.now_ms = count * 102;
        bench.session.sent(bench.now_ms, None, Err(problem(429)), &mut bench.out);
    }
    assert_eq!(bench.closed(), None, "99 in any 10 s");
    bench.session.sent(bench.now_ms, None, Err(problem(429)), &mut bench.out);
    assert_eq!(bench.closed(), Some(close::RATE_LIMIT));
}

#[test]
fn who_leaves_gets_the_event_then_left_then_nothing() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.frames();
    bench.actions();
    bench.event(&event(3));
    bench.event(&event_about(ROOM, 2, About::Left(ANN)));
    let frames = bench.frames();
    assert_eq!((&frames[0]["seq"], &frames[1]), (&json!(2), &json!({"type": "left", "conversation_id": ROOM})));
    assert_eq!(frames.len(), 2);
    assert!(bench.actions().contains(&Action::Forget(ROOM)));
    bench.event(&event(4));
    bench.session.receipt(0, &receipt(BEN, 4, 4), &mut bench.out);
    bench.pass(29_000);
    assert_eq!(bench.frames(), Vec::<Value>::new(), "nothing is sent again");
    // Its ack comes late, and is no error.
    bench.ack(2);
    assert_eq!((bench.frames(), bench.actions()), (vec![], vec![]));
    // The read model may not know yet that it ended.
    bench.session.stays(0, &[(ROOM, 0, 2)], &mut bench.out);
    assert!(bench.session.flows.is_empty());
}

#[test]
fn who_comes_again_begins_just_before_the_join() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.event(&event_about(ROOM, 2, About::Left(ANN)));
    bench.frames();
    bench.actions();
    bench.event(&event_about(ROOM, 7, About::Joined(ANN)));
    bench.event(&event(8));
    assert_eq!(bench.seqs(), [7, 8]);
    let begun = Cursor { conversation_id: ROOM, joined: Some(7), acked: 6, acked_at: None };
    assert!(bench.actions().contains(&Action::Keep(begun)));
    // Also where the end of the earlier stay has to be read first.
    let mut bench = Bench::open(vec![begin(ROOM, 0, 5, 5)]);
    bench.frames();
    bench.event(&event_about(ROOM, 9, About::Joined(ANN)));
    bench.event(&event(10));
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((5, 8)));
    let events = vec![event(6), event_about(ROOM, 7, About::Left(ANN)), event(8)];
    bench.session.pages(0, &[Page { conversation_id: ROOM, events }], &mut bench.out);
    assert_eq!(bench.seqs(), [6, 7]);
    assert_eq!(bench.range().map(|range| (range.joined, range.after)), Some((9, 8)));
    bench.page(9..=10);
    assert_eq!(bench.seqs(), [9, 10]);
}

#[test]
fn new_conversations_begin_with_themselves_or_the_join() {
    let mut bench = Bench::open(vec![]);
    bench.event(&event_about(ROOM, 1, About::Created));
    bench.event(&event(2));
    bench.event(&event_about(OTHER_ROOM, 4, About::Joined(ANN)));
    bench.event(&event_about(OTHER_ROOM, 5, About::Joined(BEN)));
    bench.event(&event_about(Uuid::from_u128(9), 5, About::Other));
    assert_eq!(bench.seqs(), [1, 2, 4, 5]);
    // One of which nothing was told, but found out.
    bench.session.stays(0, &[(ROOM, 0, 2), (Uuid::from_u128(9), 3, 5)], &mut bench.out);
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((2, 5)));
}

#[test]
fn a_head_that_is_found_with_the_stays_is_read_up_to() {
    let mut bench = Bench::open(vec![]);
    bench.event(&event_about(ROOM, 1, About::Created));
    bench.session.stays(0, &[(ROOM, 0, 3)], &mut bench.out);
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((1, 3)));
}

#[test]
fn earlier_stays_may_be_replayed() {
    let mut bench = Bench::open(vec![begin(ROOM, 5, 0, 6)]);
    bench.range();
    let events = vec![
        event(1),
        event_about(ROOM, 2, About::Left(ANN)),
        event(3),
        event(4),
        event_about(ROOM, 5, About::Joined(ANN)),
        event(6),
    ];
    bench.session.pages(0, &[Page { conversation_id: ROOM, events }], &mut bench.out);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn watermarks_are_told_before_synced_and_only_forward() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    bench.session.started(0, Plan { flows: vec![begin(ROOM, 0, 5, 5)], ..Plan::default() }, &mut bench.out);
    bench.frames();
    // Live before it was read, and newer than it.
    bench.session.receipt(0, &receipt(BEN, 5, 3), &mut bench.out);
    assert!(bench.take(|action| *action == Action::Receipts(vec![(ROOM, None)])).is_some());
    let told = [receipt(BEN, 4, 3), receipt(ANN, 2, 2)];
    bench.session.receipts_read(0, &told, &mut bench.out);
    let frames = bench.frames();
    let told: Vec<_> = frames.iter().map(|frame| (frame["delivered_to"].as_u64(), frame["read_to"].as_u64())).collect();
    assert_eq!(told, [(Some(5), Some(3)), (Some(2), Some(2)), (None, None)]);
    assert_eq!(frames[2], json!({"type": "synced"}));
    bench.session.receipt(0, &receipt(BEN, 5, 3), &mut bench.out);
    bench.session.receipt(0, &receipt(BEN, 4, 4), &mut bench.out);
    assert!(!bench.has("receipt"));
    bench.session.receipt(0, &receipt(BEN, 5, 4), &mut bench.out);
    assert!(bench.has("receipt"));
    // What is remembered for it goes.
    bench.pass(29_000);
    bench.session.heard(bench.now_ms);
    bench.pass(31_000);
    assert!(bench.session.marks.is_none());
}

#[test]
fn watermarks_of_before_the_start_are_not_told_again() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    let read_at = vec![0, 40].into();
    bench.start(Plan { flows: vec![begin(ROOM, 0, 5, 5)], read_at, ..Plan::default() });
    bench.frames();
    let at = |position, shard| Receipt {
        place: Some(Position { topic: Topic::Conversations, shard, position }),
        ..receipt(BEN, position, 0)
    };
    // By fan-out that took over: this device was told of later ones by another connection.
    bench.session.receipt(0, &at(40, 1), &mut bench.out);
    assert!(!bench.has("receipt"));
    bench.session.receipt(0, &at(41, 1), &mut bench.out);
    assert!(bench.has("receipt"));
    bench.session.receipt(0, &at(1, 7), &mut bench.out);
    assert!(!bench.has("receipt"), "it would go back");
}

#[test]
fn an_ack_of_this_device_beside_the_socket_counts() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    let by = |device| Receipt { acked: Some((device, 1)), ..receipt(ANN, 1, 0) };
    bench.session.receipt(0, &by(BEN), &mut bench.out);
    assert_eq!(bench.session.flight.events, 1, "another device's");
    bench.session.receipt(0, &by(caller().device_id), &mut bench.out);
    assert_eq!(bench.session.flight.events, 0);
    // One from before a connection that wants everything again takes nothing away.
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 1)]);
    bench.range();
    bench.session.receipt(0, &by(caller().device_id), &mut bench.out);
    bench.page([1]);
    assert_eq!(bench.seqs(), [1]);
}

#[test]
fn what_had_no_room_is_found_out_again() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 5, 5)]);
    bench.frames();
    let missed = Missed { heads: vec![(ROOM, 9)], receipts: vec![ROOM] };
    bench.session.missed(0, missed, &mut bench.out);
    assert!(bench.take(|action| *action == Action::Stays).is_some());
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((5, 9)));
    bench.session.no_stays(0);
    bench.pass(RETRY_MS);
    assert!(bench.take(|action| *action == Action::Stays).is_some());
    bench.session.stays(0, &[(ROOM, 0, 9)], &mut bench.out);
    assert!(bench.take(|action| *action == Action::Receipts(vec![(ROOM, None)])).is_some());
}

#[test]
fn watermarks_that_are_read_again_do_not_go_back() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 9, 9)]);
    bench.pass(29_000);
    bench.session.heard(bench.now_ms);
    bench.pass(31_000);
    assert!(bench.session.marks.is_none());
    bench.session.missed(bench.now_ms, Missed { heads: vec![], receipts: vec![ROOM] }, &mut bench.out);
    // Committed after it was asked for what the read models are waited for to have.
    bench.session.receipt(bench.now_ms, &receipt(BEN, 9, 9), &mut bench.out);
    bench.session.stays(bench.now_ms, &[(ROOM, 0, 9)], &mut bench.out);
    bench.frames();
    bench.receipts_read(&[receipt(BEN, 5, 5), receipt(ANN, 6, 6)]);
    let told: Vec<_> = bench.frames().iter().map(|frame| frame["delivered_to"].as_u64()).collect();
    assert_eq!(told, [Some(6)]);
    // And for a while what is late.
    bench.session.receipt(bench.now_ms, &receipt(ANN, 5, 5), &mut bench.out);
    assert!(!bench.has("receipt"));
    assert!(bench.session.marks.is_some());
}

#[test]
fn tokens_expire_and_are_renewed_in_band() {
    let mut bench = Bench::open(vec![]);
    bench.say(&json!({"type": "auth", "ref": "a", "access_token": "t"}));
    assert_eq!(bench.actions(), [Action::Verify { reference: Some("a".into()), access_token: "t".into() }]);
    bench.frames();
    bench.session.verified(Some("a"), Some(caller()), 20_000, &mut bench.out);
    assert_eq!(bench.frames(), [json!({"type": "ok", "ref": "a"})]);
    bench.pass(19_999);
    assert_eq!(bench.closed(), None);
    bench.pass(1);
    assert_eq!(bench.closed(), Some(close::TOKEN));

    for verified in [None, Some(Caller { session_id: BEN, ..caller() })] {
        let mut bench = Bench::open(vec![]);
        bench.session.verified(None, verified, 20_000, &mut bench.out);
        assert_eq!(bench.closed(), Some(close::TOKEN));
    }
}

#[test]
fn the_server_pings_and_lets_go_of_the_silent() {
    let mut bench = Bench::open(vec![]);
    bench.frames();
    bench.pass(30_000);
    assert_eq!(bench.frames(), [Value::Null]);
    bench.session.heard(bench.now_ms);
    bench.pass(59_999);
    assert_eq!(bench.frames(), [Value::Null]);
    assert_eq!(bench.actions(), []);
    bench.pass(1);
    assert_eq!(bench.actions(), [Action::Drop]);
}

#[test]
fn who_left_while_away_is_told_before_synced() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    bench.frames();
    bench.actions();
    bench.start(Plan { left: vec![OTHER_ROOM, ROOM], forget: vec![OTHER_ROOM], ..Plan::default() });
    assert_eq!(bench.actions(), [Action::Forget(OTHER_ROOM)]);
    let left = |id: Uuid| json!({"type": "left", "conversation_id": id});
    assert_eq!(bench.frames(), [left(OTHER_ROOM), left(ROOM), json!({"type": "synced"})]);
}

#[test]
fn an_idle_session_is_small() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.ack(1);
    assert!(bench.session.flows[&ROOM].events.is_none());
    assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
}
