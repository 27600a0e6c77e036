//! When messages were sent, for as long as some member has yet to read them.

use std::collections::HashMap;

use futures::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::course::{Move, Sent, Settled};
use super::watermarks::Watermarks;
use crate::database::bigint;
use crate::projection::ApplyError;

/// Tallies for each move the messages that it passed: those of the batch, and those of before it.
pub(super) async fn observe(
    connection: &mut PgConnection,
    sent: &[Sent],
    watermarks: &Watermarks,
    moves: &mut HashMap<Uuid, Vec<Move>>,
) -> Result<(), ApplyError> {
    if moves.is_empty() {
        return Ok(());
    }
    for message in sent {
        pass(moves, message.conversation_id, message.seq, message.sender_id, message.at_ms);
    }
    let (mut conversations, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    for (&conversation, moves) in &*moves {
        for (first, last) in ranges(moves, watermarks.known(conversation)) {
            conversations.push(conversation);
            from.push(bigint(first));
            to.push(bigint(last));
        }
    }
    if conversations.is_empty() {
        return Ok(());
    }
    // A loop over the ranges, whatever the planner thinks of their number. As it comes, since one who returns after a
    // year passes many.
    let mut rows = sqlx::query_as::<_, (Uuid, i64, Uuid, i64)>(
        "SELECT conversation_id, m.seq, m.sender_id, m.sent_ms \
           FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS u(conversation_id, first, last), \
                LATERAL (SELECT seq, sender_id, sent_ms FROM analytics_messages t \
                          WHERE t.conversation_id = u.conversation_id AND t.seq > u.first AND t.seq <= u.last \
                          OFFSET 0) AS m",
    )
    .bind(conversations)
    .bind(from)
    .bind(to)
    .fetch(connection);
    while let Some((conversation, seq, sender, sent_ms)) = rows.try_next().await? {
        pass(moves, conversation, seq.cast_unsigned(), sender, sent_ms);
    }
    Ok(())
}

/// A message, and whoever passed it; its sender is no recipient.
fn pass(moves: &mut HashMap<Uuid, Vec<Move>>, conversation: Uuid, seq: u64, sender: Uuid, sent_ms: i64) {
    for step in moves.get_mut(&conversation).into_iter().flatten() {
        if step.from < seq && seq <= step.to && step.user_id != sender {
            step.tally.add(step.at_ms - sent_ms);
        }
    }
}

/// What the moves passed of that which was there before the batch, in ranges that do not overlap.
fn ranges(moves: &[Move], known: u64) -> Vec<(u64, u64)> {
    let mut passed: Vec<(u64, u64)> =
        moves.iter().map(|step| (step.from, step.to.min(known))).filter(|(from, to)| from < to).collect();
    passed.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (from, to) in passed {
        match ranges.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => ranges.push((from, to)),
        }
    }
    ranges
}

/// Keeps the times of what was sent.
pub(super) async fn remember(connection: &mut PgConnection, sent: &[Sent]) -> Result<(), ApplyError> {
    if sent.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = sent.iter().map(|message| message.conversation_id).collect();
    let seqs: Vec<i64> = sent.iter().map(|message| bigint(message.seq)).collect();
    let senders: Vec<Uuid> = sent.iter().map(|message| message.sender_id).collect();
    let times: Vec<i64> = sent.iter().map(|message| message.at_ms).collect();
    sqlx::query(
        "INSERT INTO analytics_messages (conversation_id, seq, sender_id, sent_ms) \
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[])",
    )
    .bind(conversations)
    .bind(seqs)
    .bind(senders)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

/// Drops the times of what nobody has yet to read, of those behind the places given.
///
/// That is what no member but its sender has still before them: all up to where the last member has read, and of what
/// that one sent, all up to where the last but one has.
pub(super) async fn forget(connection: &mut PgConnection, settled: &Settled) -> Result<(), ApplyError> {
    if settled.is_empty() {
        return Ok(());
    }
    let (conversations, after): (Vec<Uuid>, Vec<i64>) =
        settled.iter().map(|(conversation, after)| (*conversation, bigint(*after))).unzip();
    sqlx::query(
        "WITH last AS MATERIALIZED ( \
            SELECT u.conversation_id, u.after, m.user_id, coalesce(m.read[1], $3) AS read, \
                   coalesce(m.read[2], $3) AS others_read \
              FROM unnest($1::uuid[], $2::bigint[]) AS u(conversation_id, after), \
                   LATERAL (SELECT array_agg(read_to ORDER BY read_to, user_id) AS read, \
                                   (array_agg(user_id ORDER BY read_to, user_id))[1] AS user_id \
                              FROM (SELECT user_id, read_to FROM analytics_members t \
                                     WHERE t.conversation_id = u.conversation_id \
                                     ORDER BY read_to, user_id LIMIT 2) AS two) AS m) \
         DELETE FROM analytics_messages t USING last \
          WHERE t.conversation_id = last.conversation_id AND t.seq > last.after AND t.seq <= last.others_read \
            AND (t.seq <= last.read OR t.sender_id = last.user_id)",
    )
    .bind(conversations)
    .bind(after)
    .bind(i64::MAX)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::delays::Tally;
    use super::super::facts::Mark;
    use super::*;

    #[test]
    fn ranges_that_meet_are_read_once() {
        let step = |from, to| Move {
            user_id: Uuid::nil(),
            mark: Mark::Read,
            from,
            to,
            shard: 0,
            at_ms: 0,
            tally: Tally::default(),
        };
        let moves = [step(8, 12), step(0, 2), step(9, 10), step(2, 3), step(20, 40), step(30, 50)];
        assert_eq!(ranges(&moves, 35), [(0, 3), (8, 12), (20, 35)]);
        assert_eq!(ranges(&moves, 1), [(0, 1)]);
        assert_eq!(ranges(&moves, 0), []);
    }
}
