//! The proof that no stored event was changed, taken out, moved, or cut off.
//!
//! The log is read once, in the order in which it lies on disk, which is each shard's own order but for neighbours that
//! were written at once. Rows that come early wait, within a bound; a shard whose rows lie all over the place (someone
//! moved them) is read again by its index. Rows are hashed where they lie in the answer, without being decoded.

use std::collections::BTreeMap;

use domain::kernel::LogTopic;
use futures::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use crate::chain::{Hash, genesis};
use crate::copy::{Columns, EventRow, Tuples};
use crate::log::Log;
use crate::rows::{self, ShardEnd};

/// Bytes of rows that wait for one before them, over all shards.
const MOST_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of rows that are checked at once, and how often so many may be read before they are.
const BATCH_BYTES: usize = 256 * 1024;
const READ_AHEAD: usize = 4;

/// What the chain of a shard is at a position, as somebody knows who does not have it from the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardChain {
    /// The topic of the shard.
    pub topic: LogTopic,
    /// The shard.
    pub shard: u16,
    /// The position; 0 is before the first event.
    pub position: u64,
    /// The hash of the event there.
    pub chain: Hash,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Each shard, in the order of topics and shards.
    pub shards: Vec<ShardVerification>,
    /// Rows of shards that this log does not have, or before a shard's first position.
    pub strays: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.strays == 0 && self.shards.iter().all(|shard| shard.fault.is_none())
    }

    /// Events that are as they were written.
    pub fn events(&self) -> u64 {
        self.shards.iter().map(|shard| shard.verified).sum()
    }
}

/// What was found in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardVerification {
    /// The topic of the shard.
    pub topic: LogTopic,
    /// The shard.
    pub shard: u16,
    /// The head that the shard claims; what came later was not looked at.
    pub head: u64,
    /// Events from the beginning that are as they were written.
    pub verified: u64,
    /// The hash of the last of these: kept elsewhere, it shows later that nothing up to it was rewritten.
    pub chain: Hash,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

/// The first thing that is wrong in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The row was changed, or is not the one that stood there.
    #[error("position {0} is not what was written there")]
    Changed(u64),
    /// The row is gone.
    #[error("position {0} is missing")]
    Missing(u64),
    /// There is a row beyond the shard's head.
    #[error("position {0} lies beyond the shard's head")]
    Beyond(u64),
    /// All rows agree with each other, but not with the hash that the shard keeps for its head.
    #[error("position {0}, the head, is not the one that the shard's hash belongs to")]
    Head(u64),
}

impl Fault {
    /// The first wrong position.
    pub fn position(self) -> u64 {
        let (Self::Changed(position) | Self::Missing(position) | Self::Beyond(position) | Self::Head(position)) = self;
        position
    }
}

impl Log {
    /// Reads the whole log as it is now and checks every row; in memory that does not grow with it, beside a live server.
    ///
    /// # Errors
    /// A database that does not answer.
    pub async fn verify(&self) -> Result<Verification, sqlx::Error> {
        self.verify_within(MOST_WAITING_BYTES).await
    }

    /// The same, with another bound for the bytes that wait.
    #[doc(hidden)]
    pub async fn verify_within(&self, most_waiting_bytes: usize) -> Result<Verification, sqlx::Error> {
        // In a task: whoever waits outside the runtime's threads is woken by one of them, a second time for each few KB.
        let reading = AbortOnDropHandle::new(tokio::spawn(verify(self.clone(), most_waiting_bytes)));
        reading.await.unwrap_or_else(|failed| Err(sqlx::Error::Protocol(failed.to_string())))
    }
}

