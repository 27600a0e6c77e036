//! Who is told what, and what is listened to.

use std::collections::HashSet;
use std::task::{Context, Poll, Waker};

use futures::future::ready;
use platform::live::{Device, InProcessLive};
use schemas::{ConversationCreated, History, InitialMember, Kind, MemberJoined, MemberLeft, Numbered, Role, Topic};
use time::OffsetDateTime;

use super::*;

fn hub() -> Hub {
    Hub::new(&(Arc::new(InProcessLive::default()) as _))
}

fn caller(user: u128, device: u128) -> Caller {
    let [user_id, device_id] = [user, device].map(Uuid::from_u128);
    let session_id = Uuid::from_u128(user * 1000 + device);
    Caller { user_id, session_id, device_id, expires_at: OffsetDateTime::UNIX_EPOCH }
}

fn enter(hub: &Hub, user: u128, device: u128) -> Arc<Mailbox> {
    let mailbox = hub.connect(&caller(user, device));
    hub.enter(&mailbox);
    mailbox
}

fn record(event: Happening) -> Arc<Record> {
    Arc::new(Record {
        topic: Topic::Conversations,
        shard: 0,
        position: 1,
        event_id: Uuid::nil(),
        key: Uuid::nil(),
        at: OffsetDateTime::UNIX_EPOCH,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event,
    })
}

fn room() -> Uuid {
    Uuid::from_u128(77)
}

fn numbered(seq: u64, body: Body) -> Arc<Record> {
    let (conversation_id, at) = (room(), OffsetDateTime::UNIX_EPOCH);
    record(Happening::Numbered(Numbered { conversation_id, seq, at, body }))
}

fn created() -> Arc<Record> {
    let members = [1, 2].map(|user| InitialMember { user_id: Uuid::from_u128(user), role: Role::Member }).to_vec();
    let by = Uuid::from_u128(1);
    numbered(
        1,
        Body::Created(ConversationCreated { kind: Kind::Group, name: None, history: History::All, members, by }),
    )
}

fn hint(channel: Channel, record: &Arc<Record>) -> Hint {
    Hint { channel, record: record.clone(), audience: None }
}

/// The numbers of the events that were told, and how many receipts.
fn told(mailbox: &Mailbox) -> (Vec<u64>, usize) {
    let context = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(mail) = mailbox.poll(context, true, true) else { return Default::default() };
    let mut seqs = Vec::new();
    let mut receipts = 0;
    for note in mail.notes {
        match note {
            Note::Event(event) => seqs.push(event.seq),
            Note::Receipt(_) => receipts += 1,
            Note::Head(_, head) | Note::Stay(_, _, head) => seqs.push(head + 1000),
        }
    }
    (seqs, receipts)
}

#[test]
fn who_comes_in_listens_and_who_leaves_stops() {
    let hub = hub();
    let [ann, ben, eve] = [1, 2, 3].map(|user| enter(&hub, user, 1));
    let begun = created();
    hub.deliver(&[
        hint(Channel::User(ann.user_id), &begun),
        hint(Channel::User(ben.user_id), &begun),
        hint(Channel::Conversation(room()), &begun),
    ]);
    // Once by either channel; sessions pass over doubles.
    for mailbox in [&ann, &ben] {
        assert_eq!(told(mailbox).0, [1, 1]);
    }
    assert_eq!(Hub::rooms_of(&ben), HashSet::from([room()]));
    let left = numbered(2, Body::MemberLeft(MemberLeft { user_id: ben.user_id, by: ann.user_id }));
    hub.deliver(&[hint(Channel::Conversation(room()), &left), hint(Channel::User(ben.user_id), &left)]);
    assert_eq!(told(&ben).0, [2, 2]);
    hub.deliver(&[hint(
        Channel::Conversation(room()),
        &numbered(3, Body::MemberLeft(MemberLeft { user_id: eve.user_id, by: ann.user_id })),
    )]);
    assert_eq!((told(&ann).0, told(&ben).0, told(&eve).0), (vec![2, 3], vec![], vec![]));
    assert_eq!(hub.told(), [(room(), 3)]);
    for mailbox in [ann, ben, eve] {
        hub.disconnect(&mailbox);
    }
    assert!(hub.is_deserted());
}

