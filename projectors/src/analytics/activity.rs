//! Who was active on which day (UTC): in a conversation who sent or read a message there; at all also who started or
//! refreshed a session.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemas::{Body, Event, Record};
use sqlx::PgConnection;
use time::{Date, OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::projection::ApplyError;

/// What a batch says, in the order of the tables' keys: whoever writes waits for others of the same rows in one order.
#[derive(Default)]
pub(super) struct Activity {
    users: BTreeSet<(Date, Uuid)>,
    members: BTreeSet<(Uuid, Date, Uuid)>,
}

impl Activity {
    pub(super) fn of(batch: &[Arc<Record>]) -> Self {
        let mut activity = Self::default();
        for record in batch {
            match &record.event {
                Event::SessionStarted(session) | Event::SessionRefreshed(session) => {
                    activity.users.insert((day(session.at), session.user_id));
                }
                Event::MessageRead(read) => activity.member(read.conversation_id, read.user_id, read.at),
                Event::Numbered(event) => match &event.body {
                    Body::MessageSent(message) => {
                        activity.member(event.conversation_id, message.sender_id, event.at);
                    }
                    Body::Created(_)
                    | Body::Renamed(_)
                    | Body::SettingsChanged(_)
                    | Body::MemberJoined(_)
                    | Body::MemberLeft(_)
                    | Body::MemberRoleChanged(_) => {}
                },
                // A device takes delivery by itself.
                Event::MessageDelivered(_)
                | Event::UserRegistered(_)
                | Event::UserProfileChanged(_)
                | Event::UserPasswordChanged(_)
                | Event::UserRoleGranted(_)
                | Event::UserRoleRevoked(_)
                | Event::AuditRead(_)
                | Event::SessionRevoked(_)
                | Event::SessionReuseDetected(_) => {}
            }
        }
        activity
    }

    fn member(&mut self, conversation_id: Uuid, user_id: Uuid, at: OffsetDateTime) {
        let day = day(at);
        self.users.insert((day, user_id));
        self.members.insert((conversation_id, day, user_id));
    }

    pub(super) async fn save(self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        if !self.members.is_empty() {
            let (conversations, days, users): (Vec<Uuid>, Vec<Date>, Vec<Uuid>) = self.members.into_iter().collect();
            sqlx::query(
                "INSERT INTO analytics_active_members (conversation_id, day, user_id) \
                 SELECT * FROM unnest($1::uuid[], $2::date[], $3::uuid[]) ON CONFLICT DO NOTHING",
            )
            .bind(conversations)
            .bind(days)
            .bind(users)
            .execute(&mut *connection)
            .await?;
        }
        if !self.users.is_empty() {
            let (days, users): (Vec<Date>, Vec<Uuid>) = self.users.into_iter().unzip();
            sqlx::query(
                "INSERT INTO analytics_active_users (day, user_id) \
                 SELECT * FROM unnest($1::date[], $2::uuid[]) ON CONFLICT DO NOTHING",
            )
            .bind(days)
            .bind(users)
            .execute(connection)
            .await?;
        }
        Ok(())
    }
}

fn day(at: OffsetDateTime) -> Date {
    at.to_offset(UtcOffset::UTC).date()
}
