//! What devices have durably taken: written in the background, many devices in one statement.
//!
//! Losing what was not written yet makes a device get events again; it never skips one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{bigint, count};
use crate::gateway::session::Cursor;

/// How long cursors gather before they are written.
const PACE: Duration = Duration::from_secs(1);
/// How long a device that went waits for others that go.
const SOON: Duration = Duration::from_millis(20);
/// Rows in one statement.
const AT_ONCE: usize = 5_000;

type Device = (Uuid, Uuid);

/// The cursors of all devices; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Cursors {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    unwritten: Mutex<Unwritten>,
    any: Notify,
    soon: Notify,
    /// Held by the one who writes.
    writing: tokio::sync::Mutex<()>,
}

type Changes = HashMap<Device, HashMap<Uuid, Change>>;

#[derive(Debug, Default)]
struct Unwritten {
    waiting: Changes,
    /// Being written.
    under_way: Changes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Keep(Cursor),
    Forget,
}

impl Cursors {
    pub(crate) fn new(pool: PgPool) -> Self {
        let (any, soon) = (Notify::new(), Notify::new());
        Self {
            inner: Arc::new(Inner {
                pool,
                unwritten: Mutex::default(),
                any,
                soon,
                writing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Keeps a device's cursor.
    pub(crate) fn keep(&self, user_id: Uuid, device_id: Uuid, cursor: Cursor) {
        self.change(user_id, device_id, cursor.conversation_id, Change::Keep(cursor));
    }

    /// Forgets a device's cursor.
    pub(crate) fn forget(&self, user_id: Uuid, device_id: Uuid, conversation_id: Uuid) {
        self.change(user_id, device_id, conversation_id, Change::Forget);
    }

    fn change(&self, user_id: Uuid, device_id: Uuid, conversation_id: Uuid, change: Change) {
        let mut unwritten = self.inner.unwritten.lock();
        let first = unwritten.waiting.is_empty();
        merge(unwritten.waiting.entry((user_id, device_id)).or_default().entry(conversation_id), change);
        drop(unwritten);
        if first {
            self.inner.any.notify_one();
        }
    }

    /// A device went: what it said last is written soon.
    pub(crate) fn hurry(&self) {
        self.inner.soon.notify_one();
    }

    /// A device's cursors, those not written yet among them.
    pub(crate) async fn of(&self, user_id: Uuid, device_id: Uuid) -> Result<Vec<Cursor>, sqlx::Error> {
        // First what is not written, then what is: what moves from the one to the other meanwhile is seen twice.
        let unwritten = self.unwritten((user_id, device_id));
        let rows: Vec<(Uuid, Option<i64>, i64, Option<OffsetDateTime>)> = sqlx::query_as(
            "SELECT conversation_id, joined_seq, acked, acked_at FROM state.device_cursors
              WHERE user_id = $1 AND device_id = $2",
        )
        .bind(user_id)
        .bind(device_id)
        .fetch_all(&self.inner.pool)
        .await?;
        let mut changes: HashMap<Uuid, Change> = rows
            .into_iter()
            .map(|(conversation_id, joined, acked, acked_at)| {
                let cursor = Cursor { conversation_id, joined: joined.map(count), acked: count(acked), acked_at };
                (conversation_id, Change::Keep(cursor))
            })
            .collect();
        for (conversation_id, change) in unwritten {
            merge(changes.entry(conversation_id), change);
        }
        let kept = |change| if let Change::Keep(cursor) = change { Some(cursor) } else { None };
        Ok(changes.into_values().filter_map(kept).collect())
    }

    fn unwritten(&self, device: Device) -> Vec<(Uuid, Change)> {
        let unwritten = self.inner.unwritten.lock();
        let changes = [&unwritten.under_way, &unwritten.waiting];
        changes.into_iter().filter_map(|changes| changes.get(&device)).flatten().map(|(id, to)| (*id, *to)).collect()
    }

    /// A device said its first hello: it and where it begins are stored before it is told of it.
    pub(crate) async fn enrol(&self, user_id: Uuid, device_id: Uuid, cursors: &[Cursor]) -> Result<(), sqlx::Error> {
        let ids: Vec<Uuid> = cursors.iter().map(|cursor| cursor.conversation_id).collect();
        let joined: Vec<_> = cursors.iter().map(|cursor| cursor.joined.map(bigint)).collect();
        let acked: Vec<i64> = cursors.iter().map(|cursor| bigint(cursor.acked)).collect();
        sqlx::query(
            "WITH device AS (
                 INSERT INTO state.devices (user_id, device_id) VALUES ($1, $2) ON CONFLICT DO NOTHING
             )
             INSERT INTO state.device_cursors (user_id, device_id, conversation_id, joined_seq, acked)
             SELECT $1, $2, conversation_id, joined_seq, acked
               FROM unnest($3::uuid[], $4::bigint[], $5::bigint[]) AS u(conversation_id, joined_seq, acked)
                 ON CONFLICT DO NOTHING",
        )
        .bind(user_id)
        .bind(device_id)
        .bind(ids)
        .bind(joined)
        .bind(acked)
        .execute(&self.inner.pool)
        .await?;
        Ok(())
    }

    /// Writes in the background, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.inner.any.notified() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PACE) => {}
                () = self.inner.soon.notified() => tokio::time::sleep(SOON).await,
            }
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "cannot keep the devices' cursors: {error}");
                self.inner.any.notify_one();
            }
        }
    }

    /// Writes all that is not written.
    pub(crate) async fn write(&self) -> Result<(), sqlx::Error> {
        let _writing = self.inner.writing.lock().await;
        let changes = {
            let mut unwritten = self.inner.unwritten.lock();
            let changes = mem::take(&mut unwritten.waiting);
            unwritten.under_way.clone_from(&changes);
            changes
        };
        let written = self.write_changes(&changes).await;
        let mut unwritten = self.inner.unwritten.lock();
        let under_way = mem::take(&mut unwritten.under_way);
        if written.is_err() {
            let later = mem::replace(&mut unwritten.waiting, under_way);
            for (device, changes) in later {
                let known = unwritten.waiting.entry(device).or_default();
                for (id, change) in changes {
                    merge(known.entry(id), change);
                }
            }
        }
        written
    }

    async fn write_changes(&self, changes: &Changes) -> Result<(), sqlx::Error> {
        let (mut kept, mut forgotten) = (Vec::new(), Vec::new());
        for (device, changes) in changes {
            for (id, change) in changes {
                match change {
                    Change::Keep(cursor) => kept.push((*device, *cursor)),
                    Change::Forget => forgotten.push((*device, *id)),
                }
            }
        }
        // In one order, so that writers do not wait for each other in a circle.
        kept.sort_unstable_by_key(|(device, cursor)| (*device, cursor.conversation_id));
        forgotten.sort_unstable();
        for chunk in kept.chunks(AT_ONCE) {
            self.write_kept(chunk).await?;
        }
        for chunk in forgotten.chunks(AT_ONCE) {
            sqlx::query(
                "DELETE FROM state.device_cursors d
                  USING unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS u(user_id, device_id, conversation_id)
                  WHERE d.user_id = u.user_id AND d.device_id = u.device_id AND d.conversation_id = u.conversation_id",
            )
            .bind(chunk.iter().map(|((user, _), _)| *user).collect::<Vec<_>>())
            .bind(chunk.iter().map(|((_, device), _)| *device).collect::<Vec<_>>())
            .bind(chunk.iter().map(|(_, id)| *id).collect::<Vec<_>>())
            .execute(&self.inner.pool)
            .await?;
        }
        Ok(())
    }

    async fn write_kept(&self, kept: &[(Device, Cursor)]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO state.device_cursors AS d (user_id, device_id, conversation_id, joined_seq, acked, acked_at)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::timestamptz[])
                 ON CONFLICT (user_id, device_id, conversation_id) DO UPDATE
                SET joined_seq = excluded.joined_seq,
                    acked = CASE WHEN coalesce(d.joined_seq, excluded.joined_seq) = excluded.joined_seq
                                 THEN greatest(d.acked, excluded.acked) ELSE excluded.acked END,
                    acked_at = CASE WHEN coalesce(d.joined_seq, excluded.joined_seq) = excluded.joined_seq
                                    THEN greatest(d.acked_at, excluded.acked_at) ELSE excluded.acked_at END
              WHERE d.joined_seq IS NULL OR d.joined_seq <= excluded.joined_seq",
        )
        .bind(kept.iter().map(|((user, _), _)| *user).collect::<Vec<_>>())
        .bind(kept.iter().map(|((_, device), _)| *device).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, cursor)| cursor.conversation_id).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, cursor)| cursor.joined.map(bigint)).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, cursor)| bigint(cursor.acked)).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, cursor)| cursor.acked_at).collect::<Vec<_>>())
        .execute(&self.inner.pool)
        .await?;
        Ok(())
    }
}

