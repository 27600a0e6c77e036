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
use super::traced::Push;
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
            // Whoever comes knows of `head`; others, and who only asks again, may not.
            if room.listeners.len() == 1 {
                room.head = room.head.max(head);
            }
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
            Happening::Numbered(numbered) => {
                Note::Event(Arc::new(Event::live(numbered, record.place(), Push::of(record))))
            }
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
mod tests;
