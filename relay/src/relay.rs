//! The relay itself: what was committed, in position order, once, to the bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_store::{Committed, CommittedBatch, Log, StoredEvent};
use platform::bus::{Bus, BusError};
use schemas::{Position, Topic};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::stored::{private, public};
use crate::translate::translate;

/// How the relay looks for what other processes wrote.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The pause between two looks while others write.
    pub shortest_poll: Duration,
    /// The pause that it grows to while they do not.
    pub longest_poll: Duration,
    /// How long what this process commits may take to come by itself before it is read from the log.
    pub grace: Duration,
    /// Events read from a shard at once.
    pub page: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shortest_poll: Duration::from_millis(5),
            longest_poll: Duration::from_millis(100),
            grace: Duration::from_millis(5),
            page: 1000,
        }
    }
}

/// The longest pause between two attempts while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a shard whose next event cannot be translated is tried again.
const STALL: Duration = Duration::from_secs(5);

/// The committed heads of all shards: where a new in-process bus begins.
///
/// # Errors
/// A database that does not answer.
pub async fn heads(log: &Log) -> Result<Vec<Position>, sqlx::Error> {
    let heads = log.heads().await?;
    Ok(heads.into_iter().map(|h| Position { topic: public(h.topic), shard: h.shard, position: h.head }).collect())
}

/// Hands what was committed to the bus.
///
/// It goes on where the bus's heads are. What this process commits is handed on without reading it back; what others
/// wrote, and what was missed, is found by the shards' heads and read from the log.
pub struct Relay {
    log: Log,
    bus: Arc<dyn Bus>,
    committed: Option<Committed>,
    options: Options,
    /// The last position published, of every shard.
    published: HashMap<(Topic, u16), u64>,
    /// Shards that wait, for their next event cannot be translated.
    stalled: HashMap<(Topic, u16), Instant>,
}

/// What a look at the log brought.
enum Found {
    /// Nothing that was not known.
    Nothing,
    /// Events of other processes.
    Some,
    /// The same, and there is more.
    More,
}

impl Relay {
    /// A relay from `log` to `bus`.
    pub fn new(log: Log, bus: Arc<dyn Bus>, options: Options) -> Self {
        Self { log, bus, committed: None, options, published: HashMap::new(), stalled: HashMap::new() }
    }

    /// Takes what this process commits straight from its store.
    #[must_use]
    pub fn following(mut self, committed: Committed) -> Self {
        self.committed = Some(committed);
        self
    }

