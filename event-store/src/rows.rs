//! The queries on the log, each one statement.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use domain::kernel::LogTopic;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgBindIterExt, PgRow, PgValueRef};
use sqlx::{PgConnection, Row, ValueRef};
use uuid::Uuid;

use crate::chain::Hash;
use crate::event::StoredEvent;
use crate::verify::ShardChain;

/// A query over `log.events e`.
macro_rules! select_events {
    ($($rest:literal),+ $(,)?) => {
        concat!(
            "SELECT e.topic, e.shard, e.position, e.key, e.seq, e.aggregate_type, e.aggregate_id, e.sequence, \
             e.event_id, e.event_type, e.event_version, e.at, e.payload, e.metadata, e.hash ",
            $($rest),+
        )
    };
}

/// Head and chain of a shard, as they are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardRow {
    pub(crate) topic: LogTopic,
    pub(crate) shard: u16,
    pub(crate) head: u64,
    pub(crate) chain: Hash,
}

fn invalid(column: &str, message: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: message.into() }
}

/// A number that is never negative in a sound log.
fn unsigned<N: TryFrom<i64>>(column: &str, value: i64) -> Result<N, sqlx::Error> {
    N::try_from(value).map_err(|_| invalid(column, format!("{value} is out of range")))
}

fn topic(code: i16) -> Result<LogTopic, sqlx::Error> {
    LogTopic::from_code(code).ok_or_else(|| invalid("topic", format!("no topic has the code {code}")))
}

fn hash(bytes: &[u8]) -> Result<Hash, sqlx::Error> {
    bytes.try_into().map_err(|_| invalid("hash", "not 32 bytes"))
}

/// The text of a `json` column as it is stored.
fn json<'r>(value: &PgValueRef<'r>) -> Result<&'r str, sqlx::Error> {
    value.as_str().map_err(|error| invalid("json", error))
}

pub(crate) fn event(row: &PgRow) -> Result<StoredEvent, sqlx::Error> {
    let metadata = row.try_get_raw(13)?;
    let metadata = if metadata.is_null() {
        None
    } else {
        Some(Arc::new(serde_json::from_str(json(&metadata)?).map_err(|error| invalid("metadata", error))?))
    };
    Ok(StoredEvent {
        topic: topic(row.try_get(0)?)?,
        shard: unsigned("shard", row.try_get::<i16, _>(1)?.into())?,
        position: unsigned("position", row.try_get(2)?)?,
        key: row.try_get(3)?,
        seq: row.try_get::<Option<i64>, _>(4)?.map(|seq| unsigned("seq", seq)).transpose()?,
        aggregate_type: row.try_get(5)?,
        aggregate_id: row.try_get(6)?,
        sequence: unsigned("sequence", row.try_get::<i32, _>(7)?.into())?,
        event_id: row.try_get(8)?,
        event_type: Cow::Owned(row.try_get::<String, _>(9)?),
        event_version: row.try_get(10)?,
        at: row.try_get(11)?,
        payload: json(&row.try_get_raw(12)?)?.into(),
        metadata,
        hash: hash(row.try_get(14)?)?,
    })
}

fn shard(row: &PgRow) -> Result<ShardRow, sqlx::Error> {
    Ok(ShardRow {
        topic: topic(row.try_get(0)?)?,
        shard: unsigned("shard", row.try_get::<i16, _>(1)?.into())?,
        head: unsigned("head", row.try_get(2)?)?,
        chain: hash(row.try_get(3)?)?,
    })
}

#[expect(clippy::cast_possible_wrap, reason = "a log has at most 1,024 shards")]
fn shard_code(shard: u16) -> i16 {
    shard as i16
}

#[expect(clippy::cast_possible_wrap, reason = "positions are bigint in the database")]
fn big(number: u64) -> i64 {
    number as i64
}

fn all<T>(rows: &[PgRow], read: impl Fn(&PgRow) -> Result<T, sqlx::Error>) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(read).collect()
}

/// Every shard.
pub(crate) async fn shards(connection: &mut PgConnection) -> Result<Vec<ShardRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT topic, shard, head, chain FROM log.shards ORDER BY topic, shard");
    all(&rows.fetch_all(connection).await?, shard)
}

fn places(shards: &[(LogTopic, u16)]) -> (Vec<i16>, Vec<i16>) {
    shards.iter().map(|(topic, shard)| (topic.code(), shard_code(*shard))).unzip()
}

