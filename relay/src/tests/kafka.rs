//! A bus that keeps records as Kafka does, and fails as Kafka does: what is under test is what stands in it at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use event_store::Log;
use parking_lot::Mutex;
use platform::bus::{Bus, BusError, Subscription, Tail};
use rand::RngExt;
use schemas::{Record, Topic};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::leadership::Place;
use crate::stored::private;

/// A record that was kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kept {
    Record(u64, Uuid),
    /// One that was published again, by which request, and how far the partition went by then.
    Again(u64, Uuid, Uuid, (u64, Uuid)),
    Foreign,
}

/// What all producers write to.
#[derive(Default)]
pub(super) struct Cluster {
    partitions: Mutex<BTreeMap<Place, Vec<Kept>>>,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    away: bool,
    /// Places where nothing is answered.
    hanging: BTreeSet<Place>,
    /// What publishes that begin wait for.
    held_up: Option<CancellationToken>,
    /// Of which each that waits for that has a copy.
    waiting: Arc<()>,
    /// Of so many records one fails, kept or not.
    one_fails_of: Option<u32>,
}

/// One process's producer.
pub(super) struct FakeKafka {
    cluster: Arc<Cluster>,
    /// The furthest record that this producer knows of.
    published: Mutex<HashMap<Place, (u64, Uuid)>>,
}

impl Cluster {
    pub(super) fn producer(self: &Arc<Self>) -> Arc<dyn Bus> {
        Arc::new(FakeKafka { cluster: Arc::clone(self), published: Mutex::default() })
    }

    pub(super) fn away(&self, away: bool) {
        self.faults.lock().away = away;
    }

    pub(super) fn hang(&self, place: Place) {
        self.faults.lock().hanging.insert(place);
    }

    /// Has publishes that begin from now on wait for a token, or no more.
    pub(super) fn hold_up(&self, until: Option<CancellationToken>) {
        self.faults.lock().held_up = until;
    }

    /// How many publishes wait, and somebody for them.
    pub(super) fn waiting(&self) -> usize {
        Arc::strong_count(&self.faults.lock().waiting) - 1
    }

    pub(super) fn one_fails_of(&self, records: Option<u32>) {
        self.faults.lock().one_fails_of = records;
    }

    /// Shortens a partition, as if the topic had been made anew.
    pub(super) fn truncate(&self, place: Place, len: usize) {
        if let Some(kept) = self.partitions.lock().get_mut(&place) {
            kept.truncate(len);
        }
    }

    pub(super) fn put(&self, place: Place, record: Kept) {
        self.partitions.lock().entry(place).or_default().push(record);
    }

    /// Appends what one producer sends, or fails to, kept or not.
    fn write(&self, kept: &mut Vec<Kept>, record: Kept) -> Result<(), BusError> {
        let fails = self.faults.lock().one_fails_of.is_some_and(|of| rand::rng().random_ratio(1, of));
        if fails && rand::rng().random() {
            return Err(failure("not kept"));
        }
        kept.push(record);
        if fails { Err(failure("kept, and the answer lost")) } else { Ok(()) }
    }

    /// What was published again by a request, in order.
    pub(super) fn again(&self, place: Place, by: Uuid) -> Vec<u64> {
        let partitions = self.partitions.lock();
        let kept = partitions.get(&place).into_iter().flatten();
        kept.filter_map(|record| match record {
            Kept::Again(position, _, replay, _) if *replay == by => Some(*position),
            _ => None,
        })
        .collect()
    }

    pub(super) fn last(&self, place: Place) -> Option<Kept> {
        self.partitions.lock().get(&place).and_then(|kept| kept.last().copied())
    }

    pub(super) fn len(&self, place: Place) -> usize {
        self.partitions.lock().get(&place).map_or(0, Vec::len)
    }

    pub(super) fn total(&self) -> usize {
        self.partitions.lock().values().map(Vec::len).sum()
    }

    /// Whether every partition has reached the head of its shard.
    pub(super) async fn is_whole(&self, log: &Log) -> bool {
        let heads = crate::heads(log).await.unwrap();
        let partitions = self.partitions.lock();
        heads.iter().all(|head| highest(partitions.get(&(head.topic, head.shard))) == head.position)
    }

    /// Every partition holds its shard's events, from the first to the last, and never was there a jump; how many came
    /// more than once.
    pub(super) async fn assert_sound(&self, log: &Log) -> usize {
        let mut duplicates = 0;
        for head in crate::heads(log).await.unwrap() {
            let place = (head.topic, head.shard);
            let kept = self.partitions.lock().get(&place).cloned().unwrap_or_default();
            let events = log.read(private(head.topic), head.shard, 0, u32::MAX >> 1).await.unwrap();
            let mut last = 0;
            for record in kept {
                let (position, id) = match record {
                    Kept::Record(position, id) => (position, id),
                    Kept::Again(position, id, _, (head, _)) => {
                        assert!(
                            position <= head && head <= last,
                            "{place:?}: {position} again, of {head}, after {last}"
                        );
                        (position, id)
                    }
                    Kept::Foreign => panic!("{place:?} holds what is not ours"),
                };
                assert!((1..=last + 1).contains(&position), "{place:?}: {position} after {last}");
                assert_eq!(events[usize::try_from(position).unwrap() - 1].event_id, id, "{place:?}:{position}");
                duplicates += usize::from(position <= last);
                last = last.max(position);
            }
            assert_eq!(last, head.position, "{place:?}");
        }
        duplicates
    }
}

