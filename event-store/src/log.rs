//! The read side of the log; of use without lanes too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use domain::kernel::{LogTopic, Stored};
use sqlx::PgPool;
use uuid::Uuid;

use crate::cache::Stream;
use crate::chain::genesis;
use crate::event::{StoredEvent, UnreadableEvent};
use crate::kind::{KindOf, typed};
use crate::rows;
use crate::upcast::Upcasters;

/// Why a store or log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database did not answer, or is not migrated.
    #[error("the log's database cannot be read")]
    Database(#[from] sqlx::Error),
    /// No store was ever opened on this database.
    #[error("the log has not been made yet: start the server once")]
    NotMade,
    /// The number of shards must lie between 4 and 1,024.
    #[error("a log has between 4 and 1,024 shards a topic, not {0}")]
    Shards(u16),
}

/// Why something could not be read from the log.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database did not answer.
    #[error("the log's database cannot be read")]
    Database(#[from] sqlx::Error),
    /// An event does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] UnreadableEvent),
}

/// The committed end of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShardHead {
    /// The topic of the shard.
    pub topic: LogTopic,
    /// The shard.
    pub shard: u16,
    /// Position of its last event; 0 while it has none.
    pub head: u64,
}

/// The log, to read.
#[derive(Debug, Clone)]
pub struct Log {
    pool: PgPool,
    shards: u16,
    upcasters: Arc<Upcasters>,
}

impl Log {
    /// The log of a database that a store was opened on.
    ///
    /// # Errors
    /// A database that does not answer, or has no log.
    pub async fn open(pool: PgPool) -> Result<Self, OpenError> {
        let shards: Option<i16> = sqlx::query_scalar("SELECT shards FROM log.settings").fetch_optional(&pool).await?;
        let shards = shards.and_then(|shards| u16::try_from(shards).ok()).ok_or(OpenError::NotMade)?;
        Ok(Self { pool, shards, upcasters: Arc::default() })
    }

    /// The same, and makes the log where no one has yet, with so many shards a topic.
    ///
    /// # Errors
    /// A database that does not answer or is not migrated, or a number of shards that no log may have.
    pub async fn open_or_make(pool: PgPool, shards: u16) -> Result<Self, OpenError> {
        make(&pool, shards).await?;
        Self::open(pool).await
    }

    /// The same, reading old versions of events too.
    #[must_use]
    pub fn with_upcasters(mut self, upcasters: Upcasters) -> Self {
        self.upcasters = Arc::new(upcasters);
        self
    }

    /// The pool that it reads by.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How old versions of events are rewritten.
    pub fn upcasters(&self) -> &Arc<Upcasters> {
        &self.upcasters
    }

    /// Shards a topic.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The shard of an ordering key, the same in every topic.
    ///
    /// The key's two halves, folded and mixed as in splitmix64, modulo the number of shards: never to be changed.
    pub fn shard_of(&self, key: Uuid) -> u16 {
        shard_of(key, self.shards)
    }

