//! A lane: a task that owns some shards, decides what waits for them, and commits it in one transaction.
//!
//! What a lane remembers (ends of shards, streams, heads) is as of the shards' heads that it saw. Each append compares
//! them, under the shards' row locks, with the committed ones. Equal: no one else wrote, so all that was decided by is
//! current. Not equal: the lane reads what others wrote and decides again, this time holding the locks, so that it
//! cannot be outrun twice. What makes no event (a refusal, a repetition) is told only after the head was compared too.
//!
//! A commit whose answer never comes may have happened, or may happen later, when a server wakes up that hung. The lane
//! then locks the shards and looks for the batch's first event at its position. It is there: the batch is committed, for
//! a transaction is whole. It is not, and something else stands there: the batch can never be committed, for its head is
//! gone. Nothing stands there: the batch is decided again and committed, which moves the head and so shuts out the old
//! attempt, which compares heads under the same locks. Only where the new decision moves no head of the old attempt's,
//! nothing can be told, and callers hear that the log is unavailable. They may repeat: ids make that harmless.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use domain::kernel::LogTopic;
use time::OffsetDateTime;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::append::{append, seal};
use crate::cache::{Cache, Stream, StreamId};
use crate::command::{LogPosition, Reads};
use crate::event::{StoredEvent, UnreadableEvent};
use crate::kind::Kind;
use crate::link::{Link, Trouble, bounded};
use crate::log::{Log, shard_of};
use crate::options::Options;
use crate::rows::{self, ShardRow};
use crate::shards::Shards;
use crate::task::{Decision, Failure, Task};
use crate::upcast::Upcasters;
use crate::workspace::{EventIds, Overlay, Scope, Workspace};

/// A collision is decided again with everything loaded; one that stays is some command's own.
const MOST_COLLISIONS: u32 = 2;
/// Times that the database may ask for another try.
const MOST_PASSING: u32 = 5;
/// Times that others may write before the lane takes the locks to find out what it may tell.
const MOST_STALE: u32 = 2;
/// What others wrote is read up to so many events a shard; beyond, the lane forgets the shard's streams.
const MOST_CAUGHT_UP: u64 = 2_000;
const RESOLVE_PAUSE: Duration = Duration::from_millis(25);

/// See the module.
pub(crate) struct Lane {
    number: usize,
    lanes: usize,
    shards: Shards,
    cache: Cache,
    link: Link,
    queue: mpsc::Receiver<Task>,
    /// Taken from the queue and not begun.
    waiting: VecDeque<Task>,
    committed: broadcast::Sender<Arc<[StoredEvent]>>,
    closing: CancellationToken,
    upcasters: Arc<Upcasters>,
    batch_commands: usize,
    batch_bytes: usize,
    resolve_timeout: Duration,
    /// Whether others write to the same shards: then locks are taken at once.
    contended: bool,
    last_time: OffsetDateTime,
    overlay: Overlay,
    draft: Vec<(StreamId, Stream)>,
    reads: Reads,
    ranges: Vec<Ranges>,
    unreadable: HashMap<StreamId, Arc<UnreadableEvent>>,
    outcomes: Vec<Outcome>,
    scratch: Vec<u8>,
}

/// What one command reads, among what all of its batch read.
#[derive(Debug, Clone)]
struct Ranges {
    streams: Range<usize>,
    lookups: Range<usize>,
}

/// What came of one command.
#[derive(Debug, Clone)]
enum Outcome {
    Decided {
        refused: bool,
        /// Position of its last event.
        last: Option<u64>,
    },
    Failed(Failure),
}

/// How a batch is carried out, over its attempts.
#[derive(Debug, Default)]
struct Attempts {
    locked: bool,
    load_fresh: bool,
    stale: u32,
    collisions: u32,
    passing: u32,
    losses: u32,
    suspect: Option<Suspect>,
}

