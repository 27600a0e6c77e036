//! Requests to publish records again, in PostgreSQL.

use std::time::Duration;

use schemas::{Position, Topic};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::leadership::Place;

/// Requests that got no further for so long are given up.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long those that are over are kept, for whoever asks what became of them.
const KEPT: Duration = Duration::from_hours(24 * 7);
/// Requests looked at together.
const AT_ONCE: i64 = 64;

/// Records of one shard that are wanted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The topic.
    pub topic: Topic,
    /// The shard.
    pub shard: u16,
    /// The first position, from 1.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// How a request stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The records that are wanted.
    pub records: u64,
    /// Those that were published again.
    pub done: u64,
    /// Shards that are not through.
    pub open: usize,
    /// What stopped shards, with the last position of each that was published again.
    pub failures: Vec<(Position, String)>,
}

/// A part of a request that is not through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) replay: Uuid,
    pub(crate) place: Place,
    pub(crate) last: u64,
    pub(crate) done_to: u64,
}

/// Asks for records to be published again; the request's id, which they will bear.
///
/// # Errors
/// A database that does not answer.
pub async fn ask(pool: &PgPool, wanted: &[Wanted]) -> Result<Uuid, sqlx::Error> {
    let replay = Uuid::now_v7();
    let topics: Vec<i16> = wanted.iter().map(|part| part.topic.code()).collect();
    let shards: Vec<i16> = wanted.iter().map(|part| part.shard.cast_signed()).collect();
    let firsts: Vec<i64> = wanted.iter().map(|part| part.first.cast_signed()).collect();
    let lasts: Vec<i64> = wanted.iter().map(|part| part.last.cast_signed()).collect();
    let mut transaction = pool.begin().await?;
    sqlx::query("DELETE FROM state.replays WHERE state <> 'open' AND moved_at < clock_timestamp() - $1")
        .bind(KEPT)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO state.replays (replay_id, topic, shard, first, last, done_to) \
         SELECT $1, w.topic, w.shard, w.first, w.last, w.first - 1 \
           FROM unnest($2::smallint[], $3::smallint[], $4::bigint[], $5::bigint[]) AS w(topic, shard, first, last)",
    )
    .bind(replay)
    .bind(topics)
    .bind(shards)
    .bind(firsts)
    .bind(lasts)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(replay)
}

/// How a request stands.
///
/// # Errors
/// A database that does not answer.
pub async fn progress(pool: &PgPool, replay: Uuid) -> Result<Progress, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT topic, shard, first, last, done_to, state, failure FROM state.replays \
          WHERE replay_id = $1 ORDER BY topic, shard",
    )
    .bind(replay)
    .fetch_all(pool)
    .await?;
    let mut progress = Progress::default();
    for row in rows {
        let before = row.try_get::<i64, _>("first")?.cast_unsigned().saturating_sub(1);
        let (last, done_to) = (row.try_get::<i64, _>("last")?, row.try_get::<i64, _>("done_to")?);
        progress.records += last.cast_unsigned().saturating_sub(before);
        progress.done += done_to.cast_unsigned().saturating_sub(before);
        progress.open += usize::from(row.try_get::<&str, _>("state")? == "open");
        let (topic, shard) = place(row.try_get("topic")?, row.try_get("shard")?)?;
        if let Some(failure) = row.try_get("failure")? {
            progress.failures.push((Position { topic, shard, position: done_to.cast_unsigned() }, failure));
        }
    }
    Ok(progress)
}

/// Takes a request back, as far as it is not through.
///
/// # Errors
/// A database that does not answer.
pub async fn cancel(pool: &PgPool, replay: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE state.replays SET state = 'cancelled', moved_at = clock_timestamp() \
          WHERE replay_id = $1 AND state = 'open'",
    )
    .bind(replay)
    .execute(pool)
    .await?;
    Ok(())
}

/// What is open of these shards, those first that wait longest; and gives up what got no further for too long.
pub(crate) async fn open(pool: &PgPool, led: impl Iterator<Item = Place>) -> Result<Vec<Open>, sqlx::Error> {
    let (topics, shards): (Vec<i16>, Vec<i16>) = led.map(|(topic, shard)| (topic.code(), shard.cast_signed())).unzip();
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "WITH late AS ( \
             UPDATE state.replays SET state = 'failed', failure = 'it got no further for too long' \
              WHERE state = 'open' AND moved_at < clock_timestamp() - $1) \
         SELECT r.replay_id, r.topic, r.shard, r.last, r.done_to \
           FROM state.replays r JOIN unnest($2::smallint[], $3::smallint[]) AS led(topic, shard) USING (topic, shard) \
          WHERE r.state = 'open' AND r.moved_at >= clock_timestamp() - $1 \
          ORDER BY r.moved_at LIMIT $4",
    )
    .bind(PATIENCE)
    .bind(topics)
    .bind(shards)
    .bind(AT_ONCE)
    .fetch_all(pool)
    .await?;
    let open = |row: &sqlx::postgres::PgRow| {
        Ok(Open {
            replay: row.try_get("replay_id")?,
            place: place(row.try_get("topic")?, row.try_get("shard")?)?,
            last: row.try_get::<i64, _>("last")?.cast_unsigned(),
            done_to: row.try_get::<i64, _>("done_to")?.cast_unsigned(),
        })
    };
    rows.iter().map(open).collect()
}

/// Notes how far a part has got; nothing if somebody else did, or took it back.
pub(crate) async fn move_to(pool: &PgPool, part: &Open, done_to: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE state.replays \
            SET done_to = $5, moved_at = clock_timestamp(), state = CASE WHEN $5 >= last THEN 'done' ELSE state END \
          WHERE replay_id = $1 AND topic = $2 AND shard = $3 AND done_to = $4 AND state = 'open'",
    )
    .bind(part.replay)
    .bind(part.place.0.code())
    .bind(part.place.1.cast_signed())
    .bind(part.done_to.cast_signed())
    .bind(done_to.cast_signed())
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that a part cannot go on.
pub(crate) async fn fail(pool: &PgPool, part: &Open, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE state.replays SET state = 'failed', failure = $4, moved_at = clock_timestamp() \
          WHERE replay_id = $1 AND topic = $2 AND shard = $3 AND state = 'open'",
    )
    .bind(part.replay)
    .bind(part.place.0.code())
    .bind(part.place.1.cast_signed())
    .bind(why)
    .execute(pool)
    .await?;
    Ok(())
}

fn place(topic: i16, shard: i16) -> Result<Place, sqlx::Error> {
    let topic = Topic::from_code(topic).ok_or_else(|| sqlx::Error::Decode(format!("no topic {topic}").into()))?;
    Ok((topic, shard.cast_unsigned()))
}
