//! What the gateway reads and keeps in PostgreSQL: memberships, pages of events, watermarks, devices and their cursors.

mod cursors;
mod pages;

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::protocol::event::Receipt;
use super::session::{Cursor, Stay, Stored};
use crate::reads::Reads;
pub(crate) use cursors::Cursors;

/// In larger conversations only the own watermarks are told.
const RECEIPTS_TO_ALL: i32 = 100;

/// The gateway's statements; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    reads: Reads,
    /// That of shared state.
    pool: PgPool,
}

/// A number as PostgreSQL has it.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as we have it.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

type StayRow = (Uuid, i64, i64, i64, i32);

impl Store {
    pub(crate) fn new(reads: Reads, pool: PgPool) -> Self {
        Self { reads, pool }
    }

    /// What is stored of a device, its cursors apart, which come with it from [`Cursors`].
    ///
    /// And whether the read models are whole: they are not where they know nothing of a conversation that the device was
    /// in.
    pub(crate) async fn stored(
        &self,
        user_id: Uuid,
        cursors: Vec<Cursor>,
        device_id: Uuid,
        given: &[(Uuid, u64)],
    ) -> Result<(Stored, bool), sqlx::Error> {
        let known: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM state.devices WHERE user_id = $1 AND device_id = $2)")
                .bind(user_id)
                .bind(device_id)
                .fetch_one(&self.pool)
                .await?;
        let stays = self.stays(user_id).await?;
        let elsewhere = |id: &Uuid| stays.iter().all(|stay| stay.conversation_id != *id);
        let named = given.iter().map(|(id, _)| *id);
        let mut former: Vec<Uuid> = cursors.iter().map(|cursor| cursor.conversation_id).chain(named).collect();
        former.retain(elsewhere);
        if !former.is_empty() {
            let among = &former;
            let query = |pool| async move {
                sqlx::query_scalar(
                    "SELECT DISTINCT conversation_id FROM read.members
                      WHERE user_id = $1 AND conversation_id = ANY($2)",
                )
                .bind(user_id)
                .bind(among)
                .fetch_all(&pool)
                .await
            };
            former = self.reads.read(query).await?;
        }
        let whole =
            cursors.iter().map(|cursor| &cursor.conversation_id).all(|id| !elsewhere(id) || former.contains(id));
        Ok((Stored { known, stays, cursors, former }, whole))
    }

    /// The conversations that a user is in.
    pub(crate) async fn stays(&self, user_id: Uuid) -> Result<Vec<Stay>, sqlx::Error> {
        let query = |pool| async move {
            sqlx::query_as(
                "SELECT m.conversation_id, m.joined_seq, c.last_seq, coalesce(r.delivered_to, m.joined_seq),
                    c.member_count
               FROM read.members m
               JOIN read.conversations c ON c.conversation_id = m.conversation_id
               LEFT JOIN read.receipts r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id
                                        AND r.left_seq IS NULL
              WHERE m.user_id = $1 AND m.left_seq IS NULL",
            )
            .bind(user_id)
            .fetch_all(&pool)
            .await
        };
        let rows: Vec<StayRow> = self.reads.read(query).await?;
        let stay = |(conversation_id, joined, head, delivered_to, members): StayRow| Stay {
            conversation_id,
            joined: count(joined),
            head: count(head),
            delivered_to: count(delivered_to),
            members: members.cast_unsigned(),
        };
        Ok(rows.into_iter().map(stay).collect())
    }

    /// The conversations that these users are in: each user with the stay, without their watermark.
    pub(crate) async fn stays_of_all(&self, users: &[Uuid]) -> Result<Vec<(Uuid, Stay)>, sqlx::Error> {
        let query = |pool| async move {
            sqlx::query_as(
                "SELECT m.user_id, m.conversation_id, m.joined_seq, c.last_seq, c.member_count
               FROM read.members m JOIN read.conversations c ON c.conversation_id = m.conversation_id
              WHERE m.user_id = ANY($1) AND m.left_seq IS NULL",
            )
            .bind(users)
            .fetch_all(&pool)
            .await
        };
        let rows: Vec<(Uuid, Uuid, i64, i64, i32)> = self.reads.read(query).await?;
        let stay = |(user_id, conversation_id, joined, head, members): (Uuid, Uuid, i64, i64, i32)| {
            let (joined, head, members) = (count(joined), count(head), members.cast_unsigned());
            (user_id, Stay { conversation_id, joined, head, delivered_to: joined, members })
        };
        Ok(rows.into_iter().map(stay).collect())
    }

    /// Those of these conversations where a watermark moved since then.
    pub(crate) async fn receipts_since(
        &self,
        conversations: &[Uuid],
        since: OffsetDateTime,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let query = |pool| async move {
            sqlx::query_scalar(
                "SELECT DISTINCT conversation_id FROM read.receipts
                  WHERE conversation_id = ANY($1) AND greatest(delivered_at, read_at) > $2",
            )
            .bind(conversations)
            .bind(since)
            .fetch_all(&pool)
            .await
        };
        self.reads.read(query).await
    }

    /// The watermarks that a user is told: those that moved since the given times.
    pub(crate) async fn receipts(
        &self,
        user_id: Uuid,
        conversations: &[(Uuid, Option<OffsetDateTime>)],
    ) -> Result<Vec<Receipt>, sqlx::Error> {
        let (ids, since): (Vec<Uuid>, Vec<Option<OffsetDateTime>>) = conversations.iter().copied().unzip();
        let (ids, since) = (&ids, &since);
        let query = |pool| async move {
            sqlx::query_as(
                "WITH wanted AS (
                 SELECT w.conversation_id, w.since, c.member_count
                   FROM unnest($1::uuid[], $2::timestamptz[]) AS w(conversation_id, since)
                   JOIN read.conversations c ON c.conversation_id = w.conversation_id
             )
             SELECT r.conversation_id, r.user_id, r.delivered_to, r.read_to, greatest(r.delivered_at, r.read_at)
               FROM wanted w JOIN read.receipts r ON r.conversation_id = w.conversation_id
              WHERE w.member_count <= $4 AND r.left_seq IS NULL
                AND (w.since IS NULL OR greatest(r.delivered_at, r.read_at) > w.since)
                AND greatest(r.delivered_at, r.read_at) IS NOT NULL
             UNION ALL
             SELECT r.conversation_id, r.user_id, r.delivered_to, r.read_to, greatest(r.delivered_at, r.read_at)
               FROM wanted w JOIN read.receipts r ON r.conversation_id = w.conversation_id AND r.user_id = $3
              WHERE w.member_count > $4 AND r.left_seq IS NULL
                AND (w.since IS NULL OR greatest(r.delivered_at, r.read_at) > w.since)
                AND greatest(r.delivered_at, r.read_at) IS NOT NULL",
            )
            .bind(ids)
            .bind(since)
            .bind(user_id)
            .bind(RECEIPTS_TO_ALL)
            .fetch_all(&pool)
            .await
        };
        let rows: Vec<(Uuid, Uuid, i64, i64, OffsetDateTime)> = self.reads.read(query).await?;
        Ok(rows
            .into_iter()
            .map(|(conversation_id, user_id, delivered_to, read_to, at)| {
                Receipt::new(conversation_id, user_id, (count(delivered_to), count(read_to)), at)
            })
            .collect())
    }
}