    /// Runs until `shutdown`; what fails is tried again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut schedule = Schedule::new(self.options);
        while let Err(error) = self.resume().await {
            schedule.failed(&error);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(schedule.next) => {}
            }
        }
        schedule.now();
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                batch = next(&mut self.committed) => match batch {
                    Some(CommittedBatch::Events(events)) => match self.hand_on(&events, "committed").await {
                        Ok(true) => continue,
                        Ok(false) => { schedule.now(); continue }
                        Err(error) => Err(error),
                    },
                    Some(CommittedBatch::Missed(batches)) => {
                        tracing::debug!(batches, "the relay missed {batches} batches and reads the log");
                        schedule.now();
                        continue;
                    }
                    None => {
                        self.committed = None;
                        continue;
                    }
                },
                () = sleep_until(schedule.next) => self.look().await,
            };
            match outcome {
                Ok(found) => schedule.looked(&found),
                Err(error) => {
                    schedule.failed(&error);
                    // What was published and what was not is the bus's to say.
                    if let Err(error) = self.resume().await {
                        schedule.failed(&error);
                    }
                }
            }
        }
    }

    /// Goes on where the bus is.
    async fn resume(&mut self) -> Result<(), BusError> {
        for topic in Topic::ALL {
            for (shard, head) in self.bus.heads(topic).await? {
                self.published.insert((topic, shard), head);
            }
        }
        Ok(())
    }

    /// Publishes those that follow what was published; `false` if some do not, so that the log has to be read.
    async fn hand_on(&mut self, events: &[StoredEvent], source: &'static str) -> Result<bool, BusError> {
        let mut whole = true;
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            let place = (public(event.topic), event.shard);
            let published = self.published.entry(place).or_default();
            if event.position <= *published {
                continue;
            }
            if event.position != *published + 1 {
                // A shard that stands still is tried again when its time comes, not for each event.
                whole &= self.stalled.contains_key(&place);
                continue;
            }
            match translate(event, self.log.upcasters()) {
                Ok(record) => {
                    records.push(Arc::new(record));
                    *published += 1;
                    if !self.stalled.is_empty() {
                        self.stalled.remove(&place);
                    }
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "a shard stands still: its next event cannot be translated");
                    self.stalled.insert(place, Instant::now() + STALL);
                }
            }
        }
        metrics::gauge!("parlance_relay_stalled_shards").set(u32::try_from(self.stalled.len()).unwrap_or(u32::MAX));
        let Some(oldest) = records.iter().map(|record| record.at).min() else { return Ok(whole) };
        self.bus.publish(&records).await?;
        let latency = (OffsetDateTime::now_utc() - oldest).as_seconds_f64().max(0.0);
        metrics::histogram!("parlance_relay_latency_seconds").record(latency);
        metrics::counter!("parlance_relay_records_total", "source" => source).increment(records.len() as u64);
        Ok(whole)
    }

    /// Compares with the heads and publishes what is missing, a page a shard.
    async fn look(&mut self) -> Result<Found, BusError> {
        let heads = heads(&self.log).await.map_err(|error| BusError(error.into()))?;
        self.wait_for_our_own(&heads).await?;
        let now = Instant::now();
        let mut found = Found::Nothing;
        for head in heads {
            let place = (head.topic, head.shard);
            let published = *self.published.entry(place).or_default();
            if head.position <= published || self.stalled.get(&place).is_some_and(|until| *until > now) {
                continue;
            }
            let events = self
                .log
                .read(private(head.topic), head.shard, published, self.options.page)
                .await
                .map_err(|error| BusError(error.into()))?;
            self.hand_on(&events, "log").await?;
            found = match found {
                Found::More => Found::More,
                _ if self.published[&place] < head.position && !self.stalled.contains_key(&place) => Found::More,
                _ => Found::Some,
            };
        }
        Ok(found)
    }

    /// What lies between a commit of this process and our hands comes by itself in a moment: no need to read it.
    async fn wait_for_our_own(&mut self, heads: &[Position]) -> Result<(), BusError> {
        let deadline = Instant::now() + self.options.grace;
        while self.committed.is_some() && self.is_behind(heads) {
            match timeout_at(deadline, next(&mut self.committed)).await {
                Ok(Some(CommittedBatch::Events(events))) => {
                    self.hand_on(&events, "committed").await?;
                }
                Ok(Some(CommittedBatch::Missed(_))) | Err(_) => return Ok(()),
                Ok(None) => self.committed = None,
            }
        }
        Ok(())
    }

    fn is_behind(&self, heads: &[Position]) -> bool {
        heads.iter().any(|head| {
            let place = (head.topic, head.shard);
            !self.stalled.contains_key(&place) && self.published.get(&place).is_none_or(|p| *p < head.position)
        })
    }
}

async fn next(committed: &mut Option<Committed>) -> Option<CommittedBatch> {
    match committed {
        Some(committed) => committed.next().await,
        None => std::future::pending().await,
    }
}

/// When to look at the log next.
struct Schedule {
    options: Options,
    next: Instant,
    pause: Duration,
    failures: u32,
}

impl Schedule {
    fn new(options: Options) -> Self {
        Self { options, next: Instant::now(), pause: options.longest_poll, failures: 0 }
    }

    fn now(&mut self) {
        self.next = Instant::now();
    }

    fn looked(&mut self, found: &Found) {
        if self.failures > 0 {
            tracing::info!("the relay goes on");
            self.failures = 0;
        }
        self.pause = match found {
            Found::Nothing => (self.pause * 2).min(self.options.longest_poll),
            Found::Some => self.options.shortest_poll,
            Found::More => Duration::ZERO,
        };
        self.next = Instant::now() + self.pause;
        // Doubling begins somewhere.
        self.pause = self.pause.max(self.options.shortest_poll);
    }

