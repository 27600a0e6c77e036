//! How many members conversations have: those lately asked for, kept by events.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use schemas::{Body, Event, Numbered, Record};
use sqlx::PgPool;
use uuid::Uuid;

const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).expect("more than none");

pub(super) struct MemberCounts {
    pool: PgPool,
    known: LruCache<Uuid, Count>,
}

struct Count {
    members: u64,
    /// The numbered event up to which it counts.
    seq: u64,
}

impl MemberCounts {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool, known: LruCache::new(KEPT) }
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Makes the counts of conversations known whose receipts are among `records`.
    pub(super) async fn prepare(&mut self, records: &[Arc<Record>]) {
        let receipts = records.iter().filter_map(|record| match &record.event {
            Event::MessageDelivered(moved) | Event::MessageRead(moved) => Some(moved.conversation_id),
            _ => None,
        });
        let mut unknown: Vec<Uuid> = receipts.filter(|id| !self.known.contains(id)).collect();
        if unknown.is_empty() {
            return;
        }
        unknown.sort_unstable();
        unknown.dedup();
        let rows: Result<Vec<(Uuid, i32, i64)>, _> = sqlx::query_as(
            "SELECT conversation_id, member_count, last_seq FROM read.conversations WHERE conversation_id = ANY($1)",
        )
        .bind(&unknown)
        .fetch_all(&self.pool)
        .await;
        match rows {
            Ok(rows) => {
                for (id, members, seq) in rows {
                    let members = u64::try_from(members).unwrap_or(0);
                    self.known.put(id, Count { members, seq: seq.cast_unsigned() });
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "member counts cannot be read: receipts go to their users alone");
            }
        }
    }

    /// Follows who comes and goes.
    pub(super) fn note(&mut self, event: &Numbered) {
        let change = match &event.body {
            Body::Created(created) => {
                let members = created.members.len() as u64;
                self.known.put(event.conversation_id, Count { members, seq: event.seq });
                return;
            }
            Body::MemberJoined(_) => 1,
            Body::MemberLeft(_) => -1,
            Body::Renamed(_) | Body::SettingsChanged(_) | Body::MemberRoleChanged(_) | Body::MessageSent(_) => return,
        };
        if let Some(count) = self.known.peek_mut(&event.conversation_id)
            && event.seq > count.seq
        {
            count.members = count.members.saturating_add_signed(change);
            count.seq = event.seq;
        }
    }

    pub(super) fn get(&mut self, conversation_id: Uuid) -> Option<u64> {
        self.known.get(&conversation_id).map(|count| count.members)
    }
}