/// Some shards.
pub(crate) async fn some_shards(
    connection: &mut PgConnection,
    shards: &[(LogTopic, u16)],
) -> Result<Vec<ShardRow>, sqlx::Error> {
    let (topics, numbers) = places(shards);
    let rows = sqlx::query(
        "SELECT s.topic, s.shard, s.head, s.chain \
           FROM unnest($1::smallint[], $2::smallint[]) AS u(topic, shard) JOIN log.shards s USING (topic, shard)",
    );
    all(&rows.bind(topics).bind(numbers).fetch_all(connection).await?, shard)
}

/// What a shard claims to end with, and the last position that there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardEnd {
    pub(crate) topic: i16,
    pub(crate) shard: u16,
    pub(crate) head: u64,
    pub(crate) chain: Hash,
    pub(crate) last: u64,
}

/// The ends of all shards, at one moment.
pub(crate) async fn shard_ends(connection: &mut PgConnection) -> Result<Vec<ShardEnd>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT s.topic, s.shard, s.head, s.chain, coalesce(e.position, 0) \
           FROM log.shards s LEFT JOIN LATERAL (SELECT position FROM log.events \
             WHERE topic = s.topic AND shard = s.shard ORDER BY position DESC LIMIT 1) e ON true",
    );
    all(&rows.fetch_all(connection).await?, |row| {
        Ok(ShardEnd {
            topic: row.try_get(0)?,
            shard: unsigned("shard", row.try_get::<i16, _>(1)?.into())?,
            head: unsigned("head", row.try_get(2)?)?,
            chain: hash(row.try_get(3)?)?,
            last: unsigned("position", row.try_get(4)?)?,
        })
    })
}

/// Some shards, locked to the end of the transaction, in the order in which every append locks them.
pub(crate) async fn lock_shards(
    connection: &mut PgConnection,
    shards: &[(LogTopic, u16)],
) -> Result<Vec<ShardRow>, sqlx::Error> {
    let (topics, numbers) = places(shards);
    let rows = sqlx::query(
        "SELECT s.topic, s.shard, s.head, s.chain \
           FROM log.shards s JOIN unnest($1::smallint[], $2::smallint[]) AS u(topic, shard) USING (topic, shard) \
          ORDER BY s.topic, s.shard FOR UPDATE OF s",
    );
    all(&rows.bind(topics).bind(numbers).fetch_all(connection).await?, shard)
}

/// The events of a shard after a position, at most so many.
pub(crate) async fn read(
    connection: &mut PgConnection,
    (topic, shard): (LogTopic, u16),
    after: u64,
    limit: u32,
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let rows = sqlx::query(select_events!(
        "FROM log.events e WHERE e.topic = $1 AND e.shard = $2 AND e.position > $3 ORDER BY e.position LIMIT $4",
    ));
    let rows = rows.bind(topic.code()).bind(shard_code(shard)).bind(big(after)).bind(i64::from(limit));
    all(&rows.fetch_all(connection).await?, event)
}

/// The events of several shards, each in order: after a position, up to another.
pub(crate) async fn read_ranges(
    connection: &mut PgConnection,
    ranges: &[(LogTopic, u16, u64, u64)],
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let rows = sqlx::query(select_events!(
        "FROM unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bigint[]) AS u(topic, shard, after, upto) \
         CROSS JOIN LATERAL (SELECT * FROM log.events WHERE topic = u.topic AND shard = u.shard \
          AND position > u.after AND position <= u.upto ORDER BY position OFFSET 0) e",
    ));
    let rows = rows
        .bind(ranges.iter().map(|range| range.0.code()).bind_iter())
        .bind(ranges.iter().map(|range| shard_code(range.1)).bind_iter())
        .bind(ranges.iter().map(|range| big(range.2)).bind_iter())
        .bind(ranges.iter().map(|range| big(range.3)).bind_iter());
    all(&rows.fetch_all(connection).await?, event)
}

/// The hashes of a shard's events after a position, up to another, as they are stored.
pub(crate) async fn hashes(
    connection: &mut PgConnection,
    (topic, shard): (LogTopic, u16),
    after: u64,
    upto: u64,
) -> Result<Vec<(u64, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT position, hash FROM log.events \
          WHERE topic = $1 AND shard = $2 AND position > $3 AND position <= $4 ORDER BY position",
    );
    let rows = rows.bind(topic.code()).bind(shard_code(shard)).bind(big(after)).bind(big(upto));
    all(&rows.fetch_all(connection).await?, |row| Ok((unsigned("position", row.try_get(0)?)?, row.try_get(1)?)))
}

