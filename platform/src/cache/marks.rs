//! Marking what moved: a sorted set a shard, of the parts that moved there with their last positions.
//!
//! The set itself says of which positions it is the whole truth: all between `from` and `to` were marked in it. What
//! lets marks get lost (an emptied Redis, a batch that it did not take, one who tells further on) breaks that span, and
//! never passes for silence.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use schemas::{Body, Event, Numbered, Record, Topic};
use tokio::time::Instant;

use super::Part;
use crate::redis::{Nodes, Redis};

/// How long the marks of a batch may take; what is not set by then is not claimed to be.
const BOUND: Duration = Duration::from_millis(750);
/// So many of the last positions of a shard are told apart; what is older counts as moved.
const SPAN: u64 = 4096;
/// How long the marks of a shard outlive its last one; an answer that is older is gone long before.
const STAND: Duration = Duration::from_mins(1);
/// The parts of one command, and of what is sent in one piece.
const PARTS_OF_A_COMMAND: usize = 4096;
const PARTS_OF_A_PIECE: usize = 16_384;

/// The members that say of which positions, after the one and up to the other, all marks are in the set.
pub(super) const FROM: &str = "from";
pub(super) const TO: &str = "to";

/// Sets marks of all positions after `ARGV[1]` and up to `ARGV[2]`; they only rise. What joins on to the span, or lies
/// over it, widens it; what lies beyond it begins another.
const MARK: &str = "
    local before, upto = tonumber(ARGV[1]), tonumber(ARGV[2])
    for n = 5, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'GT', ARGV[n + 1], ARGV[n]) end
    local from = tonumber(redis.call('ZSCORE', KEYS[1], 'from') or before)
    local to = tonumber(redis.call('ZSCORE', KEYS[1], 'to') or before)
    if before > to then
        from, to = before, upto
    elseif upto >= from then
        from, to = math.min(from, before), math.max(to, upto)
    end
    if to - ARGV[3] > from then
        from = to - ARGV[3]
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', from)
    end
    redis.call('ZADD', KEYS[1], string.format('%.0f', from), 'from', string.format('%.0f', to), 'to')
    redis.call('EXPIRE', KEYS[1], ARGV[4])";

/// Where the marks of a shard stand.
pub(super) fn key(redis: &Redis, topic: Topic, shard: u16) -> String {
    redis.key(&format!("moved:{{{}.{shard}}}", topic.code()))
}

/// Marks what records say that moved; cheap to clone.
#[derive(Clone, Debug)]
pub struct Marks {
    redis: Redis,
}

/// What one command marks: some positions of a shard without a gap.
struct Span {
    before: u64,
    upto: u64,
    parts: HashMap<Part, u64>,
}

impl Marks {
    /// Those in this Redis.
    pub fn new(redis: Redis) -> Self {
        metrics::describe_counter!("parlance_cache_marks_total", "Records whose marks Redis took.");
        metrics::describe_counter!(
            "parlance_cache_marks_lost_total",
            "Records whose marks Redis did not take in time."
        );
        Self { redis }
    }

    /// Marks all that these records move, by shard in order; in a bounded time, whatever becomes of it.
    pub async fn set(&self, records: &[Arc<Record>]) {
        let end = Instant::now() + BOUND;
        let mut piece = Piece::new(self.redis.nodes());
        for ((topic, shard), spans) in spans(records) {
            let key = key(&self.redis, topic, shard);
            for span in spans {
                piece.add(&key, &span);
                if piece.parts >= PARTS_OF_A_PIECE {
                    piece.send(&self.redis, end).await;
                }
            }
        }
        piece.send(&self.redis, end).await;
    }
}

/// What is to be sent next.
struct Piece {
    nodes: Arc<Nodes>,
    /// One for each node, and the records that it speaks of.
    pipelines: Vec<(Pipeline, u64)>,
    parts: usize,
}

impl Piece {
    fn new(nodes: Arc<Nodes>) -> Self {
        let pipelines = nodes.all.iter().map(|_| (redis::pipe(), 0)).collect();
        Self { nodes, pipelines, parts: 0 }
    }

