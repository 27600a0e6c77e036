//! The statement, which the command line shares.

use schemas::rest::AuditEntry;
use schemas::{AuditFilters, Position, PositionToken, Topic};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Postgres, QueryBuilder, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::page::{from_micros, micros, unsigned};

/// Where an entry stands among all, which are sorted by time and then by place, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPlace(i64, i16, i16, i64);

impl AuditPlace {
    /// That of an entry.
    pub fn of(entry: &AuditEntry) -> Self {
        let place = entry.position.places().first();
        let place = place.copied().unwrap_or(Position { topic: Topic::Users, shard: 0, position: 0 });
        Self(micros(entry.at), place.topic.code(), place.shard.cast_signed(), place.position.cast_signed())
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct AuditSearch {
    /// Which entries.
    pub filters: AuditFilters,
    /// Only those behind this one.
    pub after: Option<AuditPlace>,
    /// At most so many.
    pub limit: i64,
}

/// The entries that are looked for, the newest first.
///
/// # Errors
/// A database that does not answer.
pub async fn search(pool: &PgPool, wanted: &AuditSearch) -> Result<Vec<AuditEntry>, sqlx::Error> {
    // Only what is asked for stands in the statement, so that each form of it has a plan of its own, by its index.
    let mut query = QueryBuilder::<Postgres>::new(
        "SELECT a.topic, a.shard, a.position, a.at, a.event_id, a.type, a.actor, u.username, a.object_type, a.object, \
                a.conversation, a.session, a.device, a.address, a.user_agent, a.correlation \
           FROM (SELECT * FROM read.audit WHERE true",
    );
    let AuditFilters { actor, object, event_type, since, until } = &wanted.filters;
    if let Some(actor) = actor {
        query.push(" AND actor = ").push_bind(*actor);
    }
    if let Some(object) = object {
        query.push(" AND object = ").push_bind(*object);
    }
    if let Some(event_type) = event_type {
        query.push(" AND type = ").push_bind(event_type.as_str());
    }
    if let Some(since) = since {
        query.push(" AND at >= ").push_bind(*since);
    }
    if let Some(until) = until {
        query.push(" AND at < ").push_bind(*until);
    }
    if let Some(AuditPlace(at, topic, shard, position)) = wanted.after {
        let at: OffsetDateTime = from_micros(at);
        // The first bound is one that an index of times understands.
        query.push(" AND at <= ").push_bind(at).push(" AND (at, topic, shard, position) < (").push_bind(at);
        query.push(", ").push_bind(topic).push(", ").push_bind(shard).push(", ").push_bind(position).push(")");
    }
    query.push(" ORDER BY at DESC, topic DESC, shard DESC, position DESC LIMIT ").push_bind(wanted.limit);
    query.push(
        ") a LEFT JOIN read.users u ON u.user_id = a.actor \
         ORDER BY a.at DESC, a.topic DESC, a.shard DESC, a.position DESC",
    );
    let rows = query.build().fetch_all(pool).await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &PgRow) -> Result<AuditEntry, sqlx::Error> {
    let topic = Topic::from_code(row.try_get(0)?);
    let topic = topic.ok_or_else(|| sqlx::Error::Protocol("an entry of no topic".to_owned()))?;
    let shard = row.try_get::<i16, _>(1)?.cast_unsigned();
    let position = unsigned(row.try_get(2)?);
    let event_id: Uuid = row.try_get(4)?;
    Ok(AuditEntry {
        position: PositionToken::from(Position { topic, shard, position }),
        event_id,
        at: row.try_get(3)?,
        event_type: row.try_get(5)?,
        actor_id: row.try_get(6)?,
        actor_username: row.try_get(7)?,
        object_type: row.try_get(8)?,
        object_id: row.try_get(9)?,
        conversation_id: row.try_get(10)?,
        session_id: row.try_get(11)?,
        device_id: row.try_get(12)?,
        address: row.try_get(13)?,
        user_agent: row.try_get(14)?,
        correlation_id: row.try_get::<Option<String>, _>(15)?.unwrap_or_else(|| event_id.to_string()),
    })
}

/// The id that a text is, or that of the user of this name.
///
/// # Errors
/// A database that does not answer.
pub async fn find_user(pool: &PgPool, text: &str) -> Result<Option<Uuid>, sqlx::Error> {
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    if text.contains('\0') {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT user_id FROM read.users WHERE username = $1 ORDER BY user_id LIMIT 1")
        .bind(text.to_lowercase())
        .fetch_optional(pool)
        .await
}
