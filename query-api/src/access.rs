//! Who may see a conversation, decided in the statement that reads it.

use platform::http::Problem;
use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};

/// The caller's latest stay in a conversation: no row without one.
///
/// `left_seq` is null while it lasts; only what has a `seq` above `horizon` may be seen. Parameters: the conversation,
/// the caller.
macro_rules! access_cte {
    () => {
        "access AS MATERIALIZED (
            SELECT m.left_seq, CASE c.history WHEN 'all' THEN 0 ELSE m.joined_seq END AS horizon
              FROM read.members m
              JOIN read.conversations c USING (conversation_id)
             WHERE m.conversation_id = $1 AND m.user_id = $2
             ORDER BY m.joined_seq DESC LIMIT 1)"
    };
}
pub(crate) use access_cte;

/// Whether the caller is in a conversation, by their latest stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Never,
    Former,
    Present,
}

impl Membership {
    /// That of a row of the caller's latest stay, whose column says with which number it ended.
    pub(crate) fn of(row: Option<&PgRow>, left_seq: usize) -> Result<Self, sqlx::Error> {
        Ok(match row {
            None => Self::Never,
            Some(row) if row.try_get_raw(left_seq)?.is_null() => Self::Present,
            Some(_) => Self::Former,
        })
    }

    /// Lets a present member pass: who never was one learns nothing, not even that there is a conversation.
    pub(crate) fn admit(self) -> Result<(), Problem> {
        match self {
            Self::Never => Err(Problem::not_found()),
            Self::Former => Err(Problem::forbidden("no longer a member of this conversation")),
            Self::Present => Ok(()),
        }
    }
}

/// The items of rows that begin with the access; there is one row without an item where there are no items.
pub(crate) fn admitted<T>(rows: &[PgRow], item: impl Fn(&PgRow) -> Result<T, sqlx::Error>) -> Result<Vec<T>, Problem> {
    Membership::of(rows.first(), 0)?.admit()?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        if !row.try_get_raw(1)?.is_null() {
            items.push(item(row)?);
        }
    }
    Ok(items)
}