    fn failed(&mut self, error: &BusError) {
        if self.failures == 0 {
            tracing::warn!(error = error as &dyn std::error::Error, "the relay waits, and tries again");
        }
        let pause = self.options.longest_poll * 2_u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.next = Instant::now() + pause.min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use event_store::EventStore;
    use testkit::Database;
    use tokio::task::JoinHandle;
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::testing::{bus, from_the_beginning, open_room, read, say, store};

    fn start(store: &EventStore, bus: &Arc<dyn Bus>) -> (DropGuard, JoinHandle<()>) {
        let shutdown = CancellationToken::new();
        let relay = Relay::new(store.log().clone(), Arc::clone(bus), Options::default()).following(store.committed());
        let running = tokio::spawn(relay.run(shutdown.clone()));
        (shutdown.drop_guard(), running)
    }

    #[tokio::test]
    async fn what_was_there_before_and_what_comes_is_one_sequence() {
        let database = Database::new().await;
        let store = store(&database, event_store::Options::default()).await;
        let room = open_room(&store).await;
        say(&store, room, 20).await;
        let bus = bus(&store).await;
        let mut reader = from_the_beginning(&*bus).await;
        let (stop, running) = start(&store, &bus);
        say(&store, room, 20).await;
        let mut seen = BTreeMap::new();
        let first = read(&mut *reader, 41, &mut seen).await;
        assert!(first.iter().all(|record| record.key == room));
        drop(stop);
        running.await.unwrap();
        // A relay that starts later goes on where the bus is.
        say(&store, room, 5).await;
        let _running = start(&store, &bus);
        read(&mut *reader, 5, &mut seen).await;
    }

    #[tokio::test]
    async fn two_processes_writing_at_once_are_one_sequence() {
        let database = Database::new().await;
        let ours = store(&database, event_store::Options::default()).await;
        let theirs = store(&database, event_store::Options::default()).await;
        let bus = bus(&ours).await;
        let mut reader = from_the_beginning(&*bus).await;
        let _running = start(&ours, &bus);
        let rooms = [open_room(&ours).await, open_room(&theirs).await, open_room(&theirs).await];
        for _ in 0..10 {
            tokio::join!(say(&ours, rooms[0], 7), say(&theirs, rooms[0], 7), say(&theirs, rooms[1], 7));
        }
        // And one in a shard that this process never touches.
        say(&theirs, rooms[2], 1).await;
        let mut seen = BTreeMap::new();
        read(&mut *reader, 3 + 210 + 1, &mut seen).await;
        for head in heads(ours.log()).await.unwrap().into_iter().filter(|head| head.topic == Topic::Conversations) {
            assert_eq!(seen.get(&head.shard).copied().unwrap_or(0), head.position, "{head}");
        }
    }

    #[tokio::test]
    async fn a_relay_that_was_too_slow_for_its_store_reads_the_log() {
        let database = Database::new().await;
        let options =
            event_store::Options { committed_batches: 1, batch_commands: 1, ..event_store::Options::default() };
        let store = store(&database, options).await;
        let bus = bus(&store).await;
        let mut reader = from_the_beginning(&*bus).await;
        // Follows, but does not run yet: all but the last batch go by.
        let relay = Relay::new(store.log().clone(), Arc::clone(&bus), Options::default()).following(store.committed());
        let room = open_room(&store).await;
        say(&store, room, 10).await;
        let shutdown = CancellationToken::new();
        let _stop = shutdown.clone().drop_guard();
        tokio::spawn(relay.run(shutdown));
        read(&mut *reader, 11, &mut BTreeMap::new()).await;
    }

    #[tokio::test]
    async fn a_shard_that_cannot_go_on_holds_no_other() {
        let database = Database::new().await;
        let ours = store(&database, event_store::Options::default()).await;
        let theirs = store(&database, event_store::Options::default()).await;
        let bus = bus(&ours).await;
        let mut reader = from_the_beginning(&*bus).await;
        let strange = open_room(&theirs).await;
        let mut other = open_room(&ours).await;
        while ours.log().shard_of(other) == ours.log().shard_of(strange) {
            other = open_room(&ours).await;
        }
        let mut seen = BTreeMap::new();
        let _running = start(&ours, &bus);
        let opened: u64 = heads(ours.log()).await.unwrap().iter().map(|head| head.position).sum();
        read(&mut *reader, usize::try_from(opened).unwrap(), &mut seen).await;
        // Another version of the program writes what this one does not know.
        let mut transaction = database.pool().begin().await.unwrap();
        sqlx::query(
            "INSERT INTO log.events \
             SELECT topic, shard, s.head + 1, key, 99, aggregate_type, aggregate_id, 99, event_id, \
                    'conversation.exploded', 1, at, payload, metadata, hash \
               FROM log.events JOIN log.shards s USING (topic, shard) WHERE key = $1 AND seq = 1",
        )
        .bind(strange)
        .execute(&mut *transaction)
        .await
        .unwrap();
        sqlx::query("UPDATE log.shards SET head = head + 1 WHERE topic = 1 AND shard = $1")
            .bind(i16::try_from(ours.log().shard_of(strange)).unwrap())
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        say(&ours, other, 3).await;
        let passed = read(&mut *reader, 3, &mut seen).await;
        assert!(passed.iter().all(|record| record.key == other));
    }
}
