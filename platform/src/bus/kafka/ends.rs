//! How each shard ends, as far as this process knows, and publishing behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::binary_mode::{Head, Replayed};
use schemas::{Position, Record, Topic};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

use super::error::KafkaError;
use super::producer::{PUBLISH_BOUND, Producer, Producers};

/// How long a broker surely remembers a producer that does not write to a partition (its own default is a day).
const REMEMBERED: Duration = Duration::from_mins(30);

/// The ends of all shards, of those that were looked up or published to.
pub(super) struct Ends([Vec<Mutex<Option<End>>>; Topic::ALL.len()]);

/// The end of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The furthest record.
    head: Head,
    /// The offset behind the last one.
    next: i64,
    /// The producer that the partition knows, and since when it has not been heard there.
    known: Option<(u64, Instant)>,
}

/// One shard's part of a call, its end in our hands.
struct Part<'a> {
    place: Position,
    guard: MutexGuard<'a, Option<End>>,
    end: End,
    records: Vec<&'a Record>,
    /// What they say where they are published again.
    replayed: Option<Replayed>,
    offsets: Vec<i64>,
}

impl End {
    pub(super) fn new(head: Head, next: i64) -> Self {
        Self { head, next, known: None }
    }
}

impl Ends {
    pub(super) fn new(shards: u16) -> Self {
        Self(Topic::ALL.map(|_| (0..shards).map(|_| Mutex::new(None)).collect()))
    }

    fn slot(&self, topic: Topic, shard: u16) -> Result<&Mutex<Option<End>>, KafkaError> {
        let slots = &self.0[usize::from(topic.code().unsigned_abs())];
        slots.get(usize::from(shard)).ok_or(KafkaError::NoShard { topic, shard })
    }

    /// Forgets how these shards end, and keeps others from publishing to them until the guards go. In order of shards.
    pub(super) async fn hold(
        &self,
        topic: Topic,
        shards: &[u16],
    ) -> Result<BTreeMap<u16, MutexGuard<'_, Option<End>>>, KafkaError> {
        let mut slots = BTreeMap::new();
        for shard in shards {
            slots.insert(*shard, self.slot(topic, *shard)?);
        }
        let mut held = BTreeMap::new();
        for (shard, slot) in slots {
            let mut end = slot.lock().await;
            *end = None;
            held.insert(shard, end);
        }
        Ok(held)
    }

    /// Publishes what is new of these records. Calls for the same shard wait for each other.
    ///
    /// A record is sent only once its predecessor is in the partition or under way before it. Where that cannot be said
    /// any more, the shard's end is forgotten, and the next call refused until it was looked up.
    pub(super) async fn publish(
        &self,
        producers: &Producers,
        names: impl Fn(Topic) -> String,
        records: &[Arc<Record>],
    ) -> Result<u64, KafkaError> {
        let parts = self.parts(records).await?;
        Self::land(producers, names, parts).await
    }

    /// Publishes again what was published before of these records of one shard, between two calls of others.
    pub(super) async fn republish(
        &self,
        producers: &Producers,
        names: impl Fn(Topic) -> String,
        replay: Uuid,
        records: &[Arc<Record>],
    ) -> Result<u64, KafkaError> {
        let Some(Position { topic, shard, .. }) = records.first().map(|record| record.place()) else { return Ok(0) };
        let guard = self.slot(topic, shard)?.lock().await;
        let end = guard.ok_or(KafkaError::EndUnknown { topic, shard })?;
        let before =
            |record: &&Record| (record.topic, record.shard) == (topic, shard) && record.position <= end.head.position;
        let records: Vec<_> = records.iter().map(|record| &**record).filter(before).collect();
        if records.is_empty() {
            return Ok(0);
        }
        let replayed = Some(Replayed { replay, head: end.head });
        let place = Position { topic, shard, position: end.head.position };
        Self::land(producers, names, vec![Part { place, guard, end, records, replayed, offsets: Vec::new() }]).await
    }

    /// Sends these parts, and takes down how their shards end then.
    async fn land(
        producers: &Producers,
        names: impl Fn(Topic) -> String,
        mut parts: Vec<Part<'_>>,
    ) -> Result<u64, KafkaError> {
        let producer = producers.current()?;
        let names = Topic::ALL.map(names);
        let until = Instant::now() + PUBLISH_BOUND;
        for part in &mut parts {
            // Whoever gives the call up leaves it unknown how the shard ends.
            *part.guard = None;
        }
        // A broker takes any first batch of a producer it does not know, also one whose predecessor failed: so that
        // is a single record.
        send(producers, &producer, &names, &mut parts, until, |part| {
            if part.end.is_known_to(&producer) { usize::MAX } else { 1 }
        })
        .await?;
        send(producers, &producer, &names, &mut parts, until, |_| usize::MAX).await?;
        let count = parts.iter().map(|part| part.records.len() as u64).sum();
        let mut moved = None;
        for part in &mut parts {
            match part.landed(&producer) {
                Ok(end) => *part.guard = Some(end),
                Err(error) => moved = Some(error),
            }
        }
        moved.map_or(Ok(count), Err)
    }

    /// What is new of these records, by shard, and nothing that would leave a gap.
    async fn parts<'a>(&'a self, records: &'a [Arc<Record>]) -> Result<Vec<Part<'a>>, KafkaError> {
        let mut shards: BTreeMap<(Topic, u16), Vec<&Record>> = BTreeMap::new();
        for record in records {
            self.slot(record.topic, record.shard)?;
            shards.entry((record.topic, record.shard)).or_default().push(record);
        }
        let mut parts = Vec::with_capacity(shards.len());
        for ((topic, shard), records) in shards {
            let guard = self.slot(topic, shard)?.lock().await;
            let end = guard.ok_or(KafkaError::EndUnknown { topic, shard })?;
            let place = Position { topic, shard, position: end.head.position };
            let records = following(place, records)?;
            if !records.is_empty() {
                parts.push(Part { place, guard, end, records, replayed: None, offsets: Vec::new() });
            }
        }
        Ok(parts)
    }
}