/// What counts of an earlier and a later change of one cursor.
fn merge(entry: Entry<'_, Uuid, Change>, later: Change) {
    match entry {
        Entry::Vacant(entry) => {
            entry.insert(later);
        }
        Entry::Occupied(mut entry) => {
            let merged = match (*entry.get(), later) {
                (Change::Keep(known), Change::Keep(cursor))
                    if known.joined.is_none_or(|of| Some(of) == cursor.joined) =>
                {
                    Change::Keep(Cursor {
                        acked: known.acked.max(cursor.acked),
                        acked_at: known.acked_at.max(cursor.acked_at),
                        ..cursor
                    })
                }
                (Change::Keep(known), Change::Keep(cursor)) if known.joined > cursor.joined => Change::Keep(known),
                (_, later) => later,
            };
            entry.insert(merged);
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::{Database, eventually};
    use time::macros::datetime;

    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const PHONE: Uuid = Uuid::from_u128(2);

    fn cursor(conversation: u128, joined: u64, acked: u64) -> Cursor {
        let acked_at = Some(datetime!(2026-01-02 03:04:05 UTC));
        Cursor { conversation_id: Uuid::from_u128(conversation), joined: Some(joined), acked, acked_at }
    }

    async fn of(cursors: &Cursors) -> Vec<Cursor> {
        let mut found = cursors.of(ANN, PHONE).await.unwrap();
        found.sort_by_key(|cursor| cursor.conversation_id);
        found
    }

    #[tokio::test]
    async fn what_is_not_written_yet_counts_already() {
        let database = Database::new().await;
        let cursors = Cursors::new(database.pool().clone());
        cursors.keep(ANN, PHONE, cursor(1, 0, 7));
        cursors.keep(ANN, PHONE, cursor(1, 0, 5));
        cursors.keep(ANN, PHONE, cursor(2, 0, 1));
        assert_eq!(of(&cursors).await, [cursor(1, 0, 7), cursor(2, 0, 1)]);
        cursors.write().await.unwrap();
        assert_eq!(of(&cursors).await, [cursor(1, 0, 7), cursor(2, 0, 1)]);
        assert_eq!(of(&Cursors::new(database.pool().clone())).await, [cursor(1, 0, 7), cursor(2, 0, 1)]);
        cursors.keep(ANN, PHONE, Cursor { acked_at: None, ..cursor(1, 0, 3) });
        cursors.forget(ANN, PHONE, Uuid::from_u128(2));
        assert_eq!(of(&cursors).await, [cursor(1, 0, 7)]);
        cursors.write().await.unwrap();
        assert_eq!(of(&cursors).await, [cursor(1, 0, 7)]);
    }

    #[tokio::test]
    async fn a_new_stay_begins_where_it_begins() {
        let database = Database::new().await;
        let cursors = Cursors::new(database.pool().clone());
        cursors.keep(ANN, PHONE, cursor(1, 0, 30));
        cursors.write().await.unwrap();
        cursors.forget(ANN, PHONE, Uuid::from_u128(1));
        cursors.keep(ANN, PHONE, Cursor { acked_at: None, ..cursor(1, 20, 19) });
        cursors.write().await.unwrap();
        cursors.keep(ANN, PHONE, cursor(1, 0, 25));
        cursors.write().await.unwrap();
        assert_eq!(of(&cursors).await, [Cursor { acked_at: None, ..cursor(1, 20, 19) }], "what is late counts no more");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_written_later() {
        let database = Database::new().await;
        let cursors = Cursors::new(database.pool().clone());
        cursors.keep(ANN, PHONE, cursor(1, 0, 7));
        sqlx::query("ALTER TABLE state.device_cursors RENAME TO away").execute(database.pool()).await.unwrap();
        cursors.write().await.unwrap_err();
        cursors.keep(ANN, PHONE, cursor(1, 0, 8));
        sqlx::query("ALTER TABLE state.away RENAME TO device_cursors").execute(database.pool()).await.unwrap();
        cursors.write().await.unwrap();
        assert_eq!(of(&Cursors::new(database.pool().clone())).await, [cursor(1, 0, 8)]);
    }

    #[tokio::test]
    async fn they_are_written_by_themselves() {
        let database = Database::new().await;
        let cursors = Cursors::new(database.pool().clone());
        let stop = CancellationToken::new();
        let running = tokio::spawn(cursors.clone().run(stop.clone()));
        let elsewhere = Cursors::new(database.pool().clone());
        cursors.keep(ANN, PHONE, cursor(1, 0, 7));
        cursors.hurry();
        eventually("written", Duration::from_secs(10), async || of(&elsewhere).await == [cursor(1, 0, 7)]).await;
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_device_is_enrolled_once() {
        let database = Database::new().await;
        let cursors = Cursors::new(database.pool().clone());
        for acked in [50, 60] {
            cursors.enrol(ANN, PHONE, &[cursor(1, 0, acked)]).await.unwrap();
        }
        assert_eq!(of(&cursors).await, [Cursor { acked_at: None, ..cursor(1, 0, 50) }]);
    }
}
