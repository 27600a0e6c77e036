//! Who is in conversations: the members of small ones, how many the others have; those lately asked for, kept by events.
//!
//! Events of a conversation are numbered without a gap, so that what was missed shows, and is looked up again.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use platform::live::WIDE;
use schemas::{Body, Event, Numbered, ReceiptMoved, Record};
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

/// Members of conversations up to this size are known by name: some more than those that are told each on their own,
/// so that nobody is missed while a conversation grows past that.
pub(super) const NAMED: usize = WIDE + 28;
const CONVERSATIONS: NonZeroUsize = NonZeroUsize::new(65_536).expect("more than none");
/// Names of all conversations together: 16 MB.
const NAMES: usize = 1_000_000;
/// How long what is known to be wrong may stay so, where the read model lags behind the bus.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whoever hears of something, by name; `None` if there are too many, or it is not known.
pub(super) type Audience = Option<Arc<[Uuid]>>;

pub(super) struct Members {
    pool: PgPool,
    /// Whether anybody asks for names.
    by_name: bool,
    known: LruCache<Uuid, Known>,
    /// Names in `known`.
    names: usize,
}

struct Known {
    count: u64,
    /// Up to [`NAMED`].
    names: Audience,
    /// The numbered event up to which it is so.
    seq: u64,
    /// Something before `seq` was missed.
    torn: bool,
    looked_up: Instant,
}

/// What the read model says: a conversation, how many members it has, up to which event, and who they are.
type Row = (Uuid, i32, i64, Option<Vec<Uuid>>);

impl Members {
    pub(super) fn new(pool: PgPool, by_name: bool) -> Self {
        Self { pool, by_name, known: LruCache::new(CONVERSATIONS), names: 0 }
    }

    /// Makes known the conversations of `records` that somebody will ask for.
    pub(super) async fn prepare(&mut self, records: &[Arc<Record>]) {
        let now = Instant::now();
        let asked = records.iter().filter_map(|record| match &record.event {
            Event::MessageDelivered(moved) | Event::MessageRead(moved) => Some(moved.conversation_id),
            Event::Numbered(event) if self.by_name && !matches!(event.body, Body::Created(_)) => {
                Some(event.conversation_id)
            }
            _ => None,
        });
        let is_known = |known: &Known| !known.torn || now - known.looked_up < PATIENCE;
        let mut unknown: Vec<Uuid> = asked.filter(|id| !self.known.peek(id).is_some_and(is_known)).collect();
        if unknown.is_empty() {
            return;
        }
        unknown.sort_unstable();
        unknown.dedup();
        match self.look_up(&unknown).await {
            Ok(rows) => {
                for (id, count, seq, names) in rows {
                    let (count, seq) = (u64::try_from(count).unwrap_or(0), seq.cast_unsigned());
                    let names = names.map(Into::into);
                    self.put(id, Known { count, names, seq, torn: false, looked_up: now });
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "members cannot be read: some are told later, receipts go to their users alone");
            }
        }
    }

    async fn look_up(&self, conversations: &[Uuid]) -> Result<Vec<Row>, sqlx::Error> {
        // One statement, and so one moment of both tables.
        sqlx::query_as(
            "SELECT conversation_id, member_count, last_seq, \
                    CASE WHEN member_count <= $2 THEN \
                        ARRAY(SELECT m.user_id FROM read.members m \
                               WHERE m.conversation_id = c.conversation_id AND m.left_seq IS NULL) END \
               FROM read.conversations c WHERE conversation_id = ANY($1)",
        )
        .bind(conversations)
        .bind(if self.by_name { i32::try_from(NAMED).unwrap_or(i32::MAX) } else { -1 })
        .fetch_all(&self.pool)
        .await
    }

    /// Follows who comes and goes; with those who hear of the event: who comes with it, and who leaves.
    pub(super) fn note(&mut self, event: &Numbered) -> Audience {
        let id = event.conversation_id;
        if let Body::Created(created) = &event.body {
            let members = created.members.iter().map(|member| member.user_id);
            let names: Audience = (self.by_name && created.members.len() <= NAMED).then(|| members.collect());
            if !self.known.contains(&id) {
                let (count, seq, looked_up) = (created.members.len() as u64, event.seq, Instant::now());
                self.put(id, Known { count, names: names.clone(), seq, torn: false, looked_up });
            }
            return names;
        }
        let known = self.known.get_mut(&id)?;
        let before = known.names.clone();
        if event.seq > known.seq {
            known.torn |= event.seq != known.seq + 1;
            known.seq = event.seq;
            match &event.body {
                Body::MemberJoined(joined) => known.joins(joined.user_id),
                Body::MemberLeft(left) => {
                    known.leaves(left.user_id);
                    // Few enough to be known by name from here on.
                    known.torn |= self.by_name && known.names.is_none() && known.count <= NAMED as u64;
                }
                Body::Created(_)
                | Body::Renamed(_)
                | Body::SettingsChanged(_)
                | Body::MemberRoleChanged(_)
                | Body::MessageSent(_) => {}
            }
            self.names = self.names + size(&known.names) - size(&before);
        }
        let (names, concerned) = match &event.body {
            Body::MemberJoined(joined) => (known.names.clone()?, joined.user_id),
            Body::MemberLeft(left) => (before?, left.user_id),
            Body::Created(_)
            | Body::Renamed(_)
            | Body::SettingsChanged(_)
            | Body::MemberRoleChanged(_)
            | Body::MessageSent(_) => return known.names.clone(),
        };
        Some(if names.contains(&concerned) { names } else { with(&names, concerned) })
    }

    /// How many members the conversation of a receipt has, and who they are.
    pub(super) fn of(&mut self, receipt: &ReceiptMoved) -> Option<(u64, Audience)> {
        let known = self.known.get_mut(&receipt.conversation_id)?;
        known.torn |= receipt.up_to > known.seq;
        Some((known.count, known.names.clone()))
    }

    fn put(&mut self, id: Uuid, known: Known) {
        self.names += size(&known.names);
        // What it pushes out, or what was known before.
        let gone = self.known.push(id, known);
        self.names -= gone.map_or(0, |(_, known)| size(&known.names));
        while self.names > NAMES {
            let oldest = self.known.pop_lru();
            self.names -= oldest.map_or(self.names, |(_, known)| size(&known.names));
        }
    }
}

impl Known {
    fn joins(&mut self, user_id: Uuid) {
        self.count += 1;
        self.names = self.names.take().filter(|names| names.len() < NAMED).map(|names| with(&names, user_id));
    }

    fn leaves(&mut self, user_id: Uuid) {
        self.count = self.count.saturating_sub(1);
        let names = self.names.take();
        self.names = names.map(|names| names.iter().copied().filter(|name| *name != user_id).collect());
    }
}

fn with(names: &[Uuid], another: Uuid) -> Arc<[Uuid]> {
    names.iter().copied().chain([another]).collect()
}

fn size(names: &Audience) -> usize {
    names.as_ref().map_or(0, |names| names.len())
}
