//! The gateway's end of the live bus: who listens to what. An event is encoded once for all its devices.

mod ears;
mod mailbox;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use platform::auth::Caller;
use platform::live::{Channel, Connected, Hint, LiveBus, LiveSink};
use schemas::ws::close;
use schemas::{Body, Event as Happening, ReceiptMoved, Record};
use tokio::sync::Notify;
use uuid::Uuid;

use super::protocol::event::{Event, Receipt};
use ears::Ears;
pub(crate) use ears::Heard;
pub(crate) use mailbox::{Mailbox, Note};

/// Locks over which conversations are spread.
const SHARDS: usize = 64;

const REPLACED: &str = "replaced by a newer connection of this device";

type Boxes = Vec<Arc<Mailbox>>;

/// All connections of this process.
#[derive(Debug)]
pub(crate) struct Hub {
    rooms: Vec<Mutex<HashMap<Uuid, Room>>>,
    /// Those that said hello.
    users: RwLock<HashMap<Uuid, Boxes>>,
    /// All, by session.
    sessions: Mutex<HashMap<Uuid, Boxes>>,
    /// Told when a connection went.
    gone: Notify,
    ears: Ears,
}

/// Who listens to a conversation.
#[derive(Debug, Default)]
struct Room {
    /// Copied only where somebody comes or goes while it is told.
    listeners: Arc<Boxes>,
    /// The highest number that was told.
    head: u64,
    /// How many members there are, as far as is known.
    members: Option<u32>,
    /// Whether it is listened to by itself, and not only where its members are.
    wide: bool,
    /// Where the log tells of each member's watermarks that were told last: fan-out that takes over tells some again.
    marks: HashMap<Uuid, u64>,
}

impl Room {
    /// Whether watermarks are later than those that were told.
    fn moves(&mut self, moved: &ReceiptMoved, position: u64) -> bool {
        let told = self.marks.entry(moved.user_id).or_default();
        let is_later = position > *told;
        *told = position.max(*told);
        is_later
    }

    /// Follows who comes and goes, where it is known how many there were.
    fn count(&mut self, body: &Body) {
        let change = match body {
            Body::MemberJoined(_) => 1,
            Body::MemberLeft(_) => -1,
            _ => return,
        };
        self.members = self.members.map(|members| members.saturating_add_signed(change));
    }
}

/// Removes one, by identity; whether it was there.
fn remove(boxes: &mut Boxes, mailbox: &Arc<Mailbox>) -> bool {
    let place = boxes.iter().position(|other| Arc::ptr_eq(other, mailbox));
    if let Some(place) = place {
        boxes.swap_remove(place);
    }
    place.is_some()
}

fn remove_from(map: &mut HashMap<Uuid, Boxes>, key: Uuid, mailbox: &Arc<Mailbox>) -> bool {
    let Some(boxes) = map.get_mut(&key) else { return false };
    let was_there = remove(boxes, mailbox);
    if boxes.is_empty() {
        map.remove(&key);
    }
    was_there
}

impl Hub {
    /// One that hears of `live` what those who are connected want to know; to be attached to it.
    pub(crate) fn new(live: &Arc<dyn LiveBus>) -> Self {
        Self {
            rooms: (0..SHARDS).map(|_| Mutex::default()).collect(),
            users: RwLock::default(),
            sessions: Mutex::default(),
            gone: Notify::new(),
            ears: Ears::new(live),
        }
    }

    fn shard(&self, conversation_id: Uuid) -> &Mutex<HashMap<Uuid, Room>> {
        let place = conversation_id.as_u128() % SHARDS as u128;
        &self.rooms[usize::try_from(place).unwrap_or_default()]
    }

