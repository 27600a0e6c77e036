//! The bus of one process: the recent records of every shard in memory, older ones from the log.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use schemas::{Body, Event, Position, Record, Topic};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Backfill, Bus, BusError, Subscription, Tail};

/// How much of each topic stays in memory; what falls out is read from the log again by whoever still needs it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records of all shards together.
    pub records: usize,
    /// Their size together, roughly.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { records: 32 * 1024, bytes: 32 * 1024 * 1024 }
    }
}

/// A bus within the process. Subscriptions are cursors into its memory: a subscriber costs no queue, and a slow one
/// delays nobody.
pub struct InProcessBus {
    topics: [Arc<TopicState>; Topic::ALL.len()],
    backfill: Arc<dyn Backfill>,
}

struct TopicState {
    recent: RwLock<Recent>,
    published: Notify,
}

/// The recent records of a topic.
struct Recent {
    /// By number.
    shards: Vec<Ring>,
    /// The shard of each record held, oldest first.
    order: VecDeque<u16>,
    bytes: usize,
    bounds: Bounds,
}

#[derive(Default)]
struct Ring {
    /// The last position published.
    head: u64,
    /// Those up to the head.
    records: VecDeque<Arc<Record>>,
}

#[derive(Debug, thiserror::Error)]
enum Misuse {
    #[error("{found} does not follow {last}")]
    Gap { last: Position, found: Position },
    #[error("the topic {topic:?} has no shard {shard}")]
    NoShard { topic: Topic, shard: u16 },
    #[error("the log does not have what follows {0}, though it was published")]
    Missing(Position),
}

impl From<Misuse> for BusError {
    fn from(misuse: Misuse) -> Self {
        Self(Box::new(misuse))
    }
}

impl InProcessBus {
    /// A bus that goes on after `heads`, which name every shard of every topic: what lies before is the backfill's.
    pub fn new(heads: impl IntoIterator<Item = Position>, backfill: Arc<dyn Backfill>, bounds: Bounds) -> Self {
        let mut shards = Topic::ALL.map(|_| Vec::<Ring>::new());
        for place in heads {
            let (shards, shard) = (&mut shards[index(place.topic)], usize::from(place.shard));
            if shards.len() <= shard {
                shards.resize_with(shard + 1, Ring::default);
            }
            shards[shard].head = place.position;
        }
        let topics = shards.map(|shards| {
            let recent = RwLock::new(Recent { shards, order: VecDeque::new(), bytes: 0, bounds });
            Arc::new(TopicState { recent, published: Notify::new() })
        });
        Self { topics, backfill }
    }
}

#[async_trait]
impl Bus for InProcessBus {
    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError> {
        for topic in Topic::ALL {
            let mut of_topic = records.iter().filter(|record| record.topic == topic).peekable();
            if of_topic.peek().is_none() {
                continue;
            }
            let state = &self.topics[index(topic)];
            let added = {
                let mut recent = state.recent.write();
                of_topic.try_for_each(|record| recent.add(record))
            };
            state.published.notify_waiters();
            added?;
        }
        Ok(())
    }

    /// Nobody outside reads here, and everybody inside has it.
    async fn republish(&self, _: Uuid, _: &[Arc<Record>]) -> Result<(), BusError> {
        Ok(())
    }

    async fn heads(&self, topic: Topic) -> Result<Vec<(u16, u64)>, BusError> {
        let recent = self.topics[index(topic)].recent.read();
        Ok((0..).zip(&recent.shards).map(|(shard, ring)| (shard, ring.head)).collect())
    }

    async fn tails(&self, topic: Topic, shards: &[u16]) -> Result<Vec<(u16, Tail)>, BusError> {
        let recent = self.topics[index(topic)].recent.read();
        let tail = |shard: &u16| match recent.shards.get(usize::from(*shard)).map(|ring| ring.head) {
            None => Err(Misuse::NoShard { topic, shard: *shard }.into()),
            Some(0) => Ok((*shard, Tail::Empty)),
            Some(position) => Ok((*shard, Tail::Record { position, event_id: None })),
        };
        shards.iter().map(tail).collect()
    }

    async fn subscribe(&self, topic: Topic, after: &[(u16, u64)]) -> Result<Box<dyn Subscription>, BusError> {
        let state = Arc::clone(&self.topics[index(topic)]);
        let shards = state.recent.read().shards.len();
        if let Some((shard, _)) = after.iter().find(|(shard, _)| usize::from(*shard) >= shards) {
            return Err(Misuse::NoShard { topic, shard: *shard }.into());
        }
        Ok(Box::new(Cursors { topic, state, backfill: Arc::clone(&self.backfill), places: after.to_vec(), turn: 0 }))
    }
}

