//! What a lane remembers between batches: the streams of hot aggregates, and how many numbered events a key has.
//!
//! An entry is as of the position of its stream's last event that the lane has seen. Positions of a stream lie in one
//! shard, so that an event read again is recognised by its position, and one that is missing by its sequence.

use std::num::NonZeroUsize;

use domain::kernel::Stored;
use lru::LruCache;
use uuid::Uuid;

use crate::event::{StoredEvent, UnreadableEvent};
use crate::kind::{AnyState, Kind, typed};
use crate::upcast::Upcasters;
use crate::workspace::{Loaded, Recorded};

/// An aggregate: the code of its kind, and its id.
pub(crate) type StreamId = (i16, Uuid);

/// A stream, up to its last event seen.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) kind: &'static Kind,
    pub(crate) state: AnyState,
    pub(crate) sequence: u32,
    pub(crate) first: Option<Recorded>,
    /// The ordering key of its events; that of its reader while it has none.
    pub(crate) key: Uuid,
    /// Position of the last event seen.
    pub(crate) position: u64,
    /// JSON behind the state, as a measure of its size.
    pub(crate) bytes: usize,
    /// Whether it was never looked for, since it is expected to be new.
    pub(crate) assumed: bool,
}

impl Stream {
    pub(crate) fn empty(kind: &'static Kind, key: Uuid) -> Self {
        Self { kind, state: (kind.empty)(), sequence: 0, first: None, key, position: 0, bytes: 0, assumed: false }
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self { state: (self.kind.duplicate)(&self.state), ..*self }
    }

    pub(crate) fn loaded<A: Stored>(&self) -> Loaded<'_, A> {
        Loaded { state: typed::<A>(&self.state), sequence: self.sequence, first: self.first }
    }

    /// Applies the stored event that follows.
    pub(crate) fn apply(&mut self, event: &StoredEvent, upcasters: &Upcasters) -> Result<(), UnreadableEvent> {
        (self.kind.apply)(&mut self.state, &event.event_type, event.event_version, &event.payload, upcasters).map_err(
            |source| UnreadableEvent {
                aggregate_type: event.aggregate_type,
                aggregate_id: event.aggregate_id,
                sequence: event.sequence,
                event_type: event.event_type.clone().into_owned(),
                event_version: event.event_version,
                source,
            },
        )?;
        self.key = event.key;
        self.note(event.into(), event.sequence, event.payload.len());
        Ok(())
    }

    /// Takes note of an event that the state has.
    pub(crate) fn note(&mut self, recorded: Recorded, sequence: u32, bytes: usize) {
        if sequence == 1 {
            self.first = Some(recorded);
        }
        self.sequence = sequence;
        self.position = recorded.position;
        self.bytes = if self.kind.latest_only { bytes } else { self.bytes + bytes };
    }
}

/// Streams of one kind, least recently used first to go.
#[derive(Debug)]
struct OfKind {
    code: i16,
    streams: LruCache<Uuid, Stream>,
    bytes: usize,
}

/// The streams and heads of one lane.
#[derive(Debug)]
pub(crate) struct Cache {
    kinds: Vec<OfKind>,
    heads: LruCache<Uuid, u64>,
    most_streams: usize,
    most_bytes: usize,
}

impl Cache {
    pub(crate) fn new(most_streams: usize, most_bytes: usize, most_heads: usize) -> Self {
        let heads = LruCache::new(NonZeroUsize::new(most_heads).unwrap_or(NonZeroUsize::MIN));
        Self { kinds: Vec::new(), heads, most_streams, most_bytes }
    }

    fn of_kind(&self, code: i16) -> Option<&OfKind> {
        self.kinds.iter().find(|kind| kind.code == code)
    }

    fn of_kind_mut(&mut self, code: i16) -> Option<&mut OfKind> {
        self.kinds.iter_mut().find(|kind| kind.code == code)
    }

    /// The stream; leaves the order of use alone.
    pub(crate) fn peek(&self, (code, id): StreamId) -> Option<&Stream> {
        self.of_kind(code)?.streams.peek(&id)
    }

    /// Whether the stream is there; then it counts as used.
    pub(crate) fn touch(&mut self, (code, id): StreamId) -> bool {
        self.of_kind_mut(code).is_some_and(|kind| kind.streams.get(&id).is_some())
    }

    pub(crate) fn put(&mut self, (code, id): StreamId, stream: Stream) {
        if self.of_kind(code).is_none() {
            self.kinds.push(OfKind { code, streams: LruCache::unbounded(), bytes: 0 });
        }
        let (most_streams, most_bytes) = (self.most_streams, self.most_bytes);
        let kind = self.of_kind_mut(code).expect("just made");
        kind.bytes += stream.bytes;
        if let Some(old) = kind.streams.put(id, stream) {
            kind.bytes -= old.bytes;
        }
        while kind.streams.len() > most_streams || kind.bytes > most_bytes {
            let Some((_, evicted)) = kind.streams.pop_lru() else { break };
            kind.bytes -= evicted.bytes;
        }
    }

    pub(crate) fn remove(&mut self, (code, id): StreamId) {
        if let Some(kind) = self.of_kind_mut(code)
            && let Some(stream) = kind.streams.pop(&id)
        {
            kind.bytes -= stream.bytes;
        }
    }

    /// How many numbered events the key has; leaves the order of use alone.
    pub(crate) fn peek_head(&self, key: Uuid) -> Option<u64> {
        self.heads.peek(&key).copied()
    }

    /// Whether the key's head is there; then it counts as used.
    pub(crate) fn touch_head(&mut self, key: Uuid) -> bool {
        self.heads.get(&key).is_some()
    }

    pub(crate) fn put_head(&mut self, key: Uuid, head: u64) {
        self.heads.put(key, head);
    }

    /// Takes in an event that another process wrote.
    pub(crate) fn apply(&mut self, event: &StoredEvent, upcasters: &Upcasters) {
        if let (Some(seq), Some(head)) = (event.seq, self.heads.peek_mut(&event.key)) {
            *head = seq.max(*head);
        }
        let id = (event.aggregate_type, event.aggregate_id);
        let Some(kind) = self.of_kind_mut(id.0) else { return };
        let Some(stream) = kind.streams.peek_mut(&id.1) else { return };
        let same_shard = stream.key == event.key;
        if same_shard && event.position <= stream.position {
            return;
        }
        let before = stream.bytes;
        let follows = same_shard && event.sequence == stream.sequence + 1;
        if follows && stream.apply(event, upcasters).is_ok() {
            kind.bytes = kind.bytes - before + stream.bytes;
        } else {
            // It is loaded anew when it is needed, and says then what is wrong with it.
            self.remove(id);
        }
    }

    /// Forgets all streams and heads of the keys that `of_shard` names.
    pub(crate) fn forget(&mut self, of_shard: impl Fn(Uuid) -> bool) {
        for kind in &mut self.kinds {
            let gone: Vec<_> =
                kind.streams.iter().filter(|(_, stream)| of_shard(stream.key)).map(|(id, _)| *id).collect();
            for id in gone {
                if let Some(stream) = kind.streams.pop(&id) {
                    kind.bytes -= stream.bytes;
                }
            }
        }
        let gone: Vec<_> = self.heads.iter().map(|(key, _)| *key).filter(|key| of_shard(*key)).collect();
        for key in gone {
            self.heads.pop(&key);
        }
    }
}
