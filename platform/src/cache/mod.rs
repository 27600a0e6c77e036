//! Answers that are kept in Redis for a while, and what of theirs moved since.
//!
//! An answer knows from which parts it was made, and how far the read model had got before they were read. Whoever tells
//! what happened marks the parts concerned with its position. An answer is good while nothing is applied that it does
//! not have, or as long as marks prove that what was applied since moved none of its parts: so it does not matter
//! whether a mark or an answer comes first, nor that marks get lost; without proof the database is asked.

mod marks;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};
use schemas::{Position, PositionToken, Topic};
use uuid::Uuid;

use crate::redis::Redis;
pub use marks::Marks;

/// How long an answer is good at most.
const KEPT: Duration = Duration::from_secs(10);
/// How long Redis may take; the database does not take much longer.
const BOUND: Duration = Duration::from_millis(50);
/// An answer of more parts is not kept: it would be outdated at once.
const PARTS: usize = 256;

/// Tells the shard of an ordering key.
pub type ShardOf = Arc<dyn Fn(Uuid) -> u16 + Send + Sync>;

/// What an answer is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A conversation, with all that is in it.
    Conversation(Uuid),
    /// Who is in a conversation, and in which role.
    Members(Uuid),
    /// Which conversations a user is in.
    Memberships(Uuid),
    /// What others see of a user.
    Profile(Uuid),
    /// The sessions of a user.
    Sessions(Uuid),
}

impl Part {
    /// Its name among the marks.
    fn name(self) -> String {
        let (kind, id) = match self {
            Self::Conversation(id) => ('c', id),
            Self::Members(id) => ('m', id),
            Self::Memberships(id) => ('i', id),
            Self::Profile(id) => ('p', id),
            Self::Sessions(id) => ('s', id),
        };
        format!("{kind}{}", id.simple())
    }

    fn from_name(name: &str) -> Option<Self> {
        let (kind, id) = name.split_at_checked(1)?;
        let id = id.parse().ok()?;
        Some(match kind {
            "c" => Self::Conversation(id),
            "m" => Self::Members(id),
            "i" => Self::Memberships(id),
            "p" => Self::Profile(id),
            "s" => Self::Sessions(id),
            _ => return None,
        })
    }

    /// Whether events of this shard may move it.
    fn may_move_in(self, place: &Position, shard_of: &ShardOf) -> bool {
        let topic = match self {
            Self::Conversation(_) | Self::Members(_) | Self::Memberships(_) => Topic::Conversations,
            Self::Profile(_) | Self::Sessions(_) => Topic::Users,
        };
        topic == place.topic
            && match self {
                // Conversations of any shard.
                Self::Memberships(_) => true,
                Self::Conversation(id) | Self::Members(id) | Self::Profile(id) | Self::Sessions(id) => {
                    shard_of(id) == place.shard
                }
            }
    }
}

/// To whom an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One user.
    User(Uuid),
    /// Every member of a conversation.
    Conversation(Uuid),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How far the read models had got before its data were read, in every shard that it is made from.
    pub as_of: PositionToken,
    /// What it is made from.
    pub parts: Vec<Part>,
    /// The body.
    pub body: Vec<u8>,
}

/// The answers; cheap to clone.
#[derive(Clone)]
pub struct Answers {
    redis: Redis,
    shard_of: ShardOf,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("redis", &self.redis).finish_non_exhaustive()
    }
}

impl Answers {
    /// Those that this Redis keeps.
    pub fn new(redis: Redis, shard_of: ShardOf) -> Self {
        metrics::describe_counter!("parlance_cache_total", "Answers looked for in the cache, by what was found.");
        Self { redis, shard_of }
    }

    fn key(&self, owner: Owner, name: &str) -> String {
        let (kind, id) = match owner {
            Owner::User(id) => ("user", id),
            Owner::Conversation(id) => ("conversation", id),
        };
        self.redis.key(&format!("answer:{{{kind}:{id}}}:{name}"))
    }

    /// An answer, if one is kept that is as good as what was applied by `now`: by all that is known here of the shards
    /// that it is made from.
    pub async fn get(&self, owner: Owner, name: &str, now: &PositionToken) -> Option<Kept> {
        let found = self.find(owner, name, now).await;
        let outcome = match &found {
            Ok(_) => "good",
            Err(outcome) => outcome,
        };
        let list = name.split(':').next().unwrap_or_default().to_owned();
        metrics::counter!("parlance_cache_total", "list" => list, "outcome" => outcome).increment(1);
        found.ok()
    }