impl Recent {
    fn add(&mut self, record: &Arc<Record>) -> Result<(), Misuse> {
        let found = record.place();
        let no_shard = Misuse::NoShard { topic: found.topic, shard: found.shard };
        let ring = self.shards.get_mut(usize::from(found.shard)).ok_or(no_shard)?;
        if found.position <= ring.head {
            return Ok(());
        }
        if found.position != ring.head + 1 {
            return Err(Misuse::Gap { last: Position { position: ring.head, ..found }, found });
        }
        ring.head = found.position;
        ring.records.push_back(Arc::clone(record));
        self.order.push_back(found.shard);
        self.bytes += weight(record);
        // The newest stays, however large it is.
        while self.order.len() > self.bounds.records.max(1) || (self.bytes > self.bounds.bytes && self.order.len() > 1)
        {
            self.drop_oldest();
        }
        Ok(())
    }

    fn drop_oldest(&mut self) {
        let oldest = self.order.pop_front().and_then(|shard| self.shards[usize::from(shard)].records.pop_front());
        self.bytes -= oldest.map_or(0, |record| weight(&record));
    }
}

impl Ring {
    /// Whether what comes after `position` was published and is not in memory any more.
    fn dropped(&self, position: u64) -> bool {
        position + (self.records.len() as u64) < self.head
    }

    /// What comes after `position`, if all of it is in memory.
    fn after(&self, position: u64) -> impl Iterator<Item = &Arc<Record>> {
        let wanted = usize::try_from(self.head.saturating_sub(position)).unwrap_or(usize::MAX);
        let skipped = self.records.len().checked_sub(wanted).unwrap_or(self.records.len());
        self.records.range(skipped..)
    }
}

/// A subscription: how far each of its shards was read.
struct Cursors {
    topic: Topic,
    state: Arc<TopicState>,
    backfill: Arc<dyn Backfill>,
    places: Vec<(u16, u64)>,
    /// Where the next round begins, so that no busy shard starves another.
    turn: usize,
}

#[async_trait]
impl Subscription for Cursors {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let max = max.max(1);
        let state = Arc::clone(&self.state);
        loop {
            // Listening begins before the look, so that nothing published between the two is missed.
            let published = state.published.notified();
            tokio::pin!(published);
            published.as_mut().enable();
            let older = match self.behind() {
                // Half of the batch, so that what is in memory of other shards comes along.
                Some(index) => self.older(index, max.div_ceil(2)).await,
                None => Ok(Vec::new()),
            };
            // From here on nothing waits: cursors move only with what is returned.
            let (mut batch, failure) = match older {
                Ok(older) => (older, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            self.take(max, &mut batch);
            match failure {
                _ if !batch.is_empty() => return Ok(batch),
                Some(error) => return Err(error),
                None => published.await,
            }
        }
    }
}

impl Cursors {
    /// The next shard, in turn, that memory alone cannot serve.
    fn behind(&self) -> Option<usize> {
        let recent = self.state.recent.read();
        let count = self.places.len();
        (0..count).map(|offset| (self.turn + offset) % count).find(|index| {
            let (shard, position) = self.places[*index];
            recent.shards[usize::from(shard)].dropped(position)
        })
    }

    /// Reads what memory lost; the cursor has moved once this returns.
    async fn older(&mut self, index: usize, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let (shard, position) = self.places[index];
        let records = self.backfill.read(self.topic, shard, position, limit).await?;
        let dense = records.iter().zip(position + 1..).all(|(record, expected)| record.position == expected);
        match records.last() {
            Some(last) if dense => {
                self.places[index].1 = last.position;
                Ok(records)
            }
            _ => Err(Misuse::Missing(Position { topic: self.topic, shard, position }).into()),
        }
    }