    fn add(&mut self, key: &str, span: &Span) {
        let records = span.upto - span.before;
        let place = self.nodes.place_of(key.as_bytes());
        let Some((pipeline, told)) = place.and_then(|place| self.pipelines.get_mut(place)) else {
            lost(records);
            return;
        };
        pipeline.add_command(span.command(key));
        *told += records;
        self.parts += span.parts.len();
    }

    /// Sends it, and begins the next.
    async fn send(&mut self, redis: &Redis, end: Instant) {
        let sent = std::mem::replace(self, Self::new(Arc::clone(&self.nodes)));
        let bound = end.saturating_duration_since(Instant::now());
        let each = sent.nodes.all.iter().zip(&sent.pipelines).filter(|(_, (pipeline, _))| !pipeline.is_empty());
        futures::future::join_all(each.map(|(node, (pipeline, records))| async move {
            match redis.ask_all(node, pipeline, bound).await {
                Ok(answers) if !answers.iter().any(|answer| matches!(answer, Value::ServerError(_))) => {
                    metrics::counter!("parlance_cache_marks_total").increment(*records);
                }
                _ => lost(*records),
            }
        }))
        .await;
    }
}

fn lost(records: u64) {
    metrics::counter!("parlance_cache_marks_lost_total").increment(records);
}

impl Span {
    fn command(&self, key: &str) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(MARK).arg(1).arg(key).arg(self.before).arg(self.upto).arg(SPAN).arg(STAND.as_secs());
        for (part, position) in &self.parts {
            command.arg(part.name()).arg(position);
        }
        command
    }
}

/// What records move, by shard.
fn spans(records: &[Arc<Record>]) -> BTreeMap<(Topic, u16), Vec<Span>> {
    let mut shards: BTreeMap<_, Vec<Span>> = BTreeMap::new();
    for record in records {
        let spans = shards.entry((record.topic, record.shard)).or_default();
        let goes_on = |span: &Span| span.upto + 1 == record.position && span.parts.len() < PARTS_OF_A_COMMAND;
        if !spans.last().is_some_and(goes_on) {
            let before = record.position.saturating_sub(1);
            spans.push(Span { before, upto: before, parts: HashMap::new() });
        }
        let Some(span) = spans.last_mut() else { continue };
        span.upto = record.position;
        moves(record, |part| {
            span.parts.insert(part, record.position);
        });
    }
    shards
}

/// Tells which parts a record moves.
fn moves(record: &Record, mut tell: impl FnMut(Part)) {
    match &record.event {
        Event::UserRegistered(registered) => tell(Part::Profile(registered.user_id)),
        Event::UserProfileChanged(changed) => tell(Part::Profile(changed.user_id)),
        Event::SessionStarted(session) | Event::SessionRefreshed(session) | Event::SessionRevoked(session) => {
            tell(Part::Sessions(session.user_id));
        }
        // No answer shows these; a revocation follows the reuse.
        Event::UserPasswordChanged(_)
        | Event::UserRoleGranted(_)
        | Event::UserRoleRevoked(_)
        | Event::AuditRead(_)
        | Event::SessionReuseDetected(_) => {}
        Event::MessageDelivered(moved) | Event::MessageRead(moved) => tell(Part::Conversation(moved.conversation_id)),
        Event::Numbered(event) => {
            tell(Part::Conversation(event.conversation_id));
            numbered(event, tell);
        }
    }
}

fn numbered(event: &Numbered, mut tell: impl FnMut(Part)) {
    let members = Part::Members(event.conversation_id);
    match &event.body {
        Body::Created(created) => {
            tell(members);
            created.members.iter().for_each(|member| tell(Part::Memberships(member.user_id)));
        }
        Body::MemberJoined(joined) => [members, Part::Memberships(joined.user_id)].into_iter().for_each(tell),
        Body::MemberLeft(left) => [members, Part::Memberships(left.user_id)].into_iter().for_each(tell),
        Body::MemberRoleChanged(_) => tell(members),
        Body::Renamed(_) | Body::SettingsChanged(_) | Body::MessageSent(_) => {}
    }
}