fn highest(kept: Option<&Vec<Kept>>) -> u64 {
    let positions = kept.into_iter().flatten().map(|record| match record {
        Kept::Record(position, _) | Kept::Again(position, ..) => *position,
        Kept::Foreign => 0,
    });
    positions.max().unwrap_or(0)
}

fn failure(why: &'static str) -> BusError {
    BusError(why.into())
}

impl FakeKafka {
    async fn answers(&self, place: Place) -> Result<(), BusError> {
        tokio::task::yield_now().await;
        let (away, hangs) = {
            let faults = self.cluster.faults.lock();
            (faults.away, faults.hanging.contains(&place))
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if away { Err(failure("away")) } else { Ok(()) }
    }

    fn keep(&self, record: &Record) -> Result<(), BusError> {
        let place = (record.topic, record.shard);
        let mut published = self.published.lock();
        let published = published.get_mut(&place).ok_or_else(|| failure("not in our charge"))?;
        if record.position <= published.0 {
            return Ok(());
        }
        let mut partitions = self.cluster.partitions.lock();
        let kept = partitions.entry(place).or_default();
        if record.position != published.0 + 1 || record.position > highest(Some(kept)) + 1 {
            return Err(failure("a gap"));
        }
        self.cluster.write(kept, Kept::Record(record.position, record.event_id))?;
        *published = (record.position, record.event_id);
        Ok(())
    }

    fn keep_again(&self, replay: Uuid, record: &Record) -> Result<(), BusError> {
        let place = (record.topic, record.shard);
        let mut published = self.published.lock();
        let head = *published.get(&place).ok_or_else(|| failure("not in our charge"))?;
        if record.position > head.0 {
            return Ok(());
        }
        let mut partitions = self.cluster.partitions.lock();
        let kept = partitions.entry(place).or_default();
        let far = highest(Some(kept));
        if far < head.0 {
            return Err(failure("a gap"));
        }
        self.cluster.write(kept, Kept::Again(record.position, record.event_id, replay, head))?;
        if far > head.0 {
            // It is there all the same.
            published.remove(&place);
            return Err(failure("somebody else was here"));
        }
        Ok(())
    }
}

#[async_trait]
impl Bus for FakeKafka {
    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError> {
        let held_up = {
            let faults = self.cluster.faults.lock();
            faults.held_up.clone().map(|until| (until, Arc::clone(&faults.waiting)))
        };
        if let Some((until, _waiting)) = held_up {
            until.cancelled().await;
        }
        for record in records {
            self.answers((record.topic, record.shard)).await?;
            self.keep(record)?;
        }
        Ok(())
    }

    async fn republish(&self, replay: Uuid, records: &[Arc<Record>]) -> Result<(), BusError> {
        for record in records {
            self.answers((record.topic, record.shard)).await?;
            self.keep_again(replay, record)?;
        }
        Ok(())
    }

    async fn heads(&self, topic: Topic) -> Result<Vec<(u16, u64)>, BusError> {
        let partitions = self.cluster.partitions.lock();
        Ok(partitions
            .range((topic, 0)..=(topic, u16::MAX))
            .map(|(place, kept)| (place.1, highest(Some(kept))))
            .collect())
    }

    async fn tails(&self, topic: Topic, shards: &[u16]) -> Result<Vec<(u16, Tail)>, BusError> {
        let mut tails = Vec::new();
        for shard in shards {
            let place = (topic, *shard);
            self.answers(place).await?;
            let mut published = self.published.lock();
            let tail = match self.cluster.partitions.lock().get(&place).and_then(|kept| kept.last()) {
                None => Tail::Empty,
                Some(Kept::Foreign) => Tail::Foreign,
                Some(Kept::Record(position, id) | Kept::Again(.., (position, id))) => {
                    Tail::Record { position: *position, event_id: Some(*id) }
                }
            };
            let end = if let Tail::Record { position, event_id: Some(id) } = tail {
                (position, id)
            } else {
                Default::default()
            };
            published.insert(place, end);
            tails.push((*shard, tail));
        }
        Ok(tails)
    }

    async fn subscribe(&self, _: Topic, _: &[(u16, u64)]) -> Result<Box<dyn Subscription>, BusError> {
        Err(failure("only produces"))
    }
}
