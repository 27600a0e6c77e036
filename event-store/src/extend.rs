//! Recomputing the chain over what came after a place that is known: for whoever vouches for it.

use std::fmt::Write;

use domain::kernel::LogTopic;
use futures::TryStreamExt;

use crate::chain::Hash;
use crate::copy::{Columns, EventRow, Tuples};
use crate::log::Log;
use crate::rows;
use crate::verify::ShardChain;

/// What follows a place in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Where it begins: the last event before it.
    pub from: ShardChain,
    /// The hash of each event that follows, in order.
    pub hashes: Vec<Hash>,
    /// The first position that does not follow from what stands before it, or is missing.
    pub broken: Option<u64>,
}

impl Extension {
    /// Where it ends.
    pub fn end(&self) -> ShardChain {
        let chain = self.hashes.last().copied().unwrap_or(self.from.chain);
        ShardChain { position: self.from.position + self.hashes.len() as u64, chain, ..self.from }
    }
}

impl Log {
    /// What each shard says of itself: its head, and the hash there.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn claims(&self) -> Result<Vec<ShardChain>, sqlx::Error> {
        let rows = rows::shards(&mut *self.pool().acquire().await?).await?;
        let claim = |row: rows::ShardRow| ShardChain {
            topic: row.topic,
            shard: row.shard,
            position: row.head,
            chain: row.chain,
        };
        Ok(rows.into_iter().map(claim).collect())
    }

    /// Reads the events after each of these places, of different shards, up to a position, and recomputes their hashes.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn extend(&self, ranges: &[(ShardChain, u64)]) -> Result<Vec<Extension>, sqlx::Error> {
        let mut extensions: Vec<Extension> =
            ranges.iter().map(|(from, _)| Extension { from: *from, hashes: Vec::new(), broken: None }).collect();
        if ranges.is_empty() {
            return Ok(extensions);
        }
        let mut values = String::new();
        for (index, (from, to)) in ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let (topic, shard, after) = (from.topic.code(), from.shard, from.position);
            // Numbers alone: COPY takes no parameters.
            let _ = write!(values, "{separator}({topic}::smallint, {shard}::smallint, {after}::bigint, {to}::bigint)");
        }
        let copy = format!(
            "COPY (SELECT {} FROM (VALUES {values}) AS u(of_topic, of_shard, after, upto) \
               CROSS JOIN LATERAL (SELECT * FROM log.events e WHERE e.topic = u.of_topic AND e.shard = u.of_shard \
                AND e.position > u.after AND e.position <= u.upto ORDER BY e.position OFFSET 0) e) \
             TO STDOUT (FORMAT binary)",
            Columns::NAMES
        );
        let mut connection = self.pool().acquire().await?;
        let mut chunks = connection.copy_out_raw(&copy).await?;
        let (mut tuples, mut scratch) = (Tuples::default(), Vec::new());
        while let Some(chunk) = chunks.try_next().await? {
            tuples.feed(&chunk, |tuple| {
                let row = EventRow::parse(tuple)?;
                let of = |one: &&mut Extension| {
                    (one.from.topic.code(), i32::from(one.from.shard)) == (row.hashed.topic, row.hashed.shard.into())
                };
                if let Some(extension) = extensions.iter_mut().find(of) {
                    extension.take(&row, &mut scratch);
                }
                Ok(())
            })?;
        }
        for (extension, (_, to)) in extensions.iter_mut().zip(ranges) {
            let end = extension.end().position;
            if end < *to {
                extension.broken.get_or_insert(end + 1);
            }
        }
        Ok(extensions)
    }

    /// Those of these that are stored otherwise, or not at all. In a log that was verified by itself, one that is stored so
    /// vouches for all that lies before it.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn contradictions(&self, known: &[ShardChain]) -> Result<Vec<ShardChain>, sqlx::Error> {
        rows::contradictions(&mut *self.pool().acquire().await?, known).await
    }

    /// The hashes that stand with the events of a shard after a position, up to another, as they are stored.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn stored_hashes(
        &self,
        topic: LogTopic,
        shard: u16,
        after: u64,
        upto: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, sqlx::Error> {
        rows::hashes(&mut *self.pool().acquire().await?, (topic, shard), after, upto).await
    }
}

impl Extension {
    fn take(&mut self, row: &EventRow<'_>, scratch: &mut Vec<u8>) {
        let end = self.end();
        if self.broken.is_some() {
            return;
        }
        let hash = row.hashed.hash(&end.chain, scratch);
        if row.position() == Some(end.position + 1) && row.hash == hash {
            self.hashes.push(hash);
        } else {
            self.broken = Some(end.position + 1);
        }
    }
}