    /// A connection was made.
    pub(crate) fn connect(&self, caller: &Caller) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(caller));
        self.sessions.lock().entry(caller.session_id).or_insert_with(|| Vec::with_capacity(1)).push(mailbox.clone());
        mailbox
    }

    /// It said hello: it is told what concerns its user, once that is heard, and replaces an older one of its device.
    pub(crate) fn enter(&self, mailbox: &Arc<Mailbox>) -> Option<Heard> {
        let channel = Channel::User(mailbox.user_id);
        // Held to the end: one that is gone by then is not entered, one that goes later is found.
        let rooms = mailbox.rooms.lock();
        if rooms.is_none() {
            return None;
        }
        let mut users = self.users.write();
        let boxes = users.entry(mailbox.user_id).or_insert_with(|| Vec::with_capacity(1));
        if boxes.iter().any(|other| Arc::ptr_eq(other, mailbox)) {
            return self.ears.heard(channel);
        }
        let heard = self.ears.listen(channel);
        boxes.retain(|other| {
            let same = other.device_id == mailbox.device_id;
            if same {
                other.close(close::REPLACED, REPLACED);
                self.ears.ignore(channel);
            }
            !same
        });
        boxes.push(mailbox.clone());
        heard
    }

    /// Has it told what happens in a conversation, of so many members where that is known; answers how far that has
    /// been told, and what is to be waited for until it is heard.
    pub(crate) fn listen(
        &self,
        mailbox: &Arc<Mailbox>,
        conversation_id: Uuid,
        head: u64,
        members: Option<u32>,
    ) -> (u64, Option<Heard>) {
        let mut rooms = mailbox.rooms.lock();
        let Some(rooms) = rooms.as_mut() else { return (0, None) };
        let mut shard = self.shard(conversation_id).lock();
        let room = shard.entry(conversation_id).or_default();
        if rooms.insert(conversation_id) {
            Arc::make_mut(&mut room.listeners).push(mailbox.clone());
        }
        // Others may not have been told as much as is known of it here.
        if room.listeners.len() == 1 {
            room.head = room.head.max(head);
        }
        room.members = members.or(room.members);
        let pending = if room.wide {
            self.ears.heard(Channel::Conversation(conversation_id))
        } else {
            self.widen(conversation_id, room)
        };
        (room.head, pending)
    }

    /// Listens to a conversation by itself where it has grown so large.
    fn widen(&self, conversation_id: Uuid, room: &mut Room) -> Option<Heard> {
        if room.wide || !self.ears.wants(room.members) {
            return None;
        }
        room.wide = true;
        self.ears.listen(Channel::Conversation(conversation_id))
    }

    /// As [`Hub::listen`], of a conversation that goes on meanwhile: it is looked at once it is heard.
    pub(crate) fn join(&self, mailbox: &Arc<Mailbox>, conversation_id: Uuid, head: u64, members: Option<u32>) -> u64 {
        let (told, pending) = self.listen(mailbox, conversation_id, head, members);
        self.ears.look_at(conversation_id, pending);
        told
    }

    /// Waits for conversations that began to be heard while they went on: what was said before then is to be looked for.
    pub(crate) async fn fresh(&self) -> Vec<(Uuid, Heard)> {
        self.ears.fresh().await
    }

    fn ignore(&self, mailbox: &Arc<Mailbox>, conversation_id: Uuid) {
        let mut rooms = mailbox.rooms.lock();
        if rooms.as_mut().is_some_and(|rooms| rooms.remove(&conversation_id)) {
            self.leave_room(mailbox, conversation_id);
        }
    }

    fn leave_room(&self, mailbox: &Arc<Mailbox>, conversation_id: Uuid) {
        let mut shard = self.shard(conversation_id).lock();
        if let Some(room) = shard.get_mut(&conversation_id) {
            remove(Arc::make_mut(&mut room.listeners), mailbox);
            if room.listeners.is_empty() {
                if room.wide {
                    self.ears.ignore(Channel::Conversation(conversation_id));
                }
                shard.remove(&conversation_id);
            }
        }
    }

    /// A connection is gone.
    pub(crate) fn disconnect(&self, mailbox: &Arc<Mailbox>) {
        let rooms = mailbox.rooms.lock().take();
        for conversation_id in rooms.unwrap_or_default() {
            self.leave_room(mailbox, conversation_id);
        }
        if remove_from(&mut self.users.write(), mailbox.user_id, mailbox) {
            self.ears.ignore(Channel::User(mailbox.user_id));
        }
        remove_from(&mut self.sessions.lock(), mailbox.session_id, mailbox);
        self.gone.notify_waiters();
    }

    /// Closes the connections of a session.
    pub(crate) fn revoke(&self, session_id: Uuid) {
        for mailbox in self.sessions.lock().get(&session_id).into_iter().flatten() {
            mailbox.close(close::TOKEN, "the session was revoked");
        }
    }

    /// Closes those whose session `is_revoked`.
    pub(crate) fn revoke_where(&self, is_revoked: impl Fn(Uuid) -> bool) {
        let sessions: Vec<Uuid> = self.sessions.lock().keys().copied().collect();
        for session_id in sessions.into_iter().filter(|id| is_revoked(*id)) {
            self.revoke(session_id);
        }
    }

    /// Closes all connections.
    pub(crate) fn close_all(&self, code: u16, reason: &'static str) {
        for mailbox in self.sessions.lock().values().flatten() {
            mailbox.close(code, reason);
        }
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.lock().values().map(Vec::len).sum()
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.sessions.lock().is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// The conversations that somebody listens to, each with how far it has been told.
    pub(crate) fn told(&self) -> Vec<(Uuid, u64)> {
        let mut told = Vec::new();
        for shard in &self.rooms {
            told.extend(shard.lock().iter().map(|(id, room)| (*id, room.head)));
        }
        told
    }

    /// A conversation has got this far: tells those who listen, where they were not told.
    pub(crate) fn head(&self, conversation_id: Uuid, head: u64) {
        let listeners = {
            let mut shard = self.shard(conversation_id).lock();
            let Some(room) = shard.get_mut(&conversation_id).filter(|room| room.head < head) else { return };
            room.head = head;
            room.listeners.clone()
        };
        for mailbox in listeners.iter() {
            mailbox.put(Note::Head(conversation_id, head));
        }
    }

    /// The users that are connected.
    pub(crate) fn users(&self) -> Vec<Uuid> {
        self.users.read().keys().copied().collect()
    }

    /// The devices that are connected.
    pub(crate) fn devices(&self) -> Vec<Connected> {
        let users = self.users.read();
        let device = |mailbox: &Arc<Mailbox>| mailbox.connected();
        users.values().flatten().map(device).collect()
    }

    /// A user is in a conversation of so many members: tells those of its devices that do not listen to it.
    pub(crate) fn stay(&self, user_id: Uuid, conversation_id: Uuid, joined: u64, head: u64, members: u32) {
        for mailbox in self.boxes(user_id) {
            let listens = mailbox.rooms.lock().as_ref().is_none_or(|rooms| rooms.contains(&conversation_id));
            if listens {
                self.grown(conversation_id, members);
            } else {
                self.join(&mailbox, conversation_id, head, Some(members));
                mailbox.put(Note::Stay(conversation_id, joined, head));
            }
        }
    }

    /// A conversation has so many members.
    fn grown(&self, conversation_id: Uuid, members: u32) {
        let mut shard = self.shard(conversation_id).lock();
        let Some(room) = shard.get_mut(&conversation_id) else { return };
        room.members = Some(members);
        let pending = self.widen(conversation_id, room);
        self.ears.look_at(conversation_id, pending);
    }

    /// Watermarks moved in a conversation, and it may be that nobody was told.
    pub(crate) fn receipts_missed(&self, conversation_id: Uuid) {
        let listeners = self.shard(conversation_id).lock().get(&conversation_id).map(|room| room.listeners.clone());
        for mailbox in listeners.iter().flat_map(|listeners| listeners.iter()) {
            mailbox.miss_receipts(conversation_id);
        }
    }

    fn boxes(&self, user_id: Uuid) -> Boxes {
        self.users.read().get(&user_id).cloned().unwrap_or_default()
    }

    /// Tells all who listen to a conversation.
    fn tell_room(&self, conversation_id: Uuid, record: &Record, last: &mut Encoded) {
        let listeners = {
            let mut shard = self.shard(conversation_id).lock();
            let Some(room) = shard.get_mut(&conversation_id) else { return };
            if let Happening::Numbered(numbered) = &record.event {
                if numbered.seq > room.head {
                    room.count(&numbered.body);
                    let pending = self.widen(conversation_id, room);
                    self.ears.look_at(conversation_id, pending);
                }
                room.head = room.head.max(numbered.seq);
            }
            if moved(record).is_some_and(|moved| !room.moves(moved, record.position)) {
                return;
            }
            room.listeners.clone()
        };
        if let Some(note) = last.note(record) {
            for mailbox in listeners.iter() {
                mailbox.put(note.clone());
            }
        }
    }

    /// Whether watermarks are later than those that were told in their conversation; so they are where nobody listens.
    fn moves(&self, moved: &ReceiptMoved, position: u64) -> bool {
        let mut shard = self.shard(moved.conversation_id).lock();
        shard.get_mut(&moved.conversation_id).is_none_or(|room| room.moves(moved, position))
    }

    /// Tells all devices of a user; whoever comes in begins to listen, and who leaves stops.
    fn tell_user(&self, user_id: Uuid, record: &Record, last: &mut Encoded) {
        let boxes = self.boxes(user_id);
        let Happening::Numbered(numbered) = &record.event else {
            if let Happening::SessionRevoked(session) = &record.event {
                return self.revoke(session.session_id);
            }
            if moved(record).is_some_and(|moved| !self.moves(moved, record.position)) {
                return;
            }
            if let Some(note) = last.note(record).filter(|_| !boxes.is_empty()) {
                for mailbox in &boxes {
                    mailbox.put(note.clone());
                }
            }
            return;
        };
        let Some(note) = last.note(record).filter(|_| !boxes.is_empty()) else { return };
        for mailbox in boxes {
            match &numbered.body {
                Body::Created(created) => {
                    let members = u32::try_from(created.members.len()).ok();
                    self.join(&mailbox, numbered.conversation_id, numbered.seq, members);
                }
                Body::MemberJoined(joined) if joined.user_id == user_id => {
                    self.join(&mailbox, numbered.conversation_id, numbered.seq, None);
                }
                Body::MemberLeft(left) if left.user_id == user_id => self.ignore(&mailbox, numbered.conversation_id),
                _ => {}
            }
            mailbox.put(note.clone());
        }
    }
}

