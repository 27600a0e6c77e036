//! Projection `receipts`: how far each member has got, stay by stay, only forward.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Body, Event, ReceiptMoved, Record, Topic};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::bigint;
use crate::projection::{ApplyError, Consumer, Description, Projection};

/// See the module.
pub(crate) struct Receipts;

/// A member of a conversation, over all their stays.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Who {
    conversation_id: Uuid,
    user_id: Uuid,
}

/// Watermarks, and when each was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    delivered_to: u64,
    delivered_at: Option<OffsetDateTime>,
    read_to: u64,
    read_at: Option<OffsetDateTime>,
}

impl Marks {
    fn advance(&mut self, later: Self) {
        if later.delivered_to > self.delivered_to {
            (self.delivered_to, self.delivered_at) = (later.delivered_to, later.delivered_at);
        }
        if later.read_to > self.read_to {
            (self.read_to, self.read_at) = (later.read_to, later.read_at);
        }
    }
}

/// One stay, as far as a batch speaks of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stay {
    marks: Option<Marks>,
    left_seq: Option<u64>,
}

#[async_trait]
impl Projection for Receipts {
    fn describe(&self) -> Description {
        Description {
            name: "receipts",
            consumer: Consumer::ReadModels,
            topics: &[Topic::Conversations],
            tables: &["receipts"],
        }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        let members = collapse(batch);
        // The first stay of each is the one that lasted when the batch began: it moves, and then may end.
        let first = members.iter().filter_map(|(who, stays)| Some((who, stays.first()?)));
        let moved = first.clone().filter_map(|(who, stay)| Some((who, None, stay.marks?)));
        advance(connection, moved.collect()).await?;
        end(connection, first.filter_map(|(who, stay)| Some((who, stay.left_seq?))).collect()).await?;
        let later = members.iter().flat_map(|(who, stays)| stays.iter().skip(1).map(move |stay| (who, stay)));
        advance(connection, later.filter_map(|(who, stay)| Some((who, stay.left_seq, stay.marks?))).collect()).await
    }
}

/// The stays of each member that a batch speaks of, in order.
fn collapse(batch: &[Arc<Record>]) -> HashMap<Who, Vec<Stay>> {
    let mut members: HashMap<Who, Vec<Stay>> = HashMap::new();
    let mut present = |conversation_id, user_id, change: &dyn Fn(&mut Stay)| {
        let stays = members.entry(Who { conversation_id, user_id }).or_default();
        if stays.last().is_none_or(|stay| stay.left_seq.is_some()) {
            stays.push(Stay::default());
        }
        stays.last_mut().into_iter().for_each(change);
    };
    for record in batch {
        match &record.event {
            Event::MessageDelivered(moved) => {
                let marks = marks(moved, None);
                present(moved.conversation_id, moved.user_id, &|stay| stay.advance(marks));
            }
            Event::MessageRead(moved) => {
                let marks = marks(moved, Some(moved.at));
                present(moved.conversation_id, moved.user_id, &|stay| stay.advance(marks));
            }
            Event::Numbered(event) => match &event.body {
                Body::MemberLeft(left) => {
                    present(event.conversation_id, left.user_id, &|stay| stay.left_seq = Some(event.seq));
                }
                Body::Created(_)
                | Body::Renamed(_)
                | Body::SettingsChanged(_)
                | Body::MemberJoined(_)
                | Body::MemberRoleChanged(_)
                | Body::MessageSent(_) => {}
            },
            Event::UserRegistered(_)
            | Event::UserProfileChanged(_)
            | Event::UserPasswordChanged(_)
            | Event::UserRoleGranted(_)
            | Event::UserRoleRevoked(_)
            | Event::AuditRead(_)
            | Event::SessionStarted(_)
            | Event::SessionRefreshed(_)
            | Event::SessionRevoked(_)
            | Event::SessionReuseDetected(_) => {}
        }
    }
    members
}

impl Stay {
    fn advance(&mut self, marks: Marks) {
        self.marks.get_or_insert(marks).advance(marks);
    }
}

fn marks(moved: &ReceiptMoved, read_at: Option<OffsetDateTime>) -> Marks {
    Marks { delivered_to: moved.delivered_to, delivered_at: Some(moved.at), read_to: moved.read_to, read_at }
}

