//! The views, reckoned the long way round: each message keeps a list of those who have yet to take and to read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use schemas::{Body, Event, Record};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// The bounds of the buckets as they were agreed on; from nothing of what is tested here.
const BUCKETS_MS: [(Option<i64>, Option<i64>); 16] = [
    (None, Some(10)),
    (Some(10), Some(25)),
    (Some(25), Some(50)),
    (Some(50), Some(100)),
    (Some(100), Some(250)),
    (Some(250), Some(500)),
    (Some(500), Some(1_000)),
    (Some(1_000), Some(2_500)),
    (Some(2_500), Some(5_000)),
    (Some(5_000), Some(10_000)),
    (Some(10_000), Some(30_000)),
    (Some(30_000), Some(60_000)),
    (Some(60_000), Some(300_000)),
    (Some(300_000), Some(3_600_000)),
    (Some(3_600_000), Some(86_400_000)),
    (Some(86_400_000), None),
];

/// The hour, the conversation, and the bucket.
type Bar = (OffsetDateTime, Option<Uuid>, (Option<i64>, Option<i64>));

/// What the four views have to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Views {
    /// How many, by day and conversation.
    pub(super) daily_active_users: BTreeMap<(Date, Option<Uuid>), i64>,
    /// How many, by hour and conversation.
    pub(super) messages_by_hour: BTreeMap<(OffsetDateTime, Option<Uuid>), i64>,
    /// How many, and the sum of their delays.
    pub(super) delivery_delays: BTreeMap<Bar, (i64, i64)>,
    /// The same.
    pub(super) read_delays: BTreeMap<Bar, (i64, i64)>,
}

/// A message, and who has not got it, or not read it.
struct Pending {
    seq: u64,
    at: OffsetDateTime,
    undelivered: BTreeSet<Uuid>,
    unread: BTreeSet<Uuid>,
}

#[derive(Default)]
struct Room {
    members: BTreeSet<Uuid>,
    messages: Vec<Pending>,
}

impl Views {
    /// Of a log in its order.
    pub(super) fn of(records: &[Arc<Record>]) -> Self {
        let mut views = Self::default();
        let mut rooms: HashMap<Uuid, Room> = HashMap::new();
        let mut active: BTreeSet<(Date, Option<Uuid>, Uuid)> = BTreeSet::new();
        for record in records {
            let day = record.at.date();
            match &record.event {
                Event::SessionStarted(session) | Event::SessionRefreshed(session) => {
                    active.insert((day, None, session.user_id));
                }
                Event::Numbered(event) => {
                    let room = rooms.entry(event.conversation_id).or_default();
                    match &event.body {
                        Body::Created(created) => room.members.extend(created.members.iter().map(|one| one.user_id)),
                        Body::MemberJoined(joined) => drop(room.members.insert(joined.user_id)),
                        Body::MemberLeft(left) => room.leave(left.user_id),
                        Body::MessageSent(message) => {
                            active.extend([None, Some(event.conversation_id)].map(|id| (day, id, message.sender_id)));
                            views.sent(event.conversation_id, event.at);
                            room.say(event.seq, event.at, message.sender_id);
                        }
                        _ => {}
                    }
                }
                Event::MessageDelivered(moved) => {
                    for message in &mut rooms.entry(moved.conversation_id).or_default().messages {
                        if message.seq <= moved.up_to && message.undelivered.remove(&moved.user_id) {
                            passed(&mut views.delivery_delays, moved.conversation_id, message.at, moved.at);
                        }
                    }
                }
                Event::MessageRead(moved) => {
                    active.extend([None, Some(moved.conversation_id)].map(|id| (day, id, moved.user_id)));
                    for message in &mut rooms.entry(moved.conversation_id).or_default().messages {
                        if message.seq > moved.up_to {
                            continue;
                        }
                        if message.undelivered.remove(&moved.user_id) {
                            passed(&mut views.delivery_delays, moved.conversation_id, message.at, moved.at);
                        }
                        if message.unread.remove(&moved.user_id) {
                            passed(&mut views.read_delays, moved.conversation_id, message.at, moved.at);
                        }
                    }
                }
                _ => {}
            }
        }
        for (day, conversation, _) in active {
            *views.daily_active_users.entry((day, conversation)).or_default() += 1;
        }
        views
    }

    fn sent(&mut self, conversation: Uuid, at: OffsetDateTime) {
        for place in [None, Some(conversation)] {
            *self.messages_by_hour.entry((hour(at), place)).or_default() += 1;
        }
    }
}

impl Room {
    fn say(&mut self, seq: u64, at: OffsetDateTime, sender: Uuid) {
        let recipients: BTreeSet<Uuid> = self.members.iter().copied().filter(|member| *member != sender).collect();
        self.messages.push(Pending { seq, at, undelivered: recipients.clone(), unread: recipients });
    }

    /// Nothing that was said before is for them any more, though they come back.
    fn leave(&mut self, user: Uuid) {
        self.members.remove(&user);
        for message in &mut self.messages {
            message.undelivered.remove(&user);
            message.unread.remove(&user);
        }
    }
}

fn passed(delays: &mut BTreeMap<Bar, (i64, i64)>, conversation: Uuid, sent: OffsetDateTime, at: OffsetDateTime) {
    let delay = i64::try_from((at - sent).whole_milliseconds()).unwrap().max(0);
    let bucket = BUCKETS_MS.into_iter().find(|(_, up_to)| up_to.is_none_or(|up_to| delay <= up_to)).unwrap();
    for place in [None, Some(conversation)] {
        let (count, sum) = delays.entry((hour(at), place, bucket)).or_default();
        *count += 1;
        *sum += delay;
    }
}

fn hour(at: OffsetDateTime) -> OffsetDateTime {
    at - time::Duration::nanoseconds(i64::try_from(at.unix_timestamp_nanos() % 3_600_000_000_000).unwrap())
}
