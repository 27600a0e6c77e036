//! Where the conversations of a batch and their members stood before it, and stand after it.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::facts::{Fact, What};
use crate::database::bigint;
use crate::projection::ApplyError;

/// A member of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) conversation_id: Uuid,
    pub(super) user_id: Uuid,
}

/// How far a member has got in the present stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) delivered_to: u64,
    pub(super) read_to: u64,
}

/// See the module.
pub(super) struct Watermarks {
    /// The number of the last event that was counted, before the batch.
    known: HashMap<Uuid, u64>,
    /// The same after it, where it is another.
    counted: HashMap<Uuid, u64>,
    /// Before the batch: all that it speaks of who were members.
    before: HashMap<Who, Marks>,
    /// After it, of those who moved, came or went; `None` who are members no more.
    after: HashMap<Who, Option<Marks>>,
}

impl Watermarks {
    /// Those that the facts speak of.
    pub(super) async fn load(connection: &mut PgConnection, facts: &[Fact<'_>]) -> Result<Self, ApplyError> {
        let conversations: HashSet<Uuid> = facts.iter().map(|fact| fact.conversation_id).collect();
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT conversation_id, last_seq FROM analytics_conversations WHERE conversation_id = ANY($1)",
        )
        .bind(conversations.into_iter().collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
        let known = rows.into_iter().map(|(conversation, seq)| (conversation, seq.cast_unsigned())).collect();
        let members: HashSet<Who> = facts.iter().filter_map(mover).collect();
        let before = if members.is_empty() { HashMap::new() } else { marks(connection, members).await? };
        Ok(Self { known, counted: HashMap::new(), before, after: HashMap::new() })
    }

    /// Whether an event of that number is new; from then on it is not.
    pub(super) fn count(&mut self, conversation_id: Uuid, seq: u64) -> bool {
        let last = self.counted.get(&conversation_id).copied().unwrap_or(self.known(conversation_id));
        let new = seq > last;
        if new {
            self.counted.insert(conversation_id, seq);
        }
        new
    }

    /// The number of the last event before the batch; 0 if there was none.
    pub(super) fn known(&self, conversation_id: Uuid) -> u64 {
        self.known.get(&conversation_id).copied().unwrap_or(0)
    }

    /// How far a member has got; `None` for those who are none, and for those whose watermarks no fact moves.
    pub(super) fn get(&self, who: Who) -> Option<Marks> {
        match self.after.get(&who) {
            Some(after) => *after,
            None => self.before.get(&who).copied(),
        }
    }

    /// A member got somewhere, came there, or went.
    pub(super) fn set(&mut self, who: Who, marks: Option<Marks>) {
        self.after.insert(who, marks);
    }

    /// Writes down what is different.
    pub(super) async fn save(&self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        self.save_counted(connection).await?;
        let gone: Vec<Who> = self.after.iter().filter(|(_, marks)| marks.is_none()).map(|(who, _)| *who).collect();
        remove(connection, &gone).await?;
        let present = self.after.iter().filter_map(|(who, marks)| Some((*who, (*marks)?)));
        put(connection, &present.collect::<Vec<_>>()).await
    }

    async fn save_counted(&self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        if self.counted.is_empty() {
            return Ok(());
        }
        let (conversations, seqs): (Vec<Uuid>, Vec<i64>) =
            self.counted.iter().map(|(conversation, seq)| (*conversation, bigint(*seq))).unzip();
        sqlx::query(
            "INSERT INTO analytics_conversations AS t (conversation_id, last_seq) \
             SELECT * FROM unnest($1::uuid[], $2::bigint[]) \
             ON CONFLICT (conversation_id) DO UPDATE SET last_seq = excluded.last_seq",
        )
        .bind(conversations)
        .bind(seqs)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Whose watermark a fact moves.
fn mover(fact: &Fact<'_>) -> Option<Who> {
    match fact.what {
        What::Moved { user_id, .. } => Some(Who { conversation_id: fact.conversation_id, user_id }),
        What::Numbered { .. } => None,
    }
}

fn columns(members: impl Iterator<Item = Who>) -> (Vec<Uuid>, Vec<Uuid>) {
    members.map(|who| (who.conversation_id, who.user_id)).unzip()
}

async fn marks(connection: &mut PgConnection, members: HashSet<Who>) -> Result<HashMap<Who, Marks>, ApplyError> {
    let (conversations, users) = columns(members.into_iter());
    let rows: Vec<(Uuid, Uuid, i64, i64)> = sqlx::query_as(
        "SELECT conversation_id, user_id, m.delivered_to, m.read_to \
           FROM unnest($1::uuid[], $2::uuid[]) AS u(conversation_id, user_id) \
           JOIN analytics_members m USING (conversation_id, user_id)",
    )
    .bind(conversations)
    .bind(users)
    .fetch_all(connection)
    .await?;
    let marks = rows.into_iter().map(|(conversation_id, user_id, delivered, read)| {
        let marks = Marks { delivered_to: delivered.cast_unsigned(), read_to: read.cast_unsigned() };
        (Who { conversation_id, user_id }, marks)
    });
    Ok(marks.collect())
}

async fn remove(connection: &mut PgConnection, gone: &[Who]) -> Result<(), ApplyError> {
    if gone.is_empty() {
        return Ok(());
    }
    let (conversations, users) = columns(gone.iter().copied());
    sqlx::query(
        "DELETE FROM analytics_members m USING unnest($1::uuid[], $2::uuid[]) AS u(conversation_id, user_id) \
          WHERE m.conversation_id = u.conversation_id AND m.user_id = u.user_id",
    )
    .bind(conversations)
    .bind(users)
    .execute(connection)
    .await?;
    Ok(())
}

async fn put(connection: &mut PgConnection, present: &[(Who, Marks)]) -> Result<(), ApplyError> {
    if present.is_empty() {
        return Ok(());
    }
    let (conversations, users) = columns(present.iter().map(|(who, _)| *who));
    let delivered: Vec<i64> = present.iter().map(|(_, marks)| bigint(marks.delivered_to)).collect();
    let read: Vec<i64> = present.iter().map(|(_, marks)| bigint(marks.read_to)).collect();
    sqlx::query(
        "INSERT INTO analytics_members AS t (conversation_id, user_id, delivered_to, read_to) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) \
         ON CONFLICT (conversation_id, user_id) DO UPDATE \
            SET delivered_to = excluded.delivered_to, read_to = excluded.read_to",
    )
    .bind(conversations)
    .bind(users)
    .bind(delivered)
    .bind(read)
    .execute(connection)
    .await?;
    Ok(())
}