async fn verify(log: Log, most_waiting_bytes: usize) -> Result<Verification, sqlx::Error> {
    let settings = [
        ("statement_timeout", "0"),
        // From the first page on, not from where another reader is; and in order, where an index gives it.
        ("synchronize_seqscans", "off"),
        ("enable_sort", "off"),
        ("enable_bitmapscan", "off"),
    ];
    let options = (*log.pool().connect_options()).clone();
    let mut connection = options.application_name("parlance verify").options(settings).connect().await?;
    let ends = rows::shard_ends(&mut connection).await?;
    let chains = Chains::new(log.shards(), &ends, most_waiting_bytes);
    let mut chains = chains.read_all(&mut connection).await?;
    for index in 0..chains.shards.len() {
        chains.read_again(&mut connection, index).await?;
    }
    connection.close().await?;
    Ok(chains.finish())
}

/// The chains of all shards, as far as they are checked.
struct Chains {
    a_topic: u16,
    shards: Vec<Chain>,
    strays: u64,
    waiting_bytes: usize,
    most_waiting_bytes: usize,
    scratch: Vec<u8>,
}

/// One shard's chain.
struct Chain {
    found: ShardVerification,
    claimed: Hash,
    last: u64,
    /// Rows whose predecessors did not come yet.
    waiting: BTreeMap<u64, Vec<u8>>,
    /// Whether to stop waiting and to read the rest by the index.
    scattered: bool,
}

impl Chains {
    fn new(a_topic: u16, ends: &[ShardEnd], most_waiting_bytes: usize) -> Self {
        let places = LogTopic::ALL.into_iter().flat_map(|topic| (0..a_topic).map(move |shard| (topic, shard)));
        let shards = places.map(|(topic, shard)| {
            // A shard whose own row is gone claims to be empty; its events then lie beyond its head.
            let end = ends.iter().find(|end| (end.topic, end.shard) == (topic.code(), shard));
            let (head, last) = end.map_or((0, u64::MAX), |end| (end.head, end.last));
            let chain = genesis(topic, shard);
            Chain {
                found: ShardVerification { topic, shard, head, verified: 0, chain, fault: None },
                claimed: end.map_or(chain, |end| end.chain),
                last,
                waiting: BTreeMap::new(),
                scattered: false,
            }
        });
        Self { a_topic, shards: shards.collect(), strays: 0, waiting_bytes: 0, most_waiting_bytes, scratch: Vec::new() }
    }

