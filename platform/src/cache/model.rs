//! Answers and marks against a model, whatever is told, told again, lost or emptied, and in whatever order: an answer
//! that comes back has all that is applied of its parts.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use schemas::{Position, PositionToken, Record, Topic};
use testkit::redis::{Redis as Server, RedisCluster};
use uuid::Uuid;

use super::tests::{LONG, by_number, renamed};
use super::{Answers, Kept, Marks, Owner, Part};
use crate::redis::Redis;

const SHARDS: u16 = 2;
const ROOMS: u128 = 4;
const READER: Owner = Owner::User(Uuid::nil());

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// Something in a conversation.
    Happens(u128),
    /// One who tells goes on in a shard by so many events, or believes that it did.
    Tells { who: usize, shard: u16, count: usize, is_lost: bool },
    /// Another one begins there, anywhere.
    Begins { who: usize, shard: u16, at: usize },
    /// The read model goes on in a shard.
    Applies { shard: u16, count: usize },
    /// Somebody begins to read some conversations.
    Reads { nth: usize, rooms: u8 },
    /// And keeps what they read, then or later.
    Keeps { nth: usize },
    /// What is kept is asked for.
    Asks,
    /// A node forgets everything.
    IsEmptied(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    prop_oneof![
        6 => (0..ROOMS).prop_map(Step::Happens),
        9 => (0..2usize, shard.clone(), 1..6usize, prop::bool::weighted(0.05))
            .prop_map(|(who, shard, count, is_lost)| Step::Tells { who, shard, count, is_lost }),
        1 => (0..2usize, shard.clone(), 0..20usize).prop_map(|(who, shard, at)| Step::Begins { who, shard, at }),
        5 => (shard.clone(), 1..4usize).prop_map(|(shard, count)| Step::Applies { shard, count }),
        3 => (0..3usize, 1..1u8 << ROOMS).prop_map(|(nth, rooms)| Step::Reads { nth, rooms }),
        5 => (0..3usize).prop_map(|nth| Step::Keeps { nth }),
        8 => Just(Step::Asks),
        1 => shard.prop_map(Step::IsEmptied),
    ]
}

/// What really is.
#[derive(Default)]
struct World {
    log: [Vec<Arc<Record>>; SHARDS as usize],
    applied: [usize; SHARDS as usize],
    told: [[usize; SHARDS as usize]; 2],
    reading: HashMap<usize, Kept>,
    served: usize,
}

impl World {
    fn now(&self) -> PositionToken {
        let place = |shard: u16| {
            let position = self.applied[usize::from(shard)] as u64;
            (position > 0).then_some(Position { topic: Topic::Conversations, shard, position })
        };
        (0..SHARDS).filter_map(place).collect()
    }

    /// Whether something of a part was applied that a token does not have.
    fn misses(&self, as_of: &PositionToken, part: Part) -> bool {
        let Part::Conversation(room) = part else { return true };
        let shard = by_number(SHARDS)(room);
        let has = as_of.places().iter().find(|place| place.shard == shard).map_or(0, |place| place.position);
        let applied = &self.log[usize::from(shard)][..self.applied[usize::from(shard)]];
        applied.iter().any(|record| record.position > has && record.key == room)
    }

    async fn takes(
        &mut self,
        step: Step,
        redis: &Redis,
        answers: &Answers,
        marks: &Marks,
    ) -> Result<(), TestCaseError> {
        match step {
            Step::Happens(number) => {
                let room = Uuid::from_u128(number);
                let shard = by_number(SHARDS)(room);
                let log = &mut self.log[usize::from(shard)];
                log.push(renamed(shard, log.len() as u64 + 1, room));
            }
            Step::Tells { who, shard, count, is_lost } => {
                let log = &self.log[usize::from(shard)];
                let told = &mut self.told[who][usize::from(shard)];
                let upto = (*told + count).min(log.len());
                if !is_lost {
                    marks.set(&log[*told..upto]).await;
                }
                *told = upto;
            }
            Step::Begins { who, shard, at } => {
                self.told[who][usize::from(shard)] = at.min(self.log[usize::from(shard)].len());
            }
            Step::Applies { shard, count } => {
                let applied = &mut self.applied[usize::from(shard)];
                *applied = (*applied + count).min(self.log[usize::from(shard)].len());
            }
            Step::Reads { nth, rooms } => {
                let rooms = (0..ROOMS).filter(|room| rooms & (1 << room) != 0).map(Uuid::from_u128);
                let parts = rooms.map(Part::Conversation).collect();
                self.reading.insert(nth, Kept { as_of: self.now(), parts, body: b"{}".to_vec() });
            }
            Step::Keeps { nth } => {
                if let Some(kept) = self.reading.get(&nth) {
                    answers.put(READER, &nth.to_string(), kept).await;
                }
            }
            Step::Asks => {
                let now = self.now();
                for nth in 0..3 {
                    if let Some(kept) = answers.get(READER, &nth.to_string(), &now).await {
                        // Though something happened since.
                        self.served += usize::from(kept.as_of != now);
                        let outdated = kept.parts.iter().find(|part| self.misses(&kept.as_of, **part));
                        prop_assert_eq!(outdated, None, "of {}, at {}", kept.as_of, now);
                    }
                }
            }
            Step::IsEmptied(shard) => {
                let key = super::marks::key(redis, Topic::Conversations, shard);
                redis.ask::<()>(&key, &redis::cmd("FLUSHALL"), LONG).await.unwrap();
            }
        }
        Ok(())
    }
}

fn holds_on(urls: String, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(Redis::connect_within(&urls.into(), LONG, "model:")).unwrap();
    let (answers, marks) = (Answers::new(redis.clone(), by_number(SHARDS)), Marks::new(redis.clone()));
    let served = std::cell::Cell::new(0);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..160))| {
        runtime.block_on(async {
            let mut world = World::default();
            for shard in 0..SHARDS {
                world.takes(Step::IsEmptied(shard), &redis, &answers, &marks).await?;
            }
            for name in 0..3 {
                let key = answers.key(READER, &name.to_string());
                redis.ask::<()>(&key, redis::cmd("DEL").arg(&key), LONG).await.unwrap();
            }
            for step in steps {
                world.takes(step, &redis, &answers, &marks).await?;
            }
            served.set(served.get() + world.served);
            Ok::<_, TestCaseError>(())
        })?;
    });
    assert!(served.get() > cases as usize / 3, "only {} answers were proved", served.get());
}

#[test]
fn an_answer_has_all_that_is_applied_of_its_parts_on_one_server() {
    let server = Server::start().unwrap();
    holds_on(server.url(), 300);
}

#[test]
fn an_answer_has_all_that_is_applied_of_its_parts_on_a_cluster() {
    let cluster = RedisCluster::start().unwrap();
    holds_on(cluster.url(), 100);
}
