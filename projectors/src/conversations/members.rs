//! Stays in conversations: a row each, which stays when its user leaves.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::{Body, InitialMember, Record, Role};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::numbered;
use crate::database::bigint;
use crate::projection::ApplyError;

/// A member of a conversation, over all their stays.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Who {
    conversation_id: Uuid,
    user_id: Uuid,
}

/// What a batch says of one member.
#[derive(Default)]
struct Stays {
    /// Of the stay that lasted when the batch began.
    before: Option<Change>,
    /// Those that began in the batch.
    new: Vec<Stay>,
}

struct Change {
    /// The number of the first event of it: only a stay that began earlier is meant.
    seq: u64,
    role: Option<Role>,
    left_seq: Option<u64>,
}

struct Stay {
    joined_seq: u64,
    left_seq: Option<u64>,
    role: Role,
    joined_at: OffsetDateTime,
}

impl Stays {
    fn before(&mut self, seq: u64) -> &mut Change {
        self.before.get_or_insert(Change { seq, role: None, left_seq: None })
    }

    fn leave(&mut self, seq: u64) {
        match self.new.last_mut() {
            Some(stay) => stay.left_seq = Some(seq),
            None => self.before(seq).left_seq = Some(seq),
        }
    }

    fn set_role(&mut self, seq: u64, role: Role) {
        match self.new.last_mut() {
            Some(stay) => stay.role = role,
            None => self.before(seq).role = Some(role),
        }
    }
}

/// Applies what a batch says of members.
pub(super) async fn apply(connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
    let members = collapse(batch);
    let before = members.iter().filter_map(|(who, stays)| Some((who, stays.before.as_ref()?)));
    change(connection, before.collect()).await?;
    let new = members.iter().flat_map(|(who, stays)| stays.new.iter().map(move |stay| (who, stay)));
    begin(connection, new.collect()).await
}

fn collapse(batch: &[Arc<Record>]) -> HashMap<Who, Stays> {
    let mut members: HashMap<Who, Stays> = HashMap::new();
    for event in batch.iter().filter_map(|record| numbered(record)) {
        let (conversation_id, seq, joined_at) = (event.conversation_id, event.seq, event.at);
        let who = |user_id| Who { conversation_id, user_id };
        match &event.body {
            Body::Created(created) => {
                for InitialMember { user_id, role } in created.members.iter().copied() {
                    let stay = Stay { joined_seq: 0, left_seq: None, role, joined_at };
                    members.entry(who(user_id)).or_default().new.push(stay);
                }
            }
            Body::MemberJoined(joined) => {
                let stay = Stay { joined_seq: seq, left_seq: None, role: joined.role, joined_at };
                members.entry(who(joined.user_id)).or_default().new.push(stay);
            }
            Body::MemberLeft(left) => members.entry(who(left.user_id)).or_default().leave(seq),
            Body::MemberRoleChanged(changed) => {
                members.entry(who(changed.user_id)).or_default().set_role(seq, changed.role);
            }
            Body::Renamed(_) | Body::SettingsChanged(_) | Body::MessageSent(_) => {}
        }
    }
    members
}

async fn change(connection: &mut PgConnection, changes: Vec<(&Who, &Change)>) -> Result<(), ApplyError> {
    if changes.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = changes.iter().map(|(who, _)| who.conversation_id).collect();
    let users: Vec<Uuid> = changes.iter().map(|(who, _)| who.user_id).collect();
    let seqs: Vec<i64> = changes.iter().map(|(_, change)| bigint(change.seq)).collect();
    let roles: Vec<Option<&str>> = changes.iter().map(|(_, change)| change.role.map(Role::as_str)).collect();
    let left: Vec<Option<i64>> = changes.iter().map(|(_, change)| change.left_seq.map(bigint)).collect();
    sqlx::query(
        "UPDATE members m SET role = coalesce(u.role, m.role), left_seq = u.left_seq \
           FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[]) \
             AS u(conversation_id, user_id, seq, role, left_seq) \
          WHERE m.conversation_id = u.conversation_id AND m.user_id = u.user_id \
            AND m.left_seq IS NULL AND m.joined_seq < u.seq",
    )
    .bind(conversations)
    .bind(users)
    .bind(seqs)
    .bind(roles)
    .bind(left)
    .execute(connection)
    .await?;
    Ok(())
}

async fn begin(connection: &mut PgConnection, stays: Vec<(&Who, &Stay)>) -> Result<(), ApplyError> {
    if stays.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = stays.iter().map(|(who, _)| who.conversation_id).collect();
    let users: Vec<Uuid> = stays.iter().map(|(who, _)| who.user_id).collect();
    let joined: Vec<i64> = stays.iter().map(|(_, stay)| bigint(stay.joined_seq)).collect();
    let left: Vec<Option<i64>> = stays.iter().map(|(_, stay)| stay.left_seq.map(bigint)).collect();
    let roles: Vec<&str> = stays.iter().map(|(_, stay)| stay.role.as_str()).collect();
    let times: Vec<_> = stays.iter().map(|(_, stay)| stay.joined_at).collect();
    sqlx::query(
        "INSERT INTO members (conversation_id, user_id, joined_seq, left_seq, role, joined_at) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[]) \
         ON CONFLICT (conversation_id, user_id, joined_seq) DO NOTHING",
    )
    .bind(conversations)
    .bind(users)
    .bind(joined)
    .bind(left)
    .bind(roles)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}