    /// Reads all rows as they lie, and checks them beside that, on a thread of its own.
    async fn read_all(self, connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let copy = format!("COPY log.events ({}) TO STDOUT (FORMAT binary)", Columns::NAMES);
        let mut chunks = connection.copy_out_raw(&copy).await?;
        let (read, to_check) = mpsc::channel(READ_AHEAD);
        let checking = spawn_blocking(move || self.take_all(to_check));
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(chunk) = chunks.try_next().await? {
            bytes += chunk.len();
            batch.push(chunk);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                // Nobody takes it any more: what was wrong with the rows is told below.
                if read.send(std::mem::take(&mut batch)).await.is_err() {
                    break;
                }
            }
        }
        let _ = read.send(batch).await;
        drop(read);
        checking.await.map_err(|failed| sqlx::Error::Protocol(failed.to_string()))?
    }

    /// Checks what is read of all rows.
    fn take_all<B: AsRef<[u8]>>(mut self, mut read: mpsc::Receiver<Vec<B>>) -> Result<Self, sqlx::Error> {
        let mut tuples = Tuples::default();
        while let Some(batch) = read.blocking_recv() {
            for chunk in batch {
                tuples.feed(chunk.as_ref(), |tuple| self.take(tuple))?;
            }
        }
        Ok(self)
    }

    /// Reads the rest of a shard in its order, where something is left to say.
    async fn read_again(&mut self, connection: &mut PgConnection, index: usize) -> Result<(), sqlx::Error> {
        let chain = &mut self.shards[index];
        for (_, tuple) in std::mem::take(&mut chain.waiting) {
            self.waiting_bytes -= tuple.len();
        }
        let ShardVerification { topic, shard, head, verified, fault, .. } = chain.found;
        if fault.is_some() || verified == head {
            return Ok(());
        }
        let copy = format!(
            "COPY (SELECT {} FROM log.events WHERE topic = {} AND shard = {shard} AND position > {verified} \
              AND position <= {head} ORDER BY position) TO STDOUT (FORMAT binary)",
            Columns::NAMES,
            topic.code()
        );
        let mut chunks = connection.copy_out_raw(&copy).await?;
        let mut tuples = Tuples::default();
        while let Some(chunk) = chunks.try_next().await? {
            tuples.feed(&chunk, |tuple| {
                let row = EventRow::parse(tuple)?;
                let chain = &mut self.shards[index];
                if chain.found.fault.is_none() {
                    let next = chain.found.verified + 1;
                    if row.position() == Some(next) {
                        chain.check(&row, &mut self.scratch);
                    } else {
                        chain.found.fault = Some(Fault::Missing(next));
                    }
                }
                Ok(())
            })?;
        }
        let found = &mut self.shards[index].found;
        if found.fault.is_none() && found.verified < found.head {
            found.fault = Some(Fault::Missing(found.verified + 1));
        }
        Ok(())
    }

    /// Checks a row, or lets it wait.
    fn take(&mut self, tuple: &[u8]) -> Result<(), sqlx::Error> {
        let row = EventRow::parse(tuple)?;
        let place = LogTopic::from_code(row.hashed.topic)
            .zip(u16::try_from(row.hashed.shard).ok().filter(|shard| *shard < self.a_topic))
            .zip(row.position());
        let Some(((topic, shard), position)) = place else {
            self.strays += 1;
            return Ok(());
        };
        let topic = LogTopic::ALL.iter().position(|other| *other == topic).unwrap_or_default();
        let chain = &mut self.shards[topic * usize::from(self.a_topic) + usize::from(shard)];
        if chain.found.fault.is_some() || chain.scattered || position > chain.found.head {
            return Ok(());
        }
        if position != chain.found.verified + 1 {
            self.waiting_bytes += tuple.len();
            chain.waiting.insert(position, tuple.to_vec());
            if self.waiting_bytes > self.most_waiting_bytes {
                self.give_up_waiting();
            }
            return Ok(());
        }
        chain.check(&row, &mut self.scratch);
        while let Some(tuple) = chain.waiting.remove(&(chain.found.verified + 1)) {
            self.waiting_bytes -= tuple.len();
            chain.check(&EventRow::parse(&tuple)?, &mut self.scratch);
        }
        Ok(())
    }

    /// Leaves the shard with the most rows waiting for later.
    fn give_up_waiting(&mut self) {
        if let Some(chain) = self.shards.iter_mut().max_by_key(|chain| chain.waiting.len()) {
            chain.scattered = true;
            self.waiting_bytes -=
                std::mem::take(&mut chain.waiting).into_values().map(|tuple| tuple.len()).sum::<usize>();
        }
    }

    fn finish(self) -> Verification {
        let shards = self.shards.into_iter().map(|chain| {
            let Chain { mut found, claimed, last, .. } = chain;
            if found.fault.is_none() && last > found.head && last < u64::MAX {
                found.fault = Some(Fault::Beyond(found.head + 1));
            } else if found.fault.is_none() && (found.chain != claimed || last == u64::MAX) {
                found.fault = Some(Fault::Head(found.head));
            }
            found
        });
        Verification { shards: shards.collect(), strays: self.strays }
    }
}

impl Chain {
    /// Checks the row that follows.
    fn check(&mut self, row: &EventRow<'_>, scratch: &mut Vec<u8>) {
        if self.found.fault.is_some() {
            return;
        }
        let hash = row.hashed.hash(&self.found.chain, scratch);
        if hash == row.hash {
            self.found.chain = hash;
            self.found.verified += 1;
        } else {
            self.found.fault = Some(Fault::Changed(self.found.verified + 1));
        }
    }
}
