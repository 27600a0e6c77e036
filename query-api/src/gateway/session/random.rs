//! Sessions under random weather: hints dropped, doubled and swapped, read models that lag, acks and connections lost.
//!
//! Whatever happens, every device gets each number once at least, ascending and without a gap, and nothing beyond its
//! user's membership.

use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::json;
use time::OffsetDateTime;

use super::tests::{ANN, BEN, ROOM, begin, caller, event_about, parse};
use super::*;
use crate::gateway::protocol::event::{About, Event};

/// One step of the weather.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody says something.
    Say,
    /// The user is removed, or comes again.
    ComeOrGo,
    /// The next hint arrives.
    Hint,
    /// The next hint is lost.
    Lose,
    /// The next hint arrives, and will again.
    Double,
    /// The next hint is overtaken.
    Swap,
    /// The read model takes in so many events.
    Apply(u64),
    /// What was asked of the read model is answered.
    Answer,
    /// What was asked of the read model is not answered.
    Fail,
    /// The client takes what was sent, and acks it.
    Ack,
    /// The client takes what was sent, and acks nothing.
    Take,
    /// Committed heads are compared.
    Heads,
    /// Time passes.
    Wait(u64),
    /// The connection is lost, and made again.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Say),
        1 => Just(Step::ComeOrGo),
        8 => Just(Step::Hint),
        2 => Just(Step::Lose),
        1 => Just(Step::Double),
        1 => Just(Step::Swap),
        4 => (1u64..6).prop_map(Step::Apply),
        5 => Just(Step::Answer),
        1 => Just(Step::Fail),
        4 => Just(Step::Ack),
        2 => Just(Step::Take),
        1 => Just(Step::Heads),
        2 => (1u64..8_000).prop_map(Step::Wait),
        1 => Just(Step::Reconnect),
    ]
}

/// One conversation, one device, and everything between them.
struct World {
    log: Vec<About>,
    /// `joined` of the stay that lasts.
    stay: Option<u64>,
    applied: u64,
    hints: VecDeque<u64>,
    session: Session,
    out: Output,
    now_ms: u64,
    asked: Vec<Action>,
    cursor: Option<Cursor>,
    known: bool,
    // What the client has.
    /// The stay that it knows of, and everything up to here; nothing while it is not in one.
    has: Option<u64>,
    /// Everything that it got in stays, by number of first arrival.
    acked: u64,
}

impl World {
    fn new() -> Self {
        let log = vec![About::Created];
        let mut world = Self {
            log,
            stay: Some(0),
            applied: 1,
            hints: VecDeque::new(),
            session: Session::new(caller(), 0, u64::MAX),
            out: Output::default(),
            now_ms: 0,
            asked: Vec::new(),
            cursor: None,
            known: false,
            has: None,
            acked: 0,
        };
        world.connect();
        world
    }

    fn event(&self, seq: u64) -> Event {
        event_about(ROOM, seq, self.log[usize::try_from(seq).unwrap() - 1])
    }

    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn commit(&mut self, about: About) {
        self.log.push(about);
        self.hints.push_back(self.head());
    }

    /// The stay that the read model knows of.
    fn applied_stay(&self) -> Option<u64> {
        let mut stay = Some(0);
        for (seq, about) in (1..).zip(&self.log).take(usize::try_from(self.applied).unwrap()) {
            match about {
                About::Left(user) if *user == ANN => stay = None,
                About::Joined(user) if *user == ANN => stay = Some(seq),
                _ => {}
            }
        }
        stay
    }

    fn connect(&mut self) {
        self.settle();
        self.session = Session::new(caller(), self.now_ms, u64::MAX);
        self.out = Output::default();
        self.asked.clear();
        let hello = json!({"type": "hello"}).to_string();
        self.session.text(self.now_ms, OffsetDateTime::UNIX_EPOCH, &hello, &mut self.out);
        // As the work does it: the read model has all that is committed when membership is looked at.
        self.applied = self.head();
        let stay = |joined| Stay { conversation_id: ROOM, joined, head: self.head(), delivered_to: 0, members: 2 };
        let stored = Stored {
            known: self.known,
            stays: self.stay.map(stay).into_iter().collect(),
            cursors: self.cursor.into_iter().collect(),
            former: if self.stay.is_none() { vec![ROOM] } else { vec![] },
        };
        let plan = Plan::new(&stored, &[], &HashMap::new());
        self.known = true;
        for cursor in &plan.store {
            self.cursor = Some(*cursor);
            if self.has.is_none() {
                self.has = Some(cursor.acked);
            }
        }
        self.out.actions.clear();
        self.session.started(self.now_ms, plan, &mut self.out);
        self.act();
        // What the client has beyond what it acked it has from before, and may get again.
    }

