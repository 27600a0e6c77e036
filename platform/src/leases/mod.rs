//! Leases: work on shards, divided evenly among the processes that live, by a table in PostgreSQL.
//!
//! A member says every [`BEAT`] that it lives. One that was not heard of for [`TTL`] has lost what it held, whether it was
//! killed, stopped or cut off; what it still does then has to be harmless (a fenced checkpoint, a record that came before).

mod in_use;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemas::Topic;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use in_use::{InUse, Use};

/// How often a member says that it lives.
pub const BEAT: Duration = Duration::from_millis(500);
/// How long after that it is taken for dead.
pub const TTL: Duration = Duration::from_millis(2500);
/// How long a part that is to be given up is kept for what still uses it. Kafka's bus gives a call up after 5 s: until then
/// it may still write. What hangs for longer must not keep others from work that nobody does meanwhile.
const PATIENCE: Duration = Duration::from_secs(6);

/// A part of the work: a shard of a topic.
pub type Part = (Topic, u16);

/// The parts that a member holds at this moment.
#[derive(Clone, Debug, Default)]
pub struct Held {
    parts: BTreeSet<Part>,
    /// From when on others may hold them; moved with every beat, of which no watcher is told.
    until: Option<Instant>,
    lapses: u64,
}

impl Held {
    /// Whether this part is held, by our own clock too: one that was stopped for a while knows it before it is told.
    pub fn has(&self, topic: Topic, shard: u16) -> bool {
        self.parts.contains(&(topic, shard)) && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// How often all that was held may have been another's for a while, unnoticed if the same parts are held again.
    pub fn lapses(&self) -> u64 {
        self.lapses
    }

    /// The shards of a topic that are held, in their order.
    pub fn shards(&self, topic: Topic) -> impl Iterator<Item = u16> {
        self.parts.range((topic, 0)..=(topic, u16::MAX)).map(|(_, shard)| *shard)
    }
}

/// Parts that are held for good, as by one who has no rivals.
impl FromIterator<Part> for Held {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        Self { parts: parts.into_iter().collect(), until: None, lapses: 0 }
    }
}

/// A member's side of the leases of one duty.
pub struct Leases {
    pool: PgPool,
    duty: &'static str,
    member: Uuid,
    parts: BTreeSet<Part>,
    held: watch::Sender<Held>,
    /// Told to be given up, and since when: handed back in the first round in which they are not in use.
    surplus: BTreeMap<Part, Instant>,
    in_use: InUse,
    patience: Duration,
    /// Until when what is held is held for sure.
    until: Instant,
    lapses: u64,
}

impl Leases {
    /// A new member, of whom nobody knows yet, for a duty (a lower-case word, at most 16 bytes) with these parts.
    pub fn new(pool: PgPool, duty: &'static str, parts: impl IntoIterator<Item = Part>) -> Self {
        Self {
            pool,
            duty,
            member: Uuid::now_v7(),
            parts: parts.into_iter().collect(),
            held: watch::Sender::default(),
            surplus: BTreeMap::new(),
            in_use: InUse::default(),
            patience: PATIENCE,
            until: Instant::now(),
            lapses: 0,
        }
    }

    /// What is held, as it changes.
    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// Keeps parts that are in use for another while; without it, for 6 s.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where those who work on parts say so, for what would be done again by whoever gets them in the midst of it.
    pub fn in_use(&self) -> InUse {
        self.in_use.clone()
    }

    /// The name that connections have to have which hold locks for this duty, so that a successor can end them.
    pub fn application(&self) -> String {
        format!("parlance {} {}", self.duty, self.member)
    }

    /// Takes part until `shutdown`, then hands everything back at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut well = true;
        while shutdown.run_until_cancelled(beat.tick()).await.is_some() {
            // Counted from before the question: the answer may take its time.
            let until = Instant::now() + TTL;
            self.lapses += u64::from(self.until <= Instant::now());
            // Who holds something says in time that it does no more; who holds nothing can wait.
            let bound = if self.until > Instant::now() { self.until } else { until };
            match timeout_at(bound, self.round(until)).await {
                Ok(Ok(())) => {
                    self.until = until;
                    if !well {
                        tracing::info!(duty = self.duty, "leases are renewed again");
                    }
                    well = true;
                }
                failed => {
                    if well {
                        let error = failed.ok().and_then(Result::err);
                        let error = error.as_ref().map(|error| error as &dyn std::error::Error);
                        tracing::warn!(duty = self.duty, error, "leases cannot be renewed");
                    }
                    well = false;
                    if Instant::now() >= self.until {
                        self.surplus.clear();
                        let lapses = self.lapses;
                        self.held.send_if_modified(|held| {
                            let old = std::mem::replace(held, Held { lapses, ..Held::default() });
                            !old.parts.is_empty()
                        });
                        self.gauge(0);
                    }
                }
            }
        }
        self.held.send_replace(Held::default());
        self.gauge(0);
        let failure = match timeout(TTL, self.leave()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::info!(duty = self.duty, failure, "leases were not handed back, and run out");
    }

    async fn round(&mut self, until: Instant) -> Result<(), sqlx::Error> {
        let (topics, shards) = columns(&self.parts);
        let asked = Instant::now();
        let done =
            self.surplus.iter().filter(|(part, since)| !self.in_use.has(**part) || asked >= **since + self.patience);
        let (done_topics, done_shards) = columns(done.map(|(part, _)| part));
        let answer: Vec<(i16, i16, bool)> =
            sqlx::query_as("SELECT held_topic, held_shard, surplus FROM state.lease_round($1, $2, $3, $4, $5, $6, $7)")
                .bind(self.duty)
                .bind(self.member)
                .bind(TTL)
                .bind(topics)
                .bind(shards)
                .bind(done_topics)
                .bind(done_shards)
                .fetch_all(&self.pool)
                .await?;
        let mut held = Held { parts: BTreeSet::new(), until: Some(until), lapses: self.lapses };
        let before = std::mem::take(&mut self.surplus);
        for (topic, shard, surplus) in answer {
            let Some(topic) = Topic::from_code(topic) else { continue };
            let part = (topic, shard.cast_unsigned());
            if surplus {
                // What is kept is told again.
                self.surplus.insert(part, before.get(&part).copied().unwrap_or(asked));
            } else {
                held.parts.insert(part);
            }
        }
        let count = held.parts.len();
        self.gauge(count);
        self.held.send_if_modified(|old| {
            let changed = old.parts != held.parts;
            if changed {
                tracing::info!(duty = self.duty, count, "holds {count} of {} leases", self.parts.len());
            }
            let changed = changed || old.lapses != held.lapses;
            *old = held;
            changed
        });
        Ok(())
    }

    fn gauge(&self, held: usize) {
        metrics::gauge!("parlance_leases_held", "duty" => self.duty).set(u32::try_from(held).unwrap_or(u32::MAX));
    }

    async fn leave(&self) -> Result<(), sqlx::Error> {
        let leave = "WITH gone AS (DELETE FROM state.lease_members WHERE duty = $1 AND member = $2) \
                     DELETE FROM state.leases WHERE duty = $1 AND member = $2";
        sqlx::query(leave).bind(self.duty).bind(self.member).execute(&self.pool).await?;
        Ok(())
    }
}

fn columns<'a>(parts: impl IntoIterator<Item = &'a Part>) -> (Vec<i16>, Vec<i16>) {
    parts.into_iter().map(|(topic, shard)| (topic.code(), shard.cast_signed())).unzip()
}

#[cfg(test)]
mod tests;
