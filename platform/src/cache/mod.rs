//! Answers that are kept in Redis for a while, and what of theirs moved since.
//!
//! Whoever tells what happened marks the conversations and users concerned with its position. An answer is good only
//! while its own position, which was read before its data, covers all marks of what it was made from: so it does not
//! matter whether a mark or an answer comes first. What a lost mark would have told is found out after `KEPT`.

mod marks;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use schemas::{Position, PositionToken};
use uuid::Uuid;

use crate::redis::Redis;
pub(crate) use marks::marks;

/// How long an answer is good at most.
const KEPT: Duration = Duration::from_secs(10);
/// How long a mark stands: longer than any answer that is older.
pub(crate) const MARKED: Duration = Duration::from_secs(30);
/// How long Redis may take; the database does not take much longer.
const BOUND: Duration = Duration::from_millis(50);
/// An answer of more parts is not kept: it would be outdated at once.
const PARTS: usize = 256;

/// What an answer is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A conversation, with all that is in it.
    Conversation(Uuid),
    /// Which conversations a user is in.
    Memberships(Uuid),
}

impl Part {
    /// Where its marks stand.
    pub(crate) fn key(self, redis: &Redis) -> String {
        match self {
            Self::Conversation(id) => redis.key(&format!("moved:{{conversation:{id}}}")),
            Self::Memberships(id) => redis.key(&format!("moved:{{user:{id}}}:memberships")),
        }
    }
}

/// A mark's field: a shard moves by its own positions.
pub(crate) fn field(place: Position) -> String {
    format!("{}.{}", place.topic.code(), place.shard)
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How far the read model had got before its data were read.
    pub position: PositionToken,
    /// The body.
    pub body: Vec<u8>,
}

/// The answers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers {
    redis: Redis,
}

impl Answers {
    /// Those that this Redis keeps.
    pub fn new(redis: Redis) -> Self {
        metrics::describe_counter!("parlance_cache_total", "Answers looked for in the cache, by what was found.");
        Self { redis }
    }

    fn key(&self, user_id: Uuid, name: &str) -> String {
        self.redis.key(&format!("answer:{{user:{user_id}}}:{name}"))
    }

    /// An answer to a user, if one is kept that nothing happened to since.
    pub async fn get(&self, user_id: Uuid, name: &str) -> Option<Kept> {
        let found = self.find(user_id, name).await;
        let outcome = match &found {
            Ok(_) => "good",
            Err(outcome) => outcome,
        };
        metrics::counter!("parlance_cache_total", "outcome" => outcome).increment(1);
        found.ok()
    }

    async fn find(&self, user_id: Uuid, name: &str) -> Result<Kept, &'static str> {
        let key = self.key(user_id, name);
        let stored: Result<Option<Vec<u8>>, _> = self.redis.ask(&key, redis::cmd("GET").arg(&key), BOUND).await;
        let stored = stored.map_err(|_| "away")?.ok_or("none")?;
        let (kept, parts) = decode(&stored).ok_or("none")?;
        let nodes = self.redis.nodes();
        for node in &nodes.all {
            let mut questions = redis::pipe();
            for key in parts.iter().map(|part| part.key(&self.redis)) {
                if nodes.of(key.as_bytes()).is_some_and(|other| Arc::ptr_eq(other, node)) {
                    questions.cmd("HGETALL").arg(key);
                }
            }
            if questions.is_empty() {
                continue;
            }
            let marks = self.redis.ask_all(node, &questions, BOUND).await.map_err(|_| "away")?;
            if !marks.into_iter().all(|marks| covers(&kept.position, marks)) {
                return Err("outdated");
            }
        }
        Ok(kept)
    }

    /// Keeps an answer that was made from these parts.
    pub async fn put(&self, user_id: Uuid, name: &str, kept: &Kept, parts: &[Part]) {
        if parts.len() > PARTS {
            return;
        }
        let key = self.key(user_id, name);
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(encode(kept, parts)).arg("EX").arg(KEPT.as_secs());
        if let Err(error) = self.redis.ask::<()>(&key, &command, BOUND).await {
            tracing::debug!(%error, "an answer is not kept");
        }
    }
}

/// Whether a position covers marks, which are fields and positions.
fn covers(position: &PositionToken, marks: Value) -> bool {
    let Ok(marks) = redis::from_redis_value::<Vec<(String, u64)>>(marks) else { return false };
    marks
        .into_iter()
        .all(|(shard, moved)| position.places().iter().any(|place| field(*place) == shard && place.position >= moved))
}

/// A line each for version, position and parts, then the body.
fn encode(kept: &Kept, parts: &[Part]) -> Vec<u8> {
    let parts: Vec<String> = parts
        .iter()
        .map(|part| match part {
            Part::Conversation(id) => format!("c{id}"),
            Part::Memberships(id) => format!("m{id}"),
        })
        .collect();
    let mut bytes = format!("1\n{}\n{}\n", kept.position, parts.join(",")).into_bytes();
    bytes.extend(&kept.body);
    bytes
}

fn decode(stored: &[u8]) -> Option<(Kept, Vec<Part>)> {
    let mut lines = stored.splitn(4, |byte| *byte == b'\n');
    if lines.next()? != b"1" {
        return None;
    }
    let position = str::from_utf8(lines.next()?).ok()?.parse().ok()?;
    let part = |text: &str| {
        let id = |rest: &str| rest.parse::<Uuid>().ok();
        match text.split_at_checked(1)? {
            ("c", rest) => id(rest).map(Part::Conversation),
            ("m", rest) => id(rest).map(Part::Memberships),
            _ => None,
        }
    };
    let parts = str::from_utf8(lines.next()?).ok()?.split(',').map(part).collect::<Option<_>>()?;
    Some((Kept { position, body: lines.next()?.to_vec() }, parts))
}