#[test]
fn an_event_is_encoded_once() {
    let hub = hub();
    let boxes = [1, 2, 3].map(|user| enter(&hub, user, 1));
    for mailbox in &boxes {
        hub.listen(mailbox, room(), 0, None);
    }
    hub.deliver(&[hint(Channel::Conversation(room()), &created())]);
    let frames: Vec<_> = boxes
        .iter()
        .map(|mailbox| {
            let Poll::Ready(mail) = mailbox.poll(&mut Context::from_waker(Waker::noop()), true, true) else {
                panic!("nothing")
            };
            let Some(Note::Event(event)) = mail.notes.front().cloned() else { panic!("no event") };
            event.frame.as_ptr()
        })
        .collect();
    assert!(frames.iter().all(|frame| *frame == frames[0]));
}

#[test]
fn watermarks_go_where_fan_out_says() {
    let hub = hub();
    let [ann, ben] = [1, 2].map(|user| enter(&hub, user, 1));
    hub.listen(&ann, room(), 0, None);
    hub.listen(&ben, room(), 0, None);
    let moved = record(Happening::MessageRead(ReceiptMoved {
        conversation_id: room(),
        user_id: ann.user_id,
        device_id: None,
        up_to: 1,
        delivered_to: 1,
        read_to: 1,
        at: OffsetDateTime::UNIX_EPOCH,
    }));
    hub.deliver(&[hint(Channel::Conversation(room()), &moved)]);
    assert_eq!((told(&ann).1, told(&ben).1), (1, 1));
    let later = Arc::new(Record { position: moved.position + 1, ..(*moved).clone() });
    hub.deliver(&[hint(Channel::User(ann.user_id), &later)]);
    assert_eq!((told(&ann).1, told(&ben).1), (1, 0));
    // Fan-out that takes over tells some again.
    hub.deliver(&[hint(Channel::Conversation(room()), &moved), hint(Channel::User(ann.user_id), &later)]);
    assert_eq!((told(&ann).1, told(&ben).1), (0, 0));
}

#[test]
fn a_newer_connection_of_a_device_replaces_the_older() {
    let hub = hub();
    let (old, other) = (enter(&hub, 1, 1), enter(&hub, 1, 2));
    let new = enter(&hub, 1, 1);
    assert_eq!(old.closing().map(|(code, _)| code), Some(close::REPLACED));
    assert_eq!((other.closing(), new.closing()), (None, None));
    hub.enter(&new);
    assert_eq!(new.closing(), None, "not by itself");
    hub.disconnect(&old);
    hub.enter(&old);
    hub.deliver(&[hint(Channel::User(new.user_id), &created())]);
    assert_eq!(told(&new).0, [1]);
}

#[test]
fn revocation_and_drain_reach_all() {
    let hub = hub();
    let (one, other) = (enter(&hub, 1, 1), hub.connect(&caller(1, 2)));
    hub.revoke(one.session_id);
    assert_eq!(one.closing().map(|(code, _)| code), Some(close::TOKEN));
    assert_eq!(other.closing(), None);
    hub.close_all(close::DRAINING, "draining");
    assert_eq!(other.closing().map(|(code, _)| code), Some(close::DRAINING));
    assert_eq!(hub.len(), 2);
}

#[test]
fn heads_and_stays_are_told_to_those_who_do_not_know() {
    let hub = hub();
    let ann = enter(&hub, 1, 1);
    hub.listen(&ann, room(), 5, None);
    hub.head(room(), 5);
    assert_eq!(told(&ann).0, Vec::<u64>::new());
    // She asks again, and knows no more for it.
    assert_eq!(hub.join(&ann, room(), 6, None), 5);
    hub.head(room(), 6);
    assert_eq!(told(&ann).0, [1006]);
    hub.stay(ann.user_id, room(), 0, 7, 2);
    assert_eq!(told(&ann).0, Vec::<u64>::new(), "it listens already");
    hub.stay(ann.user_id, Uuid::from_u128(78), 3, 7, 2);
    assert_eq!(told(&ann).0, [1007]);
}

/// A live bus of channels, which counts how often each is wanted.
#[derive(Default)]
struct Channels(Mutex<HashMap<Channel, u32>>);

impl Channels {
    fn wanted(&self) -> HashSet<Channel> {
        self.0.lock().iter().filter(|(_, count)| **count > 0).map(|(channel, _)| *channel).collect()
    }
}