    /// The committed heads of all shards.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn heads(&self) -> Result<Vec<ShardHead>, sqlx::Error> {
        let rows = rows::shards(&mut *self.pool.acquire().await?).await?;
        Ok(rows.into_iter().map(|row| ShardHead { topic: row.topic, shard: row.shard, head: row.head }).collect())
    }

    /// The events of a shard after a position, in order, at most `limit`.
    ///
    /// # Errors
    /// A database that does not answer, or a row that no store wrote.
    pub async fn read(
        &self,
        topic: LogTopic,
        shard: u16,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, sqlx::Error> {
        rows::read(&mut *self.pool.acquire().await?, (topic, shard), after, limit).await
    }

    /// How many numbered events each of these keys has, committed.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn numbered_heads(&self, keys: &[Uuid]) -> Result<HashMap<Uuid, u64>, sqlx::Error> {
        let mut heads = rows::numbered_heads(&mut *self.pool.acquire().await?, keys).await?;
        for key in keys {
            heads.entry(*key).or_insert(0);
        }
        Ok(heads)
    }

    /// Which of these aggregates have events.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn exists<A: Stored>(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
        Ok(rows::existing(&mut *self.pool.acquire().await?, A::CODE, ids).await?.into_iter().collect())
    }

    /// An aggregate and how many events it has.
    ///
    /// # Errors
    /// A database that does not answer, or an event that cannot be read.
    pub async fn load<A: Stored>(&self, id: Uuid) -> Result<Option<(A, u32)>, ReadError> {
        let events = rows::streams(&mut *self.pool.acquire().await?, A::CODE, &[id], A::LATEST_ONLY).await?;
        let mut stream = Stream::empty(A::KIND, id);
        for event in &events {
            stream.apply(event, &self.upcasters)?;
        }
        Ok((stream.sequence > 0).then(|| (typed::<A>(&stream.state).clone(), stream.sequence)))
    }

    /// All events of an aggregate, in order.
    ///
    /// # Errors
    /// A database that does not answer, or a row that no store wrote.
    pub async fn events<A: Stored>(&self, id: Uuid) -> Result<Vec<StoredEvent>, sqlx::Error> {
        rows::streams(&mut *self.pool.acquire().await?, A::CODE, &[id], false).await
    }

    /// The owner of a key of a scope.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn lookup(&self, scope: &str, key: &str) -> Result<Option<Uuid>, sqlx::Error> {
        let found = rows::keys(&mut *self.pool.acquire().await?, &[scope], &[key]).await?;
        Ok(found.into_iter().next().map(|(_, _, owner)| owner))
    }

    /// The keys of a scope that begin with a text, in order, at most `limit`.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn lookup_prefix(
        &self,
        scope: &str,
        prefix: &str,
        limit: u32,
    ) -> Result<Vec<(String, Uuid)>, sqlx::Error> {
        rows::keys_by_prefix(&mut *self.pool.acquire().await?, scope, prefix, limit).await
    }
}

/// See [`Log::shard_of`].
pub(crate) fn shard_of(key: Uuid, shards: u16) -> u16 {
    let (high, low) = key.as_u64_pair();
    let mut mixed = high ^ low;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    u16::try_from(mixed % u64::from(shards)).expect("less than a u16")
}

/// Fixes the number of shards and makes their rows, where no one has yet.
async fn make(pool: &PgPool, shards: u16) -> Result<(), OpenError> {
    let number = i16::try_from(shards).ok().filter(|number| (4..=1024).contains(number));
    let number = number.ok_or(OpenError::Shards(shards))?;
    let mut transaction = pool.begin().await?;
    // Waits for another process that makes them, and then finds them made.
    let made = sqlx::query("INSERT INTO log.settings (shards) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(number)
        .execute(&mut *transaction)
        .await?;
    if made.rows_affected() == 1 {
        let all = || LogTopic::ALL.into_iter().flat_map(|topic| (0..shards).map(move |shard| (topic, shard)));
        let topics: Vec<i16> = all().map(|(topic, _)| topic.code()).collect();
        let numbers: Vec<i16> = (0..LogTopic::ALL.len()).flat_map(|_| 0..number).collect();
        let chains: Vec<Vec<u8>> = all().map(|(topic, shard)| genesis(topic, shard).to_vec()).collect();
        sqlx::query(
            "INSERT INTO log.shards (topic, shard, chain) \
             SELECT * FROM unnest($1::smallint[], $2::smallint[], $3::bytea[])",
        )
        .bind(topics)
        .bind(numbers)
        .bind(chains)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_key_never_changes() {
        let key = Uuid::from_u128(0x0190_f3a1_7c00_7000_8000_0000_0000_0001);
        assert_eq!([4, 16, 256].map(|shards| shard_of(key, shards)), [0, 0, 112]);
    }

    #[test]
    fn keys_spread_over_the_shards() {
        let mut counts = [0; 16];
        for n in 0..16_000_u128 {
            counts[usize::from(shard_of(Uuid::from_u128(n), 16))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