/// The watermarks that a record tells of.
fn moved(record: &Record) -> Option<&ReceiptMoved> {
    match &record.event {
        Happening::MessageDelivered(moved) | Happening::MessageRead(moved) => Some(moved),
        _ => None,
    }
}

/// The last record that was encoded: one that concerns several channels comes several times in a row.
#[derive(Default)]
struct Encoded(Option<(*const Record, Note)>);

impl Encoded {
    fn note(&mut self, record: &Record) -> Option<Note> {
        if let Some((_, note)) = self.0.as_ref().filter(|(known, _)| std::ptr::eq(*known, record)) {
            return Some(note.clone());
        }
        let note = match &record.event {
            Happening::Numbered(numbered) => Note::Event(Arc::new(Event::live(numbered, record.place()))),
            Happening::MessageDelivered(moved) | Happening::MessageRead(moved) => {
                let is_delivery = matches!(record.event, Happening::MessageDelivered(_));
                Note::Receipt(Arc::new(Receipt::live(moved, is_delivery, record.place())))
            }
            _ => return None,
        };
        self.0 = Some((record, note.clone()));
        Some(note)
    }
}

impl LiveSink for Hub {
    fn deliver(&self, hints: &[Hint]) {
        let begun = Instant::now();
        let mut last = Encoded::default();
        for hint in hints {
            match hint.channel {
                Channel::Conversation(id) => self.tell_room(id, &hint.record, &mut last),
                Channel::User(id) => self.tell_user(id, &hint.record, &mut last),
            }
        }
        metrics::histogram!("parlance_gateway_fan_out_seconds").record(begun.elapsed());
    }