/// Those of these that are stored otherwise, or not at all.
pub(crate) async fn contradictions(
    connection: &mut PgConnection,
    known: &[ShardChain],
) -> Result<Vec<ShardChain>, sqlx::Error> {
    let rows = sqlx::query_scalar(
        "SELECT ordinality FROM unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bytea[]) \
              WITH ORDINALITY AS known (topic, shard, position, hash) \
          WHERE position > 0 AND hash IS DISTINCT FROM \
                (SELECT e.hash FROM log.events e \
                  WHERE (e.topic, e.shard, e.position) = (known.topic, known.shard, known.position)) \
          ORDER BY ordinality",
    );
    let others: Vec<i64> = rows
        .bind(known.iter().map(|known| known.topic.code()).collect::<Vec<_>>())
        .bind(known.iter().map(|known| shard_code(known.shard)).collect::<Vec<_>>())
        .bind(known.iter().map(|known| big(known.position)).collect::<Vec<_>>())
        .bind(known.iter().map(|known| &known.chain[..]).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let at = |ordinality: i64| known.get(usize::try_from(ordinality - 1).ok()?).copied();
    Ok(others.into_iter().filter_map(at).collect())
}

/// The id of the event at a position.
pub(crate) async fn event_id_at(
    connection: &mut PgConnection,
    (topic, shard): (LogTopic, u16),
    position: u64,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT event_id FROM log.events WHERE topic = $1 AND shard = $2 AND position = $3")
        .bind(topic.code())
        .bind(shard_code(shard))
        .bind(big(position))
        .fetch_optional(connection)
        .await
}

/// The events of some aggregates of one type, each one's in order: all, or the last alone.
pub(crate) async fn streams(
    connection: &mut PgConnection,
    aggregate_type: i16,
    ids: &[Uuid],
    latest_only: bool,
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    // LATERAL with an ORDER BY of its own is one descent of the index an aggregate, whatever the statistics say.
    let rows = sqlx::query(if latest_only {
        select_events!(
            "FROM unnest($2::uuid[]) AS u(id) CROSS JOIN LATERAL (SELECT * FROM log.events \
              WHERE aggregate_type = $1 AND aggregate_id = u.id ORDER BY sequence DESC LIMIT 1) e",
        )
    } else {
        select_events!(
            "FROM unnest($2::uuid[]) AS u(id) CROSS JOIN LATERAL (SELECT * FROM log.events \
              WHERE aggregate_type = $1 AND aggregate_id = u.id ORDER BY sequence OFFSET 0) e",
        )
    });
    all(&rows.bind(aggregate_type).bind(ids).fetch_all(connection).await?, event)
}

/// How many numbered events each key has; keys without any are left out.
pub(crate) async fn numbered_heads(
    connection: &mut PgConnection,
    keys: &[Uuid],
) -> Result<HashMap<Uuid, u64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT u.key, h.seq FROM unnest($1::uuid[]) AS u(key) CROSS JOIN LATERAL (SELECT seq FROM log.events \
          WHERE key = u.key AND seq IS NOT NULL ORDER BY seq DESC LIMIT 1) h",
    );
    let rows = rows.bind(keys).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, unsigned("seq", row.try_get(1)?)?))).collect()
}

/// Which of these aggregates have events.
pub(crate) async fn existing(
    connection: &mut PgConnection,
    aggregate_type: i16,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT u.id FROM unnest($2::uuid[]) AS u(id) WHERE EXISTS (SELECT FROM log.events \
          WHERE aggregate_type = $1 AND aggregate_id = u.id AND sequence = 1)",
    )
    .bind(aggregate_type)
    .bind(ids)
    .fetch_all(connection)
    .await
}

/// The owners of some keys; those without any are left out.
pub(crate) async fn keys(
    connection: &mut PgConnection,
    scopes: &[&str],
    keys: &[&str],
) -> Result<Vec<(String, String, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT k.scope, k.key, k.owner FROM unnest($1::text[], $2::text[]) AS u(scope, key) \
           JOIN log.keys k ON k.scope = u.scope AND k.key = u.key COLLATE \"C\"",
    )
    .bind(scopes)
    .bind(keys)
    .fetch_all(connection)
    .await
}

/// The keys of a scope that begin with a text, in order.
pub(crate) async fn keys_by_prefix(
    connection: &mut PgConnection,
    scope: &str,
    prefix: &str,
    limit: u32,
) -> Result<Vec<(String, Uuid)>, sqlx::Error> {
    // A range, since LIKE would need its wildcards escaped; no text of the column's "C" order that begins with the
    // prefix sorts after the prefix and the highest character.
    sqlx::query_as(
        "SELECT key, owner FROM log.keys WHERE scope = $1 AND key >= $2 AND key < $2 || U&'\\+10FFFF' \
            AND starts_with(key, $2) ORDER BY key LIMIT $3",
    )
    .bind(scope)
    .bind(prefix)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
}
