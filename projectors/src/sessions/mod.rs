//! Projection `sessions`: the sessions of each user that were not revoked.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Event, Record, SessionChanged, Topic};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::projection::{ApplyError, Consumer, Description, Projection};

/// See the module.
pub(crate) struct Sessions;

/// How a batch leaves one session.
enum Change<'a> {
    /// Begun in it, and last seen then.
    Started(&'a SessionChanged, OffsetDateTime),
    /// Begun before it, and last seen then.
    Seen(OffsetDateTime),
    Revoked,
}

#[async_trait]
impl Projection for Sessions {
    fn describe(&self) -> Description {
        Description { name: "sessions", consumer: Consumer::ReadModels, topics: &[Topic::Users], tables: &["sessions"] }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        let (mut started, mut seen, mut revoked) = (Vec::new(), Vec::new(), Vec::new());
        for (id, change) in collapse(batch) {
            match change {
                Change::Started(session, at) => started.push((session, at)),
                Change::Seen(at) => seen.push((id, at)),
                Change::Revoked => revoked.push(id),
            }
        }
        start(connection, &started).await?;
        see(connection, &seen).await?;
        revoke(connection, &revoked).await
    }
}

fn collapse(batch: &[Arc<Record>]) -> HashMap<Uuid, Change<'_>> {
    let mut changes = HashMap::new();
    for record in batch {
        match &record.event {
            Event::SessionStarted(session) => {
                changes.insert(session.session_id, Change::Started(session, session.at));
            }
            Event::SessionRefreshed(session) => match changes.get_mut(&session.session_id) {
                Some(Change::Started(_, at) | Change::Seen(at)) => *at = session.at,
                Some(Change::Revoked) => {}
                None => {
                    changes.insert(session.session_id, Change::Seen(session.at));
                }
            },
            Event::SessionRevoked(session) => {
                changes.insert(session.session_id, Change::Revoked);
            }
            // Its revocation follows.
            Event::SessionReuseDetected(_)
            | Event::UserRegistered(_)
            | Event::UserProfileChanged(_)
            | Event::UserPasswordChanged(_)
            | Event::UserRoleGranted(_)
            | Event::UserRoleRevoked(_)
            | Event::AuditRead(_)
            | Event::Numbered(_)
            | Event::MessageDelivered(_)
            | Event::MessageRead(_) => {}
        }
    }
    changes
}

async fn start(
    connection: &mut PgConnection,
    sessions: &[(&SessionChanged, OffsetDateTime)],
) -> Result<(), ApplyError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = sessions.iter().map(|(session, _)| session.session_id).collect();
    let users: Vec<Uuid> = sessions.iter().map(|(session, _)| session.user_id).collect();
    let devices: Vec<Uuid> = sessions.iter().map(|(session, _)| session.device_id).collect();
    let names: Vec<Option<&str>> = sessions.iter().map(|(session, _)| session.device_name.as_deref()).collect();
    let created: Vec<_> = sessions.iter().map(|(session, _)| session.at).collect();
    let seen: Vec<_> = sessions.iter().map(|(_, at)| *at).collect();
    sqlx::query(
        "INSERT INTO sessions AS t (session_id, user_id, device_id, device_name, created_at, last_seen_at) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[]) \
         ON CONFLICT (session_id) DO UPDATE SET last_seen_at = greatest(t.last_seen_at, excluded.last_seen_at)",
    )
    .bind(ids)
    .bind(users)
    .bind(devices)
    .bind(names)
    .bind(created)
    .bind(seen)
    .execute(connection)
    .await?;
    Ok(())
}

async fn see(connection: &mut PgConnection, sessions: &[(Uuid, OffsetDateTime)]) -> Result<(), ApplyError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let (ids, times): (Vec<Uuid>, Vec<OffsetDateTime>) = sessions.iter().copied().unzip();
    sqlx::query(
        "UPDATE sessions t SET last_seen_at = greatest(t.last_seen_at, u.at) \
           FROM unnest($1::uuid[], $2::timestamptz[]) AS u(session_id, at) WHERE t.session_id = u.session_id",
    )
    .bind(ids)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

async fn revoke(connection: &mut PgConnection, sessions: &[Uuid]) -> Result<(), ApplyError> {
    if sessions.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM sessions WHERE session_id = ANY($1)").bind(sessions).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, session};

    #[tokio::test]
    async fn sessions_are_seen_when_refreshed_and_go_when_revoked() {
        let bench = Bench::new(&Sessions).await;
        bench.keep(session(1, 11, Event::SessionStarted));
        bench.keep(session(1, 12, Event::SessionStarted));
        bench.keep(session(1, 13, Event::SessionStarted));
        bench.keep(session(1, 13, Event::SessionRevoked));
        let seen = bench.keep(session(1, 12, Event::SessionRefreshed)).at;
        bench.apply().await;
        bench.keep(session(1, 11, Event::SessionReuseDetected));
        bench.keep(session(1, 11, Event::SessionRevoked));
        bench.apply().await;
        let rows: Vec<(Uuid, Option<String>, OffsetDateTime)> =
            bench.rows("SELECT session_id, device_name, last_seen_at FROM sessions").await;
        assert_eq!(rows, [(Uuid::from_u128(12), Some("phone".into()), seen)]);
    }
}