    /// Adds what is in memory, shard by shard, and moves the cursors.
    fn take(&mut self, max: usize, batch: &mut Vec<Arc<Record>>) {
        let recent = self.state.recent.read();
        let count = self.places.len();
        self.turn = (self.turn + 1) % count.max(1);
        for offset in 0..count {
            let (shard, position) = &mut self.places[(self.turn + offset) % count];
            let ring = &recent.shards[usize::from(*shard)];
            if ring.dropped(*position) {
                continue;
            }
            let before = batch.len();
            batch.extend(ring.after(*position).take(max.saturating_sub(before)).cloned());
            *position += (batch.len() - before) as u64;
        }
    }
}

fn index(topic: Topic) -> usize {
    match topic {
        Topic::Users => 0,
        Topic::Conversations => 1,
    }
}

/// Roughly what a record takes in memory: itself, and the texts and lists that it points to.
fn weight(record: &Record) -> usize {
    const TEXT: usize = 64;
    let own = match &record.event {
        Event::Numbered(numbered) => match &numbered.body {
            Body::MessageSent(message) => {
                size_of_val(&**message) + message.content.as_ref().map_or(0, String::len) + message.mentions.len() * 16
            }
            Body::Created(created) => TEXT + size_of_val(&created.members[..]),
            Body::Renamed(renamed) => renamed.name.len(),
            _ => 0,
        },
        Event::UserRegistered(_) | Event::UserProfileChanged(_) | Event::SessionStarted(_) => 2 * TEXT,
        _ => 0,
    };
    let envelope =
        record.correlation.as_ref().map_or(0, |text| text.len()) + record.trace.as_ref().map_or(0, |t| t.len());
    size_of::<Record>() + own + envelope
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::bus::contract::{self, Harness, MemoryLog, SHARDS};

    struct InProcess {
        log: Arc<MemoryLog>,
        bus: InProcessBus,
    }

    impl InProcess {
        fn with(bounds: Bounds) -> Self {
            let log = Arc::new(MemoryLog::default());
            Self { bus: InProcessBus::new(contract::empty(), Arc::clone(&log) as _, bounds), log }
        }
    }

    #[async_trait]
    impl Harness for InProcess {
        async fn new() -> Self {
            Self::with(Bounds { records: 64, bytes: usize::MAX })
        }

        fn bus(&self) -> &dyn Bus {
            &self.bus
        }

        async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError> {
            self.log.append(records);
            self.bus.publish(records).await
        }
    }

    contract::suite!(InProcess);

    #[tokio::test]
    async fn a_bus_that_starts_late_serves_what_came_before_it() {
        let log = Arc::new(MemoryLog::default());
        log.append(&contract::records(Topic::Users, 1, 1..=5));
        let heads = contract::empty().into_iter().map(|place| match (place.topic, place.shard) {
            (Topic::Users, 1) => Position { position: 5, ..place },
            _ => place,
        });
        let bus = InProcessBus::new(heads, Arc::clone(&log) as _, Bounds::default());
        assert_eq!(bus.heads(Topic::Users).await.unwrap()[1], (1, 5));
        let mut all = bus.subscribe(Topic::Users, &[(1, 0)]).await.unwrap();
        let mut from_now = bus.subscribe(Topic::Users, &[(1, 5)]).await.unwrap();
        bus.publish(&contract::records(Topic::Users, 1, 6..=6)).await.unwrap();
        assert_eq!(contract::positions(&from_now.next(10).await.unwrap()), [(1, 6)]);
        let got = contract::read(&mut *all, 6, 10).await;
        assert_eq!(contract::positions(&got), (1..=6).map(|position| (1, position)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_memory_lost_and_the_log_does_not_have_is_an_error_and_others_go_on() {
        let harness = InProcess::with(Bounds { records: 4, bytes: usize::MAX });
        let lost = contract::records(Topic::Users, 0, 1..=8);
        harness.bus.publish(&lost).await.unwrap();
        let mut reader = harness.bus.subscribe(Topic::Users, &[(0, 0), (1, 0)]).await.unwrap();
        assert!(reader.next(10).await.is_err());
        harness.publish(&contract::records(Topic::Users, 1, 1..=1)).await.unwrap();
        assert_eq!(contract::positions(&reader.next(10).await.unwrap()), [(1, 1)]);
        harness.log.append(&lost);
        assert_eq!(contract::read(&mut *reader, 8, 10).await.len(), 8);
    }

    #[tokio::test]
    async fn memory_is_bounded_by_bytes_too() {
        let one = weight(&contract::records(Topic::Users, 0, 1..=1)[0]);
        let harness = InProcess::with(Bounds { records: usize::MAX, bytes: 3 * one });
        harness.publish(&contract::records(Topic::Users, 0, 1..=10)).await.unwrap();
        let recent = harness.bus.topics[0].recent.read();
        assert_eq!((recent.order.len(), recent.shards[0].records.len(), recent.bytes), (3, 3, 3 * one));
        assert_eq!(recent.shards.len(), usize::from(SHARDS));
    }
}
