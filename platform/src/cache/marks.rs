//! What hints say that moved.

use std::collections::BTreeMap;

use schemas::{Body, Event, Position, Topic};

use super::Part;
use crate::live::{Channel, Hint};

/// The parts that these hints are about, each with the last position of each shard.
pub(crate) fn marks(hints: &[Hint]) -> BTreeMap<(Part, u16), Position> {
    let mut marks = BTreeMap::new();
    for hint in hints.iter().filter(|hint| hint.record.topic == Topic::Conversations) {
        let place = hint.record.place();
        marks.insert((Part::Conversation(hint.record.key), place.shard), place);
        if let (Channel::User(user_id), Event::Numbered(numbered)) = (hint.channel, &hint.record.event)
            && matches!(numbered.body, Body::Created(_) | Body::MemberJoined(_) | Body::MemberLeft(_))
        {
            marks.insert((Part::Memberships(user_id), place.shard), place);
        }
    }
    marks
}