/// Sends of each part what was not sent yet, at most as many as `limit` says.
async fn send(
    producers: &Producers,
    producer: &Producer,
    names: &[String; Topic::ALL.len()],
    parts: &mut [Part<'_>],
    until: Instant,
    limit: impl Fn(&Part<'_>) -> usize,
) -> Result<(), KafkaError> {
    let mut batch = Vec::new();
    let mut owners = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let name = names[usize::from(part.place.topic.code().unsigned_abs())].as_str();
        for record in part.records.iter().skip(part.offsets.len()).take(limit(part)) {
            batch.push((*record, name, part.replayed));
            owners.push(index);
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    let offsets = producers.send(producer, &batch, until).await?;
    for (owner, offset) in owners.into_iter().zip(offsets) {
        parts[owner].offsets.push(offset);
    }
    // One that did not land where it should goes no further.
    parts.iter().try_for_each(|part| part.landed(producer).map(drop))
}

impl End {
    fn is_known_to(&self, producer: &Producer) -> bool {
        self.known.is_some_and(|(number, since)| number == producer.number && since.elapsed() < REMEMBERED)
    }
}

impl Part<'_> {
    /// The shard's end after what was sent of the part, if that landed record behind record.
    fn landed(&self, producer: &Producer) -> Result<End, KafkaError> {
        let mut end = self.end;
        for (record, offset) in self.records.iter().zip(&self.offsets) {
            if *offset != end.next {
                return Err(KafkaError::Moved { place: record.place(), expected: end.next, offset: *offset });
            }
            if record.position > end.head.position {
                end.head = Head { position: record.position, event_id: record.event_id };
            }
            end = End { next: offset + 1, known: Some((producer.number, Instant::now())), ..end };
        }
        Ok(end)
    }
}

/// Those of the records that come after `last`, which they have to follow.
fn following(mut last: Position, records: Vec<&Record>) -> Result<Vec<&Record>, KafkaError> {
    let mut new = Vec::with_capacity(records.len());
    for record in records {
        if record.position > last.position + 1 {
            return Err(KafkaError::Gap { last, found: record.place() });
        }
        if record.position == last.position + 1 {
            last.position = record.position;
            new.push(record);
        }
    }
    Ok(new)
}
