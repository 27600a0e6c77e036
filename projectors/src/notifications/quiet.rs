//! What became of a message before it is pushed: read, left, deleted or logged out, and nobody has to be told.

use std::collections::HashMap;

use platform::auth::Keyring;
use platform::push::PushTarget;
use sqlx::PgConnection;
use uuid::Uuid;

use super::outbox::Delivery;

/// Where a push goes, unless it does not.
pub(super) enum Push {
    /// To this browser, with what was said.
    Send(PushTarget, Option<String>),
    /// Nowhere, and why.
    Quiet(&'static str),
}

#[derive(sqlx::FromRow)]
struct Now {
    event_id: Uuid,
    target_id: Uuid,
    subscription: Option<Uuid>,
    sealed: Option<Vec<u8>>,
    is_member: bool,
    was_read: bool,
    was_deleted: bool,
    content: Option<String>,
}

/// What is to be done with each of these pushes, as things stand now.
pub(super) async fn look(
    connection: &mut PgConnection,
    keyring: &Keyring,
    pushes: &[Delivery],
) -> Result<HashMap<(Uuid, Uuid), Push>, sqlx::Error> {
    if pushes.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Now> = sqlx::query_as(
        "SELECT d.event_id, d.target_id, s.subscription_id AS subscription, s.sealed, \
                EXISTS (SELECT FROM read.members m \
                         WHERE m.conversation_id = d.conversation_id AND m.user_id = d.user_id \
                           AND m.left_seq IS NULL AND m.joined_seq < d.seq) AS is_member, \
                EXISTS (SELECT FROM read.receipts r \
                         WHERE r.conversation_id = d.conversation_id AND r.user_id = d.user_id \
                           AND r.left_seq IS NULL AND r.read_to >= d.seq) AS was_read, \
                t.seq IS NOT NULL AND t.content IS NULL AS was_deleted, t.content \
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[]) \
                AS d(event_id, target_id, user_id, conversation_id, seq) \
           LEFT JOIN state.push_subscriptions s ON s.target_id = d.target_id AND s.expires_at > now() \
                AND NOT EXISTS (SELECT FROM state.revoked_sessions r WHERE r.session_id = s.session_id) \
           LEFT JOIN read.timeline t ON t.conversation_id = d.conversation_id AND t.seq = d.seq",
    )
    .bind(pushes.iter().map(|push| push.event_id).collect::<Vec<_>>())
    .bind(pushes.iter().map(|push| push.target_id).collect::<Vec<_>>())
    .bind(pushes.iter().map(|push| push.user_id).collect::<Vec<_>>())
    .bind(pushes.iter().map(|push| push.conversation_id).collect::<Vec<_>>())
    .bind(pushes.iter().map(|push| push.seq).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let users: HashMap<(Uuid, Uuid), Option<Uuid>> =
        pushes.iter().map(|push| ((push.event_id, push.target_id), push.user_id)).collect();
    let mut all = HashMap::new();
    for row in rows {
        let key = (row.event_id, row.target_id);
        let user_id = users.get(&key).copied().flatten();
        let target = || PushTarget::open(keyring, row.sealed.as_deref()?, user_id?, row.subscription?);
        let push = match target() {
            _ if row.subscription.is_none() => Push::Quiet("unsubscribed"),
            _ if row.was_read => Push::Quiet("read"),
            _ if !row.is_member => Push::Quiet("left"),
            _ if row.was_deleted => Push::Quiet("deleted"),
            Some(target) => Push::Send(target, row.content),
            None => Push::Quiet("unreadable"),
        };
        all.insert(key, push);
    }
    Ok(all)
}