    async fn find(&self, owner: Owner, name: &str, now: &PositionToken) -> Result<Kept, &'static str> {
        let key = self.key(owner, name);
        let stored: Result<Option<Vec<u8>>, _> = self.redis.ask(&key, redis::cmd("GET").arg(&key), BOUND).await;
        let kept = decode(&stored.map_err(|_| "away")?.ok_or("none")?).ok_or("none")?;
        if self.has_all(&kept, now).await? { Ok(kept) } else { Err("outdated") }
    }

    /// Whether nothing of an answer was moved by what was applied since.
    async fn has_all(&self, kept: &Kept, now: &PositionToken) -> Result<bool, &'static str> {
        let nodes = self.redis.nodes();
        let mut asked: Vec<(Pipeline, Vec<Proof>)> = nodes.all.iter().map(|_| (redis::pipe(), Vec::new())).collect();
        for place in now.places() {
            let has = position_in(&kept.as_of, place);
            if has >= place.position {
                continue;
            }
            let key = marks::key(&self.redis, place.topic, place.shard);
            let node = nodes.place_of(key.as_bytes()).and_then(|node| asked.get_mut(node));
            let (questions, proofs) = node.ok_or("away")?;
            let question = questions.cmd("ZMSCORE").arg(key).arg(marks::FROM).arg(marks::TO);
            for part in kept.parts.iter().filter(|part| part.may_move_in(place, &self.shard_of)) {
                question.arg(part.name());
            }
            proofs.push(Proof { has, applied: place.position });
        }
        for (node, (questions, proofs)) in nodes.all.iter().zip(asked).filter(|(_, (_, proofs))| !proofs.is_empty()) {
            let marks = self.redis.ask_all(node, &questions, BOUND).await.map_err(|_| "away")?;
            if marks.len() != proofs.len() || !marks.into_iter().zip(&proofs).all(|(marks, proof)| proof.is_in(marks)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps an answer, if anything was applied by then, and if it is not made from too much.
    pub async fn put(&self, owner: Owner, name: &str, kept: &Kept) {
        if kept.parts.len() > PARTS || kept.as_of.places().is_empty() {
            return;
        }
        let key = self.key(owner, name);
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(encode(kept)).arg("EX").arg(KEPT.as_secs());
        if let Err(error) = self.redis.ask::<()>(&key, &command, BOUND).await {
            tracing::debug!(%error, "an answer is not kept");
        }
    }
}

/// How far a token has got in a shard.
fn position_in(token: &PositionToken, place: &Position) -> u64 {
    let mut places = token.places().iter();
    places.find(|other| (other.topic, other.shard) == (place.topic, place.shard)).map_or(0, |other| other.position)
}

/// What marks of a shard have to prove: that between what an answer has and what is applied nothing of it moved.
struct Proof {
    has: u64,
    applied: u64,
}

impl Proof {
    /// Whether these marks do: where they begin and end, then those of the parts.
    fn is_in(&self, marks: Value) -> bool {
        let Ok(marks) = redis::from_redis_value::<Vec<Option<u64>>>(marks) else { return false };
        let [Some(from), Some(to), parts @ ..] = marks.as_slice() else { return false };
        *from <= self.has && *to >= self.applied && parts.iter().flatten().all(|moved| *moved <= self.has)
    }
}

/// A line each for version, position and parts, then the body.
fn encode(kept: &Kept) -> Vec<u8> {
    let parts: Vec<String> = kept.parts.iter().map(|part| part.name()).collect();
    let mut bytes = format!("2\n{}\n{}\n", kept.as_of, parts.join(",")).into_bytes();
    bytes.extend(&kept.body);
    bytes
}

fn decode(stored: &[u8]) -> Option<Kept> {
    let mut lines = stored.splitn(4, |byte| *byte == b'\n');
    if lines.next()? != b"2" {
        return None;
    }
    let as_of = str::from_utf8(lines.next()?).ok()?.parse().ok()?;
    let parts = str::from_utf8(lines.next()?).ok()?.split(',').map(Part::from_name).collect::<Option<_>>()?;
    Some(Kept { as_of, parts, body: lines.next()?.to_vec() })
}