    fn connected(&self, connected: Connected) {
        let Connected { user_id, device_id, connection_id } = connected;
        for mailbox in self.boxes(user_id) {
            if mailbox.device_id == device_id && mailbox.connection_id < connection_id {
                mailbox.close(close::REPLACED, REPLACED);
            }
        }
    }
}

#[cfg(test)]
impl Hub {
    /// Nobody is left behind.
    fn is_deserted(&self) -> bool {
        let rooms = self.rooms.iter().all(|shard| shard.lock().is_empty());
        rooms && self.users.read().is_empty() && self.sessions.lock().is_empty()
    }

    /// The conversations that a connection listens to.
    fn rooms_of(mailbox: &Mailbox) -> std::collections::HashSet<Uuid> {
        mailbox.rooms.lock().clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::task::{Context, Poll, Waker};

    use futures::future::ready;
    use platform::live::InProcessLive;
    use schemas::{
        ConversationCreated, History, InitialMember, Kind, MemberJoined, MemberLeft, Numbered, Role, SessionChanged,
        Topic,
    };
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
        let session = SessionChanged {
            user_id: one.user_id,
            session_id: one.session_id,
            device_id: one.device_id,
            device_name: None,
            at: OffsetDateTime::UNIX_EPOCH,
        };
        hub.deliver(&[hint(Channel::User(one.user_id), &record(Happening::SessionRevoked(session)))]);
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

        async fn connected(&self, _: Connected) {}

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
        let Poll::Ready(mail) = ann.poll(&mut Context::from_waker(Waker::noop()), true, true) else {
            panic!("nothing")
        };
        assert_eq!(mail.missed.unwrap().receipts, [room()]);
    }
}