/// Moves watermarks of stays, forward only.
async fn advance(connection: &mut PgConnection, moves: Vec<(&Who, Option<u64>, Marks)>) -> Result<(), ApplyError> {
    if moves.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = moves.iter().map(|(who, ..)| who.conversation_id).collect();
    let users: Vec<Uuid> = moves.iter().map(|(who, ..)| who.user_id).collect();
    let left: Vec<Option<i64>> = moves.iter().map(|(_, left_seq, _)| left_seq.map(bigint)).collect();
    let delivered: Vec<i64> = moves.iter().map(|(.., marks)| bigint(marks.delivered_to)).collect();
    let delivered_at: Vec<_> = moves.iter().map(|(.., marks)| marks.delivered_at).collect();
    let read: Vec<i64> = moves.iter().map(|(.., marks)| bigint(marks.read_to)).collect();
    let read_at: Vec<_> = moves.iter().map(|(.., marks)| marks.read_at).collect();
    sqlx::query(
        "INSERT INTO receipts AS t \
                (conversation_id, user_id, left_seq, delivered_to, delivered_at, read_to, read_at) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[], \
                              $7::timestamptz[]) \
         ON CONFLICT (conversation_id, user_id, left_seq) DO UPDATE SET \
            delivered_to = greatest(t.delivered_to, excluded.delivered_to), \
            delivered_at = CASE WHEN excluded.delivered_to > t.delivered_to \
                                THEN excluded.delivered_at ELSE t.delivered_at END, \
            read_to = greatest(t.read_to, excluded.read_to), \
            read_at = CASE WHEN excluded.read_to > t.read_to THEN excluded.read_at ELSE t.read_at END \
          WHERE excluded.delivered_to > t.delivered_to OR excluded.read_to > t.read_to",
    )
    .bind(conversations)
    .bind(users)
    .bind(left)
    .bind(delivered)
    .bind(delivered_at)
    .bind(read)
    .bind(read_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends stays: their watermarks are kept where they stand. A stay that began later stands beyond the end of one before
/// it, and is left alone.
async fn end(connection: &mut PgConnection, ends: Vec<(&Who, u64)>) -> Result<(), ApplyError> {
    if ends.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = ends.iter().map(|(who, _)| who.conversation_id).collect();
    let users: Vec<Uuid> = ends.iter().map(|(who, _)| who.user_id).collect();
    let left: Vec<i64> = ends.iter().map(|(_, left_seq)| bigint(*left_seq)).collect();
    sqlx::query(
        "WITH ended AS ( \
             DELETE FROM receipts t USING unnest($1::uuid[], $2::uuid[], $3::bigint[]) \
                 AS u(conversation_id, user_id, left_seq) \
              WHERE t.conversation_id = u.conversation_id AND t.user_id = u.user_id AND t.left_seq IS NULL \
                AND t.delivered_to < u.left_seq \
          RETURNING t.conversation_id, t.user_id, u.left_seq, t.delivered_to, t.delivered_at, t.read_to, t.read_at) \
         INSERT INTO receipts (conversation_id, user_id, left_seq, delivered_to, delivered_at, read_to, read_at) \
         SELECT * FROM ended ON CONFLICT (conversation_id, user_id, left_seq) DO NOTHING",
    )
    .bind(conversations)
    .bind(users)
    .bind(left)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::Role;

    use super::*;
    use crate::testing::{Bench, Room, ann, ben};

    type Row = (Uuid, Option<i64>, i64, i64, Option<OffsetDateTime>, Option<OffsetDateTime>);
    const ROWS: &str = "SELECT user_id, left_seq, delivered_to, read_to, delivered_at, read_at FROM receipts \
                         ORDER BY user_id, left_seq";

    #[tokio::test]
    async fn watermarks_go_forward_with_the_time_they_moved() {
        let bench = Bench::new(&Receipts).await;
        let mut room = Room::new(5);
        bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
        bench.keep(room.said(ann()));
        bench.keep(room.said(ann()));
        bench.keep(room.delivered(ben(), 2, 0));
        bench.apply().await;
        let read_at = bench.keep(room.read(ben(), 2, 2)).at;
        let delivered_at = bench.keep(room.delivered(ben(), 3, 2)).at;
        bench.apply().await;
        let rows: Vec<Row> = bench.rows(ROWS).await;
        assert_eq!(rows, [(ben(), None, 3, 2, Some(delivered_at), Some(read_at))]);
    }

    #[tokio::test]
    async fn watermarks_of_a_stay_that_ended_are_kept_apart_from_the_next() {
        let bench = Bench::new(&Receipts).await;
        let mut room = Room::new(5);
        bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
        bench.keep(room.delivered(ben(), 1, 1));
        bench.keep(room.left(ben()));
        bench.keep(room.joined(ben(), Role::Member));
        bench.keep(room.delivered(ben(), 4, 3));
        bench.keep(room.left(ben()));
        bench.keep(room.joined(ben(), Role::Member));
        bench.apply().await;
        bench.keep(room.read(ben(), 5, 5));
        bench.keep(room.left(ben()));
        bench.apply().await;
        // One who never moved leaves nothing behind.
        bench.keep(room.joined(ben(), Role::Member));
        bench.keep(room.left(ben()));
        bench.apply().await;
        let rows: Vec<Row> = bench.rows(ROWS).await;
        let marks: Vec<_> = rows.into_iter().map(|(_, left, delivered, read, ..)| (left, delivered, read)).collect();
        assert_eq!(marks, [(Some(2), 1, 1), (Some(4), 4, 3), (Some(6), 5, 5)]);
    }
}
