//! What a lane knows of its shards: where each ends, and by which hash.

use domain::kernel::LogTopic;

use crate::chain::{Hash, genesis};
use crate::rows::ShardRow;

/// The end of a shard, as this lane last saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shard {
    pub(crate) topic: LogTopic,
    pub(crate) number: u16,
    pub(crate) head: u64,
    pub(crate) chain: Hash,
}

/// All shards of all topics. A lane keeps only its own up to date.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    a_topic: u16,
    all: Vec<Shard>,
}

impl Shards {
    pub(crate) fn new(a_topic: u16, rows: &[ShardRow]) -> Self {
        let all = LogTopic::ALL
            .into_iter()
            .flat_map(|topic| {
                (0..a_topic).map(move |shard| Shard { topic, number: shard, head: 0, chain: genesis(topic, shard) })
            })
            .collect();
        let mut shards = Self { a_topic, all };
        for row in rows {
            *shards.get_mut(shards.index_of(row.topic, row.shard)) =
                Shard { topic: row.topic, number: row.shard, head: row.head, chain: row.chain };
        }
        shards
    }

    /// The number of a shard among those of all topics.
    pub(crate) fn index(a_topic: u16, topic: LogTopic, shard: u16) -> usize {
        let topic = LogTopic::ALL.iter().position(|other| *other == topic).expect("ALL has all");
        topic * usize::from(a_topic) + usize::from(shard)
    }

    pub(crate) fn index_of(&self, topic: LogTopic, shard: u16) -> usize {
        Self::index(self.a_topic, topic, shard)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn a_topic(&self) -> u16 {
        self.a_topic
    }

    pub(crate) fn get(&self, index: usize) -> &Shard {
        &self.all[index]
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut Shard {
        &mut self.all[index]
    }
}
