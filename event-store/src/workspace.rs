//! What a decision sees and does: cached state with the events of the batch so far laid over it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use domain::kernel::{LogTopic, Payload, Stored};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cache::{Cache, Stream, StreamId};
use crate::cause::Causes;
use crate::command::Context;
use crate::event::StoredEvent;
use crate::keys::KeyOps;
use crate::kind::typed_mut;

/// A stream as a decision sees it; the aggregate's default where nothing is there.
#[derive(Debug, Clone, Copy)]
pub struct Loaded<'a, A> {
    /// The state.
    pub state: &'a A,
    /// Events so far; 0 where nothing is there.
    pub sequence: u32,
    /// Where the stream began. Of an aggregate that is loaded by its last event alone, only while that is the first.
    pub first: Option<Recorded>,
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The topic of the shard.
    pub topic: LogTopic,
    /// The shard.
    pub shard: u16,
    /// The ordering key.
    pub key: Uuid,
    /// The position in the shard.
    pub position: u64,
    /// The number within the key, of a numbered event.
    pub seq: Option<u64>,
    /// When it was decided.
    pub at: OffsetDateTime,
}

impl From<&StoredEvent> for Recorded {
    fn from(event: &StoredEvent) -> Self {
        Self {
            topic: event.topic,
            shard: event.shard,
            key: event.key,
            position: event.position,
            seq: event.seq,
            at: event.at,
        }
    }
}

/// What a batch has decided so far.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// Streams that the batch's commands changed.
    pub(crate) staged: HashMap<StreamId, Stream>,
    /// Streams loaded for this batch, and empty ones.
    pub(crate) loaded: HashMap<StreamId, Stream>,
    /// Heads of numbered events, loaded or moved.
    pub(crate) heads: HashMap<Uuid, u64>,
    pub(crate) keys: KeyOps,
    pub(crate) events: Vec<StoredEvent>,
    /// The stored metadata, beside each event.
    pub(crate) metadata: Vec<Option<Arc<str>>>,
    pub(crate) bytes: usize,
    /// Events so far, by shard.
    pub(crate) counts: Vec<u64>,
}

impl Overlay {
    /// Empties it for a log of so many shards over all topics.
    pub(crate) fn clear(&mut self, shards: usize) {
        self.staged.clear();
        self.loaded.clear();
        self.heads.clear();
        self.keys.clear();
        self.events.clear();
        self.metadata.clear();
        self.bytes = 0;
        self.counts.clear();
        self.counts.resize(shards, 0);
    }
}

/// What one command of a batch works on.
#[derive(Debug)]
pub struct Workspace<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) overlay: &'a mut Overlay,
    pub(crate) draft: &'a mut Vec<(StreamId, Stream)>,
    pub(crate) scope: Scope<'a>,
    pub(crate) causes: Causes<'a>,
    /// As it was before the command.
    pub(crate) mark: Mark,
}

/// Where and when a command works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) topic: LogTopic,
    pub(crate) shard: u16,
    /// The shard among those of all topics.
    pub(crate) index: usize,
    /// The shard's head before the batch.
    pub(crate) base: u64,
    pub(crate) key: Uuid,
    pub(crate) now: OffsetDateTime,
    pub(crate) ids: EventIds,
    pub(crate) context: Option<&'a Arc<Context>>,
    pub(crate) metadata: Option<&'a Arc<str>>,
}

/// What undoes a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    events: usize,
    bytes: usize,
    keys: usize,
    count: u64,
    head: Option<u64>,
}

/// Event ids of one batch: UUID version 7, random but for a counter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventIds {
    millis: u64,
    random: [u8; 10],
}

impl EventIds {
    pub(crate) fn new(now: OffsetDateTime) -> Self {
        let mut random = [0; 10];
        // The version and variant bits of a version 4 are fixed: these bytes are not among those that carry them.
        let bytes = Uuid::new_v4().into_bytes();
        random[..6].copy_from_slice(&bytes[..6]);
        random[6..].copy_from_slice(&bytes[12..]);
        let millis = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        Self { millis, random }
    }

    fn nth(&self, number: usize) -> Uuid {
        let mut random = self.random;
        if let Some(counter) = random.last_chunk_mut::<4>() {
            #[expect(clippy::cast_possible_truncation, reason = "a counter that may wrap")]
            let next = u32::from_be_bytes(*counter).wrapping_add(number as u32);
            *counter = next.to_be_bytes();
        }
        uuid::Builder::from_unix_timestamp_millis(self.millis, &random).into_uuid()
    }
}

impl<'a> Workspace<'a> {
    pub(crate) fn new(
        cache: &'a Cache,
        overlay: &'a mut Overlay,
        draft: &'a mut Vec<(StreamId, Stream)>,
        scope: Scope<'a>,
    ) -> Self {
        draft.clear();
        let mark = Mark {
            events: overlay.events.len(),
            bytes: overlay.bytes,
            keys: overlay.keys.len(),
            count: overlay.counts[scope.index],
            head: overlay.heads.get(&scope.key).copied(),
        };
        let causes = Causes::new(scope.context, scope.metadata);
        Self { cache, overlay, draft, scope, causes, mark }
    }

    /// Keeps what the command did.
    pub(crate) fn keep(self) {
        self.overlay.staged.extend(self.draft.drain(..));
    }