#[async_trait::async_trait]
impl LiveBus for Channels {
    async fn publish(&self, _: Vec<Hint>) {}

    async fn connected(&self, _: Connected) -> bool {
        true
    }

    async fn disconnected(&self, _: Connected) {}

    async fn connected_of(&self, _: &[Device]) -> Option<HashSet<Device>> {
        Some(HashSet::new())
    }

    async fn still_connected(&self, _: &[Connected]) {}

    fn attach(&self, _: Arc<dyn LiveSink>) {}

    fn listen(&self, channel: Channel) -> Heard {
        *self.0.lock().entry(channel).or_default() += 1;
        Box::pin(ready(()))
    }

    fn ignore(&self, channel: Channel) {
        *self.0.lock().get_mut(&channel).unwrap() -= 1;
    }

    fn is_up(&self) -> bool {
        true
    }

    fn outages(&self) -> u64 {
        0
    }

    fn addresses_members(&self) -> bool {
        true
    }
}

fn joined(seq: u64, user: u128) -> Arc<Record> {
    let by = Uuid::from_u128(1);
    numbered(seq, Body::MemberJoined(MemberJoined { user_id: Uuid::from_u128(user), role: Role::Member, by }))
}

#[tokio::test]
async fn what_nobody_here_wants_is_not_listened_to() {
    let channels = Arc::new(Channels::default());
    let hub = Hub::new(&(channels.clone() as _));
    let all = Channel::Conversation(room());
    let [ann, ben] = [1, 2].map(|user| enter(&hub, user, 1));
    let again = enter(&hub, 1, 1);
    let of = |mailbox: &Mailbox| Channel::User(mailbox.user_id);
    assert_eq!(channels.wanted(), HashSet::from([of(&ann), of(&ben)]));
    // Small, it is told where its members are; nearly wide, by itself.
    hub.listen(&again, room(), 0, Some(3));
    assert!(!channels.wanted().contains(&all));
    hub.stay(again.user_id, room(), 0, 0, 90);
    assert!(!channels.wanted().contains(&all));
    hub.deliver(&[hint(all, &joined(1, 9)), hint(all, &joined(1, 9))]);
    assert!(channels.wanted().contains(&all));
    assert_eq!(hub.fresh().await.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [room()]);
    hub.listen(&ben, room(), 0, Some(91));
    for mailbox in [&ann, &again] {
        hub.disconnect(mailbox);
    }
    assert_eq!(channels.wanted(), HashSet::from([of(&ben), all]));
    hub.disconnect(&ben);
    assert_eq!(channels.wanted(), HashSet::new());
    assert!(hub.is_deserted());
}

#[tokio::test]
async fn who_comes_into_a_conversation_of_unknown_size_listens_to_it() {
    let channels = Arc::new(Channels::default());
    let hub = Hub::new(&(channels.clone() as _));
    let ann = enter(&hub, 1, 1);
    hub.deliver(&[hint(Channel::User(ann.user_id), &joined(7, 1))]);
    assert!(channels.wanted().contains(&Channel::Conversation(room())));
    assert_eq!(hub.fresh().await.len(), 1);
    hub.deliver(&[hint(Channel::User(ann.user_id), &created())]);
    let other = enter(&hub, 2, 1);
    hub.listen(&other, Uuid::from_u128(78), 0, Some(2));
    assert!(!channels.wanted().contains(&Channel::Conversation(Uuid::from_u128(78))));
}

#[test]
fn who_comes_later_and_knows_more_takes_nothing_from_others() {
    let hub = hub();
    let [ann, ben] = [1, 2].map(|user| enter(&hub, user, 1));
    hub.listen(&ann, room(), 1, None);
    hub.listen(&ben, room(), 4, None);
    hub.head(room(), 4);
    assert_eq!(told(&ann).0, [1004]);
}

#[test]
fn missed_watermarks_are_read_again() {
    let hub = hub();
    let ann = enter(&hub, 1, 1);
    hub.listen(&ann, room(), 0, None);
    hub.receipts_missed(room());
    let Poll::Ready(mail) = ann.poll(&mut Context::from_waker(Waker::noop()), true, true) else { panic!("nothing") };
    assert_eq!(mail.missed.unwrap().receipts, [room()]);
}
