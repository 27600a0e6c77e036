//! Whom a record concerns.

use std::sync::Arc;

use platform::live::{Channel, Hint, WIDE};
use schemas::{Body, Event, Numbered, ReceiptMoved, Record};

use super::members::{Audience, Members};

/// In larger conversations, others' receipts would grow with the square of the members: only one's own are told.
const RECEIPTS_TO_ALL: u64 = 100;

/// Adds the hints of a record.
pub(super) fn route(record: &Arc<Record>, members: &mut Members, hints: &mut Vec<Hint>) {
    let mut to = Addressed { record, hints };
    match &record.event {
        Event::Numbered(event) => numbered(event, members.note(event), &mut to),
        Event::MessageDelivered(moved) | Event::MessageRead(moved) => receipt(moved, members, &mut to),
        Event::UserRegistered(_)
        | Event::UserProfileChanged(_)
        | Event::UserPasswordChanged(_)
        | Event::UserRoleGranted(_)
        | Event::UserRoleRevoked(_)
        | Event::AuditRead(_)
        | Event::SessionStarted(_)
        | Event::SessionRefreshed(_)
        | Event::SessionReuseDetected(_)
        // Sockets are closed by the word of the database, which reaches every process.
        | Event::SessionRevoked(_) => {}
    }
}

/// The hints of one record.
struct Addressed<'a> {
    record: &'a Arc<Record>,
    hints: &'a mut Vec<Hint>,
}

impl Addressed<'_> {
    fn tell(&mut self, channel: Channel, audience: Audience) {
        self.hints.push(Hint { channel, record: Arc::clone(self.record), audience });
    }

    fn tell_all(&mut self, channel: Channel, audience: Audience) {
        // While a conversation is about as large as that, some listen to it already, and others do not yet.
        let wide = audience.as_ref().is_some_and(|names| names.len() > WIDE);
        self.tell(channel, audience);
        if wide {
            self.tell(channel, None);
        }
    }
}

fn numbered(event: &Numbered, audience: Audience, to: &mut Addressed<'_>) {
    let room = Channel::Conversation(event.conversation_id);
    match &event.body {
        // Who comes in begins to listen first, who leaves hears it and then stops.
        Body::Created(created) => {
            created.members.iter().for_each(|member| to.tell(Channel::User(member.user_id), None));
            to.tell_all(room, audience);
        }
        Body::MemberJoined(joined) => {
            to.tell(Channel::User(joined.user_id), None);
            to.tell_all(room, audience);
        }
        Body::MemberLeft(left) => {
            to.tell_all(room, audience);
            to.tell(Channel::User(left.user_id), None);
        }
        Body::Renamed(_) | Body::SettingsChanged(_) | Body::MemberRoleChanged(_) | Body::MessageSent(_) => {
            to.tell_all(room, audience);
        }
    }
}

fn receipt(moved: &ReceiptMoved, members: &mut Members, to: &mut Addressed<'_>) {
    match members.of(moved) {
        Some((count, audience)) if count <= RECEIPTS_TO_ALL => {
            to.tell(Channel::Conversation(moved.conversation_id), audience);
        }
        // Where the count is not known, too much would be worse than too little.
        _ => to.tell(Channel::User(moved.user_id), None),
    }
}