    /// Has what the session wants done done, or kept for later.
    fn act(&mut self) {
        for action in std::mem::take(&mut self.out.actions) {
            match action {
                Action::Keep(cursor) => {
                    let known = self.cursor.filter(|known| known.joined == cursor.joined);
                    let acked = known.map_or(0, |known| known.acked).max(cursor.acked);
                    self.cursor = Some(Cursor { acked, ..cursor });
                }
                Action::Forget(_) => self.cursor = None,
                Action::Read(_) | Action::Receipts(_) | Action::Stays => self.asked.push(action),
                Action::Advance(advance) => {
                    let at = OffsetDateTime::UNIX_EPOCH;
                    self.session.advanced(self.now_ms, at, &advance, Ok(()), &mut self.out);
                }
                Action::Close(code, reason) => panic!("closed: {code} {reason}"),
                Action::Drop => panic!("dropped"),
                Action::Start { .. } | Action::Send { .. } | Action::Verify { .. } => {}
            }
        }
        if !self.out.actions.is_empty() {
            self.act();
        }
    }

    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        match self.asked.remove(0) {
            Action::Read(ranges) => {
                let page = |range: &Range| {
                    let last = range.upto.min(self.applied).min(range.after + range.limit);
                    Page {
                        conversation_id: ROOM,
                        events: (range.after + 1..=last).map(|seq| self.event(seq)).collect(),
                    }
                };
                let pages: Vec<_> = ranges.iter().map(page).collect();
                self.session.pages(self.now_ms, &pages, &mut self.out);
            }
            Action::Receipts(_) => self.session.receipts_read(self.now_ms, &[], &mut self.out),
            Action::Stays => {
                let stays: Vec<_> =
                    self.applied_stay().map(|joined| (ROOM, joined, self.applied)).into_iter().collect();
                self.session.stays(self.now_ms, &stays, &mut self.out);
            }
            _ => {}
        }
        self.act();
    }

    fn fail(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        match self.asked.remove(0) {
            Action::Read(ranges) => self.session.not_read(self.now_ms, &ranges),
            Action::Receipts(_) => self.session.receipts_not_read(self.now_ms),
            _ => self.session.no_stays(self.now_ms),
        }
    }

    /// The client looks at what came.
    fn take(&mut self) {
        for frame in std::mem::take(&mut self.out.frames) {
            let frame = parse(&frame);
            match frame["type"].as_str() {
                Some("event") => {
                    let seq = frame["seq"].as_u64().unwrap();
                    let about = self.log[usize::try_from(seq).unwrap() - 1];
                    let begins = about == About::Created || about == About::Joined(ANN);
                    let has = match self.has {
                        Some(has) => has,
                        None if begins => seq - 1,
                        None => panic!("{seq} came, though the client is in no stay"),
                    };
                    assert!(seq <= has + 1, "{seq} came after {has}");
                    self.has = Some(has.max(seq));
                }
                Some("left") => self.has = None,
                _ => {}
            }
        }
    }

    fn ack(&mut self) {
        self.take();
        let Some(has) = self.has else { return };
        let frame = json!({"type": "ack", "conversation_id": ROOM, "seq": has}).to_string();
        self.session.heard(self.now_ms);
        self.session.text(self.now_ms, OffsetDateTime::UNIX_EPOCH, &frame, &mut self.out);
        self.acked = has;
        self.act();
    }

    fn settle(&mut self) {
        self.take();
    }

    fn hint(&mut self, seq: u64) {
        let event = self.event(seq);
        // The hub tells those who listen, and those whom it concerns.
        self.session.event(self.now_ms, &event, &mut self.out);
        self.act();
    }

    fn heads(&mut self) {
        let head = self.head();
        self.session.heads(self.now_ms, &[(ROOM, head)], &mut self.out);
        if let Some(joined) = self.applied_stay() {
            self.session.stays(self.now_ms, &[(ROOM, joined, self.applied)], &mut self.out);
        }
        self.act();
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.session.due_ms() <= until {
            self.now_ms = self.now_ms.max(self.session.due_ms());
            // Somebody is there.
            self.session.heard(self.now_ms);
            self.session.tick(self.now_ms, &mut self.out);
            self.act();
        }
        self.now_ms = until;
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Say => self.commit(About::Other),
            Step::ComeOrGo => {
                self.commit(if self.stay.is_some() { About::Left(ANN) } else { About::Joined(ANN) });
                self.stay = if self.stay.is_some() { None } else { Some(self.head()) };
            }
            Step::Hint => {
                if let Some(seq) = self.hints.pop_front() {
                    self.hint(seq);
                }
            }
            Step::Lose => drop(self.hints.pop_front()),
            Step::Double => {
                if let Some(seq) = self.hints.front().copied() {
                    self.hint(seq);
                }
            }
            Step::Swap => {
                if self.hints.len() > 1 {
                    self.hints.swap(0, 1);
                }
            }
            Step::Apply(count) => self.applied = (self.applied + count).min(self.head()),
            Step::Answer => self.answer(),
            Step::Fail => self.fail(),
            Step::Ack => self.ack(),
            Step::Take => self.take(),
            Step::Heads => self.heads(),
            Step::Wait(ms) => {
                // Redelivery within bounds; a client that is there acks in time.
                self.ack();
                self.wait(*ms);
            }
            Step::Reconnect => self.connect(),
        }
    }

    /// The weather clears up: everything arrives that has to.
    fn clear_up(&mut self) {
        self.applied = self.head();
        self.hints.clear();
        for _ in 0..40 {
            self.heads();
            for _ in 0..6 {
                self.answer();
            }
            self.ack();
            self.wait(700);
        }
        if self.stay.is_some() {
            assert_eq!(self.has, Some(self.head()), "everything has arrived");
        } else {
            assert_eq!(self.has, None, "who left knows it");
        }
        assert_eq!(self.session.flight, Amount::default());
        assert_eq!(self.session.held, Amount::default());
        assert_eq!(self.session.unsynced, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_device_gets_everything_in_order(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.clear_up();
    }
}

#[test]
fn others_come_and_go_without_a_trace() {
    let mut world = World::new();
    world.commit(About::Joined(BEN));
    world.commit(About::Left(BEN));
    world.clear_up();
    assert_eq!(world.has, Some(3));
    let _ = begin(ROOM, 0, 0, 0);
}