/// An attempt whose commit was never answered.
#[derive(Debug)]
struct Suspect {
    index: usize,
    position: u64,
    event_id: Uuid,
    outcomes: Vec<Outcome>,
    /// Whether the commands' results are those of a later attempt.
    decided_again: bool,
    deadline: Instant,
    error: Arc<sqlx::Error>,
}

/// How an attempt ended, when it did not fail.
enum Ended {
    /// Committed or without events, as the outcomes say.
    Done,
    /// The attempt before was committed after all.
    Before(Vec<Outcome>),
    /// The attempt before may yet be committed.
    InDoubt(Arc<sqlx::Error>),
}

/// Why an attempt failed.
enum Failed {
    /// Before the commit.
    Early(Trouble),
    /// Others wrote; their events are read now.
    Stale,
    /// At the commit.
    AtCommit(Trouble),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Early(trouble)
    }
}

impl Lane {
    pub(crate) fn new(
        number: usize,
        log: &Log,
        shards: Shards,
        options: &Options,
        queue: mpsc::Receiver<Task>,
        committed: broadcast::Sender<Arc<[StoredEvent]>>,
        closing: CancellationToken,
    ) -> Self {
        let name = format!("parlance lane {number}");
        Self {
            number,
            lanes: options.lanes.max(1),
            shards,
            cache: Cache::new(options.cached_streams, options.cached_bytes, options.cached_heads),
            link: Link::new(&log.pool().connect_options(), &name, options),
            queue,
            waiting: VecDeque::new(),
            committed,
            closing,
            upcasters: Arc::clone(log.upcasters()),
            batch_commands: options.batch_commands.max(1),
            batch_bytes: options.batch_bytes,
            resolve_timeout: options.resolve_timeout,
            contended: false,
            last_time: OffsetDateTime::UNIX_EPOCH,
            overlay: Overlay::default(),
            draft: Vec::new(),
            reads: Reads::default(),
            ranges: Vec::new(),
            unreadable: HashMap::new(),
            outcomes: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Works until the store is closed or gone, and everything that waits is answered.
    pub(crate) async fn run(mut self) {
        let closing = self.closing.clone();
        loop {
            if self.waiting.is_empty() {
                let next = tokio::select! {
                    next = self.queue.recv() => next,
                    () = closing.cancelled(), if !self.queue.is_closed() => {
                        self.queue.close();
                        continue;
                    }
                };
                let Some(next) = next else { break };
                self.waiting.push_back(next);
            }
            while self.waiting.len() < self.batch_commands {
                let Ok(next) = self.queue.try_recv() else { break };
                self.waiting.push_back(next);
            }
            let size = self.waiting.len().min(self.batch_commands);
            let batch = self.waiting.drain(..size).collect();
            self.carry_out(batch).await;
        }
    }

    /// Answers every command of a batch, or puts those that go beyond its bounds back to wait.
    async fn carry_out(&mut self, batch: Vec<Task>) {
        let Some((batch, error)) = self.together(batch).await else { return };
        if batch.len() == 1 {
            return fail(batch, &Failure::Rejected(error));
        }
        tracing::warn!(commands = batch.len(), error = %error, "the database rejects a batch: its commands are run one by one");
        for task in batch {
            if let Some((rejected, error)) = self.together(vec![task]).await {
                tracing::error!(error = %error, "the database rejects a command");
                fail(rejected, &Failure::Rejected(error));
            }
        }
    }

    /// Answers all commands, or hands back those that the database rejects as they stand together.
    async fn together(&mut self, mut tasks: Vec<Task>) -> Option<(Vec<Task>, Arc<sqlx::Error>)> {
        self.declare(&tasks);
        let mut attempts = Attempts { locked: self.contended, ..Attempts::default() };
        loop {
            let error = match self.attempt(&mut tasks, &mut attempts).await {
                Ok(Ended::Done) => {
                    let outcomes = std::mem::take(&mut self.outcomes);
                    self.answer(tasks, outcomes);
                    return None;
                }
                Ok(Ended::Before(outcomes)) => {
                    self.answer(tasks, outcomes);
                    return None;
                }
                Ok(Ended::InDoubt(error)) => {
                    fail(tasks, &Failure::Unavailable(error));
                    return None;
                }
                Err(failed) => failed,
            };
            self.link.abort().await;
            match self.weigh(error, &mut attempts).await {
                Verdict::Again => {}
                Verdict::Unavailable(error) => {
                    fail(tasks, &Failure::Unavailable(error));
                    return None;
                }
                Verdict::Rejected(error) => return Some((tasks, error)),
            }
        }
    }

    /// What to do about a failed attempt.
    async fn weigh(&mut self, failed: Failed, attempts: &mut Attempts) -> Verdict {
        let trouble = match failed {
            Failed::AtCommit(Trouble::Lost(error)) => {
                tracing::warn!(error = %error, "the answer to a commit was lost: looking for what became of it");
                if attempts.suspect.is_some() {
                    return Verdict::Unavailable(error);
                }
                let Some(first) = self.overlay.events.first() else { return Verdict::Unavailable(error) };
                attempts.suspect = Some(Suspect {
                    index: self.shards.index_of(first.topic, first.shard),
                    position: first.position,
                    event_id: first.event_id,
                    outcomes: std::mem::take(&mut self.outcomes),
                    decided_again: false,
                    deadline: Instant::now() + self.resolve_timeout,
                    error,
                });
                attempts.locked = true;
                return Verdict::Again;
            }
            Failed::Stale => {
                attempts.stale += 1;
                attempts.locked |= attempts.stale > MOST_STALE;
                return Verdict::Again;
            }
            Failed::Early(trouble) | Failed::AtCommit(trouble) => trouble,
        };
        match trouble {
            Trouble::Moved => {
                metrics::counter!("parlance_append_conflicts_total").increment(1);
                attempts.locked = true;
                Verdict::Again
            }
            Trouble::Collision(error) => {
                // What was taken for current is not: all of it is loaded again, and so is what was thought new.
                for id in self.overlay.staged.keys() {
                    self.cache.remove(*id);
                }
                attempts.load_fresh = true;
                attempts.collisions += 1;
                if attempts.collisions > MOST_COLLISIONS { Verdict::Rejected(error) } else { Verdict::Again }
            }
            Trouble::Passing(error) => {
                attempts.passing += 1;
                if attempts.passing > MOST_PASSING { Verdict::Unavailable(error) } else { Verdict::Again }
            }
            Trouble::Rejected(error) => Verdict::Rejected(error),
            Trouble::Away(error) | Trouble::Lost(error) => {
                attempts.losses += 1;
                match &attempts.suspect {
                    Some(suspect) if Instant::now() < suspect.deadline => {
                        sleep(RESOLVE_PAUSE).await;
                        Verdict::Again
                    }
                    Some(suspect) => Verdict::Unavailable(Arc::clone(&suspect.error)),
                    // The connection may have been lost while no one used it: a new one is worth one try.
                    None if attempts.losses == 1 => Verdict::Again,
                    None => Verdict::Unavailable(error),
                }
            }
        }
    }

    /// Collects what the commands read.
    fn declare(&mut self, tasks: &[Task]) {
        let Self { reads, ranges, .. } = self;
        reads.streams.clear();
        reads.lookups.clear();
        ranges.clear();
        for task in tasks {
            let (streams, lookups) = (reads.streams.len(), reads.lookups.len());
            task.work.reads(reads);
            ranges.push(Ranges { streams: streams..reads.streams.len(), lookups: lookups..reads.lookups.len() });
        }
    }

    /// Decides the batch once and commits it.
    async fn attempt(&mut self, tasks: &mut Vec<Task>, attempts: &mut Attempts) -> Result<Ended, Failed> {
        self.overlay.clear(self.shards.len());
        self.unreadable.clear();
        self.outcomes.clear();
        if attempts.locked {
            self.lock(tasks).await?;
            if let Some(suspect) = attempts.suspect.take() {
                let shard = *self.shards.get(suspect.index);
                let there = self.event_id_at((shard.topic, shard.number), suspect.position).await;
                match there {
                    Ok(Some(id)) if id == suspect.event_id => {
                        self.link.abort().await;
                        // What was decided again since is not what was committed.
                        let stale = suspect.decided_again;
                        return Ok(if stale { Ended::InDoubt(suspect.error) } else { Ended::Before(suspect.outcomes) });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => attempts.suspect = Some(Suspect { decided_again: true, ..suspect }),
                    Err(trouble) => {
                        attempts.suspect = Some(suspect);
                        return Err(trouble.into());
                    }
                }
            }
        }
        self.load(tasks, attempts.load_fresh).await?;
        self.decide(tasks).await?;
        if !attempts.locked {
            self.compare_idle(tasks).await?;
        }
        if self.overlay.events.is_empty() && self.overlay.keys.is_empty() {
            self.link.abort().await;
            if let Some(suspect) = attempts.suspect.take() {
                return Ok(Ended::InDoubt(suspect.error));
            }
            self.absorb();
            return Ok(Ended::Done);
        }
        self.commit(attempts.locked).await?;
        if let Some(suspect) = attempts.suspect.take()
            && self.shards.get(suspect.index).head < suspect.position
        {
            return Ok(Ended::InDoubt(suspect.error));
        }
        Ok(Ended::Done)
    }

    /// Begins a transaction, locks the shards of the batch, and takes in what others wrote to them.
    async fn lock(&mut self, tasks: &mut [Task]) -> Result<(), Failed> {
        self.link.begin().await?;
        let places = self.places(tasks.iter().map(|task| task.shard));
        let mut connection = self.link.take().await?;
        let rows = bounded(self.link.bound(), rows::lock_shards(&mut connection, &places)).await;
        let rows = self.link.settle(connection, rows)?;
        let moved = self.catch_up(&rows).await?;
        // Nothing came from elsewhere while others could write: back to the cheaper way, from the next batch on.
        self.contended = moved;
        Ok(())
    }

    fn places(&self, indices: impl Iterator<Item = usize>) -> Vec<(LogTopic, u16)> {
        let mut indices: Vec<_> = indices.collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().map(|index| (self.shards.get(index).topic, self.shards.get(index).number)).collect()
    }

    async fn event_id_at(&mut self, place: (LogTopic, u16), position: u64) -> Result<Option<Uuid>, Trouble> {
        let mut connection = self.link.take().await?;
        let id = bounded(self.link.bound(), rows::event_id_at(&mut connection, place, position)).await;
        self.link.settle(connection, id)
    }

    /// Takes in what others wrote up to the committed ends of these shards; whether there was any.
    async fn catch_up(&mut self, rows: &[ShardRow]) -> Result<bool, Trouble> {
        let moved: Vec<_> = rows
            .iter()
            .filter(|row| self.shards.get(self.shards.index_of(row.topic, row.shard)).head != row.head)
            .collect();
        if moved.is_empty() {
            return Ok(false);
        }
        let mut ranges = Vec::new();
        for row in &moved {
            let known = self.shards.get(self.shards.index_of(row.topic, row.shard)).head;
            if row.head > known && row.head - known <= MOST_CAUGHT_UP {
                ranges.push((row.topic, row.shard, known, row.head));
            } else {
                if row.head < known {
                    tracing::error!(
                        topic = row.topic.code(),
                        shard = row.shard,
                        known,
                        head = row.head,
                        "a shard's head went back: the database lost commits that it had confirmed"
                    );
                }
                let (a_topic, shard) = (self.shards.a_topic(), row.shard);
                self.cache.forget(|key| shard_of(key, a_topic) == shard);
            }
        }
        if !ranges.is_empty() {
            let mut connection = self.link.take().await?;
            let events = bounded(self.link.bound(), rows::read_ranges(&mut connection, &ranges)).await;
            let events = self.link.settle(connection, events)?;
            for event in &events {
                self.cache.apply(event, &self.upcasters);
            }
            // Followers like it as much as what this process wrote; they find gaps themselves.
            let _ = self.committed.send(events.into());
        }
        for row in moved {
            let shard = self.shards.get_mut(self.shards.index_of(row.topic, row.shard));
            (shard.head, shard.chain) = (row.head, row.chain);
        }
        Ok(true)
    }

    /// Loads what the batch reads and the cache does not have; what is expected to be new only when asked to.
    async fn load(&mut self, tasks: &mut [Task], load_fresh: bool) -> Result<(), Trouble> {
        let Self { reads, ranges, overlay, cache, .. } = self;
        let mut misses = Misses::default();
        for (task, ranges) in tasks.iter().zip(ranges) {
            for read in &reads.streams[ranges.streams.clone()] {
                let id = (read.kind.code, read.id);
                let load = load_fresh || !read.fresh;
                if let Some(stream) = overlay.loaded.get_mut(&id) {
                    if load && stream.assumed {
                        stream.assumed = false;
                        misses.push(read.kind, read.id);
                    }
                } else if !cache.touch(id) {
                    let stream = Stream { assumed: !load, ..Stream::empty(read.kind, task.key) };
                    overlay.loaded.insert(id, stream);
                    if load {
                        misses.push(read.kind, read.id);
                    }
                }
            }
        }
        self.load_streams(misses).await?;
        self.load_heads(tasks).await?;
        self.load_keys(tasks.len()).await
    }

    async fn load_streams(&mut self, misses: Misses) -> Result<(), Trouble> {
        for (kind, ids) in misses.0 {
            let mut connection = self.link.take().await?;
            let events =
                bounded(self.link.bound(), rows::streams(&mut connection, kind.code, &ids, kind.latest_only)).await;
            for event in self.link.settle(connection, events)? {
                let id = (kind.code, event.aggregate_id);
                let Some(stream) = self.overlay.loaded.get_mut(&id) else { continue };
                if self.unreadable.contains_key(&id) {
                    continue;
                }
                if let Err(error) = stream.apply(&event, &self.upcasters) {
                    self.unreadable.insert(id, Arc::new(error));
                }
            }
        }
        Ok(())
    }

    async fn load_heads(&mut self, tasks: &mut [Task]) -> Result<(), Trouble> {
        let mut keys = Vec::new();
        for task in tasks {
            if !self.cache.touch_head(task.key) && self.overlay.heads.insert(task.key, 0).is_none() {
                keys.push(task.key);
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut connection = self.link.take().await?;
        let heads = bounded(self.link.bound(), rows::numbered_heads(&mut connection, &keys)).await;
        self.overlay.heads.extend(self.link.settle(connection, heads)?);
        Ok(())
    }

    async fn load_keys(&mut self, commands: usize) -> Result<(), Trouble> {
        let end = self.ranges[..commands].last().map_or(0, |ranges| ranges.lookups.end);
        let lookups = &self.reads.lookups[..end];
        if lookups.is_empty() {
            return Ok(());
        }
        let scopes: Vec<_> = lookups.iter().map(|(scope, _)| *scope).collect();
        let keys: Vec<_> = lookups.iter().map(|(_, key)| key.as_str()).collect();
        let mut connection = self.link.take().await?;
        let found = bounded(self.link.bound(), rows::keys(&mut connection, &scopes, &keys)).await;
        let found: HashMap<_, _> =
            self.link.settle(connection, found)?.into_iter().map(|(scope, key, owner)| ((scope, key), owner)).collect();
        for (scope, key) in lookups {
            let owner = found.get(&((*scope).to_owned(), key.clone())).copied();
            self.overlay.keys.load(scope, key.clone(), owner);
        }
        Ok(())
    }

    /// Decides command after command; then again those that were refused by what was only assumed to be new.
    async fn decide(&mut self, tasks: &mut Vec<Task>) -> Result<(), Trouble> {
        let now = self.now();
        let ids = EventIds::new(now);
        for index in 0..tasks.len() {
            if self.overlay.bytes > self.batch_bytes {
                for task in tasks.drain(index..).rev() {
                    self.waiting.push_front(task);
                }
                break;
            }
            let outcome = self.decide_one(&mut tasks[index], index, now, ids);
            self.outcomes.push(outcome);
        }
        let mut again = Vec::new();
        let mut misses = Misses::default();
        for (index, outcome) in self.outcomes.iter().enumerate() {
            if !matches!(outcome, Outcome::Decided { refused: true, .. }) {
                continue;
            }
            for read in &self.reads.streams[self.ranges[index].streams.clone()] {
                let id = (read.kind.code, read.id);
                let Some(stream) = self.overlay.loaded.get_mut(&id) else { continue };
                if stream.assumed && !self.overlay.staged.contains_key(&id) {
                    stream.assumed = false;
                    misses.push(read.kind, read.id);
                    again.push(index);
                }
            }
        }
        again.dedup();
        self.load_streams(misses).await?;
        for index in again {
            self.outcomes[index] = self.decide_one(&mut tasks[index], index, now, ids);
        }
        Ok(())
    }

    fn decide_one(&mut self, task: &mut Task, index: usize, now: OffsetDateTime, ids: EventIds) -> Outcome {
        if !self.unreadable.is_empty() {
            let reads = &self.reads.streams[self.ranges[index].streams.clone()];
            if let Some(error) = reads.iter().find_map(|read| self.unreadable.get(&(read.kind.code, read.id))) {
                return Outcome::Failed(Failure::Unreadable(Arc::clone(error)));
            }
        }
        let shard = self.shards.get(task.shard);
        let scope = Scope {
            topic: shard.topic,
            shard: shard.number,
            index: task.shard,
            base: shard.head,
            key: task.key,
            now,
            ids,
            context: task.context.as_ref(),
            metadata: task.metadata.as_ref(),
        };
        let before = self.overlay.events.len();
        let workspace = Workspace::new(&self.cache, &mut self.overlay, &mut self.draft, scope);
        match task.work.decide(workspace) {
            Decision::Accepted => {
                let last = self.overlay.events[before..].last().map(|event| event.position);
                Outcome::Decided { refused: false, last }
            }
            Decision::Refused => Outcome::Decided { refused: true, last: None },
            Decision::Defect(message) => Outcome::Failed(Failure::Defect(message)),
        }
    }

    /// The time of a batch: in milliseconds, and never before that of an earlier one.
    fn now(&mut self) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(now.nanosecond() / 1_000_000 * 1_000_000).unwrap_or(now);
        self.last_time = now.max(self.last_time);
        self.last_time
    }

    /// Compares the heads of shards whose commands are answered though the batch writes nothing there.
    async fn compare_idle(&mut self, tasks: &mut [Task]) -> Result<(), Failed> {
        let idle = tasks.iter().zip(&self.outcomes).filter_map(|(task, outcome)| {
            let idle = matches!(outcome, Outcome::Decided { last: None, .. }) && self.overlay.counts[task.shard] == 0;
            idle.then_some(task.shard)
        });
        let places = self.places(idle);
        if places.is_empty() {
            return Ok(());
        }
        let mut connection = self.link.take().await?;
        let rows = bounded(self.link.bound(), rows::some_shards(&mut connection, &places)).await;
        let rows = self.link.settle(connection, rows)?;
        if self.catch_up(&rows).await? { Err(Failed::Stale) } else { Ok(()) }
    }

    /// Commits the batch's events and hands them on.
    async fn commit(&mut self, locked: bool) -> Result<(), Failed> {
        let began = Instant::now();
        let Overlay { events, metadata, keys, .. } = &mut self.overlay;
        let moves = seal(&self.shards, events, metadata, &mut self.scratch);
        let mut connection = self.link.take().await?;
        let statement = append(&mut connection, &self.shards, &moves, events, metadata, keys);
        let appended = bounded(self.link.bound(), statement).await;
        let appended = self.link.settle(connection, appended);
        if locked {
            // Not committed yet: without an answer, the transaction ends with its connection.
            appended.map_err(Failed::Early)?;
            self.link.commit().await.map_err(Failed::AtCommit)?;
        } else {
            appended.map_err(Failed::AtCommit)?;
        }
        metrics::histogram!("parlance_append_seconds").record(began.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        metrics::histogram!("parlance_append_batch_events_size").record(self.overlay.events.len() as f64);
        for moved in moves {
            let shard = self.shards.get_mut(moved.index);
            (shard.head, shard.chain) = (moved.head, moved.chain);
        }
        self.absorb();
        // An error says that no one follows.
        let _ = self.committed.send(std::mem::take(&mut self.overlay.events).into());
        Ok(())
    }

    /// Remembers what was loaded, and what was committed.
    fn absorb(&mut self) {
        let Self { overlay, cache, shards, number, lanes, .. } = self;
        for (id, stream) in overlay.loaded.drain() {
            // What is not there is not remembered, for it may come to be under any key. What another lane writes
            // would not be kept up to date here.
            let shard = shards.index_of(stream.kind.topic, shard_of(stream.key, shards.a_topic()));
            if stream.sequence > 0 && shard % *lanes == *number && !overlay.staged.contains_key(&id) {
                cache.put(id, stream);
            }
        }
        for (id, stream) in overlay.staged.drain() {
            cache.put(id, stream);
        }
        for (key, head) in overlay.heads.drain() {
            cache.put_head(key, head);
        }
    }

    fn answer(&self, tasks: Vec<Task>, outcomes: Vec<Outcome>) {
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        metrics::histogram!("parlance_append_batch_commands_size").record(tasks.len() as f64);
        let (mut accepted, mut refused) = (0, 0);
        for (task, outcome) in tasks.into_iter().zip(outcomes) {
            let (was_refused, last) = match outcome {
                Outcome::Decided { refused, last } => (refused, last),
                Outcome::Failed(failure) => {
                    fail(vec![task], &failure);
                    continue;
                }
            };
            *(if was_refused { &mut refused } else { &mut accepted }) += 1;
            let shard = self.shards.get(task.shard);
            let position =
                LogPosition { topic: shard.topic, shard: shard.number, position: last.unwrap_or(shard.head) };
            task.work.answer(position, last.is_some());
        }
        metrics::counter!("parlance_commands_total", "outcome" => "accepted").increment(accepted);
        metrics::counter!("parlance_commands_total", "outcome" => "refused").increment(refused);
    }
}

/// What to do after a failed attempt.
enum Verdict {
    Again,
    Unavailable(Arc<sqlx::Error>),
    Rejected(Arc<sqlx::Error>),
}

/// Streams to load, by kind.
#[derive(Default)]
struct Misses(Vec<(&'static Kind, Vec<Uuid>)>);

impl Misses {
    fn push(&mut self, kind: &'static Kind, id: Uuid) {
        match self.0.iter_mut().find(|(other, _)| other.code == kind.code) {
            Some((_, ids)) => ids.push(id),
            None => self.0.push((kind, vec![id])),
        }
    }
}

fn fail(tasks: Vec<Task>, failure: &Failure) {
    let outcome = match failure {
        Failure::Unavailable(_) => "unavailable",
        Failure::Rejected(_) => "rejected",
        Failure::Unreadable(_) => "unreadable",
        Failure::Defect(_) => "defect",
    };
    metrics::counter!("parlance_commands_total", "outcome" => outcome).increment(tasks.len() as u64);
    for task in tasks {
        task.work.fail(failure.clone());
    }
}
