//! How the partitions end: for the relay, which goes on there, and for figures.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::Topic;
use schemas::binary_mode::Head;
use uuid::Uuid;

use super::client::{blocking, patiently};
use super::ends::{End, Ends};
use super::error::KafkaError;
use super::peek::{Found, Peek, Span};
use super::topics::Topics;
use crate::bus::Tail;

/// Looks up how these shards end, and lets the next records be published behind that.
///
/// A partition that does not hold what its last record says, for the topic was made anew under somebody who wrote, is
/// emptied, to be filled from its first record.
pub(super) async fn tails(
    topics: &Topics,
    ends: &Ends,
    brokers: &str,
    topic: Topic,
    shards: &[u16],
) -> Result<Vec<(u16, Tail)>, KafkaError> {
    let mut held = ends.hold(topic, shards).await?;
    let looked = match look(topics, brokers, topic, shards).await {
        Err(KafkaError::NoTopic(name)) => {
            tracing::warn!(topic = name, "the topic {name} is not there: it is made");
            topics.ensure().await?;
            look(topics, brokers, topic, shards).await?
        }
        looked => looked?,
    };
    let broken: Vec<(u16, i64)> =
        looked.iter().filter(|look| look.is_broken()).map(|look| (look.span.shard, look.span.high)).collect();
    if !broken.is_empty() {
        tracing::warn!(
            topic = topics.name(topic),
            shards = broken.len(),
            "{} partitions of {} lack their beginning: they are emptied, to be filled again",
            broken.len(),
            topics.name(topic)
        );
        topics.empty(topic, &broken).await?;
    }
    let mut tails = Vec::with_capacity(looked.len());
    for look in looked {
        let (tail, end) = if look.is_broken() { look.empty() } else { look.tail() };
        if let Some(held) = held.get_mut(&look.span.shard) {
            **held = end;
        }
        tails.push((look.span.shard, tail));
    }
    Ok(tails)
}

/// What is at the two ends of a partition.
struct Look {
    span: Span,
    first: Option<Found>,
    last: Option<Found>,
}

impl Look {
    /// Whether records are missing before the last. Position p stands at offset p - 1 or behind, one that was published
    /// again behind all that it says were there; and where nothing was ever deleted, the first is 1.
    fn is_broken(&self) -> bool {
        let short = |found: Found| {
            found.identity.is_some_and(|of| i64::try_from(of.least_before()).is_ok_and(|least| found.offset < least))
        };
        self.span.low == 0 && (self.last.is_some_and(short) || self.first.is_some_and(short))
    }

    fn empty(&self) -> (Tail, Option<End>) {
        let head = Head { position: 0, event_id: Uuid::nil() };
        (Tail::Empty, Some(End::new(head, self.span.high)))
    }

    fn tail(&self) -> (Tail, Option<End>) {
        match self.last {
            None => self.empty(),
            Some(Found { identity: None, .. }) => (Tail::Foreign, None),
            Some(Found { offset, identity: Some(last) }) => {
                let head @ Head { position, event_id } = last.head();
                (Tail::Record { position, event_id: Some(event_id) }, Some(End::new(head, offset + 1)))
            }
        }
    }
}

async fn look(topics: &Topics, brokers: &str, topic: Topic, shards: &[u16]) -> Result<Vec<Look>, KafkaError> {
    patiently(|| {
        let (name, brokers, shards) = (topics.name(topic), brokers.to_owned(), shards.to_vec());
        blocking(move || look_once(&name, &brokers, &shards))
    })
    .await
}

fn look_once(topic: &str, brokers: &str, shards: &[u16]) -> Result<Vec<Look>, KafkaError> {
    let peek = Peek::new(brokers)?;
    let spans = peek.spans(topic, shards)?;
    let filled = || spans.iter().filter(|span| span.high > span.low);
    let lasts: Vec<_> = filled().map(|span| (span.shard, span.high - 1)).collect();
    let firsts: Vec<_> = filled().filter(|span| span.low == 0).map(|span| (span.shard, 0)).collect();
    let (last, first) = (peek.at(topic, &lasts)?, peek.at(topic, &firsts)?);
    let look = |span: &Span| Look {
        span: *span,
        first: first.get(&span.shard).copied(),
        last: last.get(&span.shard).copied(),
    };
    Ok(spans.iter().map(look).collect())
}

/// The last positions of shards, for figures: read again only where something came.
pub(super) struct Heads {
    brokers: String,
    shards: u16,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    peek: Option<Peek>,
    /// The offset behind the last record, and its position.
    heads: HashMap<(Topic, u16), (i64, u64)>,
}

impl Heads {
    pub(super) fn new(brokers: &str, shards: u16) -> Self {
        Self { brokers: brokers.to_owned(), shards, known: Arc::default() }
    }

    pub(super) async fn of(&self, topic: Topic, name: String) -> Result<Vec<(u16, u64)>, KafkaError> {
        patiently(|| {
            let (known, brokers, shards) = (Arc::clone(&self.known), self.brokers.clone(), self.shards);
            let name = name.clone();
            blocking(move || {
                let mut known = known.lock();
                let peek = match known.peek.take() {
                    Some(peek) => peek,
                    None => Peek::new(&brokers)?,
                };
                let heads = known.update(&peek, topic, &name, shards)?;
                // One that failed is not used again.
                known.peek = Some(peek);
                Ok(heads)
            })
        })
        .await
    }
}

impl Known {
    fn update(&mut self, peek: &Peek, topic: Topic, name: &str, shards: u16) -> Result<Vec<(u16, u64)>, KafkaError> {
        let all: Vec<u16> = (0..shards).collect();
        let spans = peek.spans(name, &all)?;
        let moved = |span: &&Span| self.heads.get(&(topic, span.shard)).is_none_or(|(high, _)| *high != span.high);
        let places: Vec<_> = spans
            .iter()
            .filter(moved)
            .filter(|span| span.high > span.low)
            .map(|span| (span.shard, span.high - 1))
            .collect();
        let found = peek.at(name, &places)?;
        for span in &spans {
            let head = self.heads.entry((topic, span.shard)).or_default();
            match found.get(&span.shard) {
                _ if span.high == span.low => *head = (span.high, 0),
                Some(Found { identity: Some(last), .. }) => *head = (span.high, last.head().position),
                // Somebody else's: what was known of ours.
                Some(_) => head.0 = span.high,
                None => {}
            }
        }
        Ok(all.into_iter().map(|shard| (shard, self.heads[&(topic, shard)].1)).collect())
    }
}