    /// Undoes what the command did.
    pub(crate) fn undo(self) {
        let Self { overlay, draft, scope, mark, .. } = self;
        draft.clear();
        overlay.events.truncate(mark.events);
        overlay.metadata.truncate(mark.events);
        overlay.bytes = mark.bytes;
        overlay.keys.truncate(mark.keys);
        overlay.counts[scope.index] = mark.count;
        match mark.head {
            Some(head) => overlay.heads.insert(scope.key, head),
            None => overlay.heads.remove(&scope.key),
        };
    }

    fn find(&self, id: StreamId) -> &Stream {
        self.draft
            .iter()
            .find_map(|(drafted, stream)| (*drafted == id).then_some(stream))
            .or_else(|| self.overlay.staged.get(&id))
            .or_else(|| self.overlay.loaded.get(&id))
            .or_else(|| self.cache.peek(id))
            .unwrap_or_else(|| panic!("aggregate {} (type {}) is not among the command's reads", id.1, id.0))
    }

    /// A stream that the command declared.
    ///
    /// One that lives under another key than the command's is read as it stands, without the promise that no one else
    /// changes it meanwhile.
    pub fn stream<A: Stored>(&self, id: Uuid) -> Loaded<'_, A> {
        self.find((A::CODE, id)).loaded()
    }

    /// The owner of a key that the command declared.
    pub fn lookup(&self, scope: &'static str, key: &str) -> Option<Uuid> {
        self.overlay.keys.get(scope, key)
    }

    /// How many numbered events the ordering key has.
    pub fn head(&self) -> u64 {
        let key = self.scope.key;
        self.overlay.heads.get(&key).copied().or_else(|| self.cache.peek_head(key)).unwrap_or(0)
    }

    /// The number that [`emit_numbered`](Self::emit_numbered) gives next.
    pub fn next_seq(&self) -> u64 {
        self.head() + 1
    }

    /// The time of the batch, UTC, in milliseconds; events take it as theirs.
    pub fn now(&self) -> OffsetDateTime {
        self.scope.now
    }

    /// Appends an event to a stream that the command declared.
    pub fn emit<A: Stored>(&mut self, id: Uuid, event: impl Into<A::Event>) -> Recorded {
        self.append::<A>(id, &event.into(), None)
    }

    /// Appends an event that takes the ordering key's next number.
    pub fn emit_numbered<A: Stored>(&mut self, id: Uuid, event: impl Into<A::Event>) -> Recorded {
        let seq = self.next_seq();
        let recorded = self.append::<A>(id, &event.into(), Some(seq));
        self.overlay.heads.insert(self.scope.key, seq);
        recorded
    }

    fn append<A: Stored>(&mut self, id: Uuid, event: &A::Event, seq: Option<u64>) -> Recorded {
        let Scope { topic, shard, index, base, key, now, ids, .. } = self.scope;
        assert!(A::TOPIC == topic, "an event of {} does not go to the command's topic", A::TYPE);
        let payload = event.encode().expect("events are plain data");
        let stream_id = (A::CODE, id);
        let drafted = self.draft.iter().position(|(drafted, _)| *drafted == stream_id).unwrap_or_else(|| {
            let stream = self.find(stream_id).duplicate();
            let elsewhere = stream.sequence > 0 && stream.key != key;
            assert!(!elsewhere, "aggregate {id} of {} lives under another ordering key", A::TYPE);
            self.draft.push((stream_id, stream));
            self.draft.len() - 1
        });
        let stream = &mut self.draft[drafted].1;
        self.overlay.counts[index] += 1;
        let recorded = Recorded { topic, shard, key, position: base + self.overlay.counts[index], seq, at: now };
        let sequence = stream.sequence + 1;
        typed_mut::<A>(&mut stream.state).apply(event.clone());
        stream.key = key;
        stream.note(recorded, sequence, payload.len());
        self.overlay.bytes += payload.len();
        let (context, metadata) = self.causes.next();
        self.overlay.metadata.push(metadata);
        self.overlay.events.push(StoredEvent {
            topic,
            shard,
            position: recorded.position,
            key,
            seq,
            aggregate_type: A::CODE,
            aggregate_id: id,
            sequence,
            event_id: ids.nth(self.overlay.events.len()),
            event_type: Cow::Borrowed(event.type_name()),
            event_version: event.version(),
            at: now,
            payload: payload.into_boxed_str(),
            metadata: context,
            hash: [0; 32],
        });
        recorded
    }

    /// The id of the event that the command emitted last.
    pub fn last_event(&self) -> Option<Uuid> {
        let own = self.overlay.events.get(self.mark.events..).unwrap_or_default();
        own.last().map(|event| event.event_id)
    }

    /// Has what the command emits from now on be caused by its last event, and not by the command alone.
    pub fn because_of_last(&mut self) {
        if let Some(event_id) = self.last_event() {
            self.causes.because_of(event_id);
        }
    }

    /// Takes a key that no one has. Where someone has it after all, the command is rejected: look it up first.
    pub fn claim(&mut self, scope: &'static str, key: impl Into<String>, owner: Uuid) {
        self.overlay.keys.claim(scope, key.into(), owner);
    }

    /// Sets the owner of a key, whoever had it.
    pub fn put(&mut self, scope: &'static str, key: impl Into<String>, owner: Uuid) {
        self.overlay.keys.put(scope, key.into(), owner);
    }

    /// Gives a key up, whoever has it.
    pub fn release(&mut self, scope: &'static str, key: impl Into<String>) {
        self.overlay.keys.release(scope, key.into());
    }
}
