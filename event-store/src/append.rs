//! The one statement that writes to the log.

use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use crate::chain::{Hash, Row};
use crate::event::StoredEvent;
use crate::keys::{Change, KeyOps};
use crate::shards::Shards;

/// How far a batch moves one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    pub(crate) index: usize,
    pub(crate) seen: u64,
    pub(crate) head: u64,
    pub(crate) chain: Hash,
}

/// Chains the events to their shards' ends. The moves come in the order of the shards.
pub(crate) fn seal(
    shards: &Shards,
    events: &mut [StoredEvent],
    metadata: &[Option<Arc<str>>],
    scratch: &mut Vec<u8>,
) -> Vec<Move> {
    let mut by_shard: Vec<Option<Move>> = vec![None; shards.len()];
    for (event, metadata) in events.iter_mut().zip(metadata) {
        let index = shards.index_of(event.topic, event.shard);
        let moved = by_shard[index].get_or_insert_with(|| {
            let shard = shards.get(index);
            Move { index, seen: shard.head, head: shard.head, chain: shard.chain }
        });
        let row = Row {
            topic: event.topic.code(),
            shard: small(event.shard),
            position: big(event.position),
            key: event.key,
            seq: event.seq.map(big),
            aggregate_type: event.aggregate_type,
            aggregate_id: event.aggregate_id,
            sequence: int(event.sequence),
            event_id: event.event_id,
            event_type: event.event_type.as_bytes(),
            event_version: event.event_version,
            at_us: micros(event),
            payload: event.payload.as_bytes(),
            metadata: metadata.as_deref().map(str::as_bytes),
        };
        event.hash = row.hash(&moved.chain, scratch);
        moved.chain = event.hash;
        moved.head = event.position;
    }
    by_shard.into_iter().flatten().collect()
}

/// Writes a batch. Outside a transaction it is one of its own, committed when this returns.
pub(crate) async fn append(
    connection: &mut PgConnection,
    shards: &Shards,
    moves: &[Move],
    events: &[StoredEvent],
    metadata: &[Option<Arc<str>>],
    keys: &KeyOps,
) -> Result<(), sqlx::Error> {
    let net = keys.net();
    sqlx::query(
        "SELECT log.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18::text[], \
                           $19::text[], $20, $21, $22, $23, $24)",
    )
    .bind(moves.iter().map(|moved| shards.get(moved.index).topic.code()).bind_iter())
    .bind(moves.iter().map(|moved| small(shards.get(moved.index).number)).bind_iter())
    .bind(moves.iter().map(|moved| big(moved.seen)).bind_iter())
    .bind(moves.iter().map(|moved| big(moved.head)).bind_iter())
    .bind(moves.iter().map(|moved| &moved.chain[..]).bind_iter())
    .bind(events.iter().map(|event| event.topic.code()).bind_iter())
    .bind(events.iter().map(|event| small(event.shard)).bind_iter())
    .bind(events.iter().map(|event| big(event.position)).bind_iter())
    .bind(events.iter().map(|event| event.key).bind_iter())
    .bind(events.iter().map(|event| event.seq.map(big)).bind_iter())
    .bind(events.iter().map(|event| event.aggregate_type).bind_iter())
    .bind(events.iter().map(|event| event.aggregate_id).bind_iter())
    .bind(events.iter().map(|event| int(event.sequence)).bind_iter())
    .bind(events.iter().map(|event| event.event_id).bind_iter())
    .bind(events.iter().map(|event| &*event.event_type).bind_iter())
    .bind(events.iter().map(|event| event.event_version).bind_iter())
    .bind(events.iter().map(|event| event.at).bind_iter())
    .bind(events.iter().map(|event| &*event.payload).bind_iter())
    .bind(metadata.iter().map(Option::as_deref).bind_iter())
    .bind(events.iter().map(|event| &event.hash[..]).bind_iter())
    .bind(net.iter().map(|(_, _, change)| operation(*change)).bind_iter())
    .bind(net.iter().map(|(scope, _, _)| *scope).bind_iter())
    .bind(net.iter().map(|(_, key, _)| *key).bind_iter())
    .bind(net.iter().map(|(_, _, change)| owner(*change)).bind_iter())
    // To the end of the answer: the first row comes before the commit.
    .execute(connection)
    .await?;
    Ok(())
}

fn operation(change: Change) -> i16 {
    match change {
        Change::Release => 0,
        Change::Put(_) => 1,
        Change::Claim(_) => 2,
    }
}

fn owner(change: Change) -> uuid::Uuid {
    match change {
        Change::Release => uuid::Uuid::nil(),
        Change::Put(owner) | Change::Claim(owner) => owner,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "times of this age fit microseconds of an i64")]
fn micros(event: &StoredEvent) -> i64 {
    (event.at.unix_timestamp_nanos() / 1_000) as i64
}

#[expect(clippy::cast_possible_wrap, reason = "a log has at most 1,024 shards")]
fn small(shard: u16) -> i16 {
    shard as i16
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "a stream has fewer than 2 billion events: the database refuses the next"
)]
fn int(sequence: u32) -> i32 {
    sequence as i32
}

#[expect(clippy::cast_possible_wrap, reason = "positions are bigint in the database")]
fn big(number: u64) -> i64 {
    number as i64
}
