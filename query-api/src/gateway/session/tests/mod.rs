//! One session at a time, by hand: how it begins and ends here, the rest beside.

mod commands;
mod delivery;
mod receipts;
mod stays;

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
pub(super) const OTHER_ROOM: Uuid = Uuid::from_u128(0x200);

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

pub(super) fn receipt(user_id: Uuid, delivered_to: u64, read_to: u64) -> Receipt {
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
fn an_idle_session_is_small() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.ack(1);
    assert!(bench.session.flows[&ROOM].events.is_none());
    assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
}
