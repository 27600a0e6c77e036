//! The table of signed heads: for queries, and for whoever signs next. It is written first, and never ahead of by others.

use std::collections::VecDeque;

use sqlx::PgPool;

use crate::ledger::LedgerError;
use crate::statement::Statement;

/// Statements that are read at once.
const PAGE: i64 = 50;

/// Statements in the database.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pool: PgPool,
    read: VecDeque<String>,
    number: i64,
}

impl Table {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, read: VecDeque::new(), number: 0 }
    }

    /// The last number that it has; 0 for none.
    pub(crate) async fn last(&self) -> Result<u64, LedgerError> {
        let last: Option<i64> =
            sqlx::query_scalar("SELECT max(number) FROM state.audit_heads").fetch_one(&self.pool).await?;
        Ok(last.and_then(|number| number.try_into().ok()).unwrap_or(0))
    }

    /// The line of a number.
    pub(crate) async fn line(&self, number: u64) -> Result<Option<String>, LedgerError> {
        Ok(sqlx::query_scalar("SELECT statement FROM state.audit_heads WHERE number = $1")
            .bind(bigint(number))
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Lines after a number, in order, with theirs; a page of them.
    pub(crate) async fn page(&self, after: u64) -> Result<Vec<(u64, String)>, LedgerError> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT number, statement FROM state.audit_heads WHERE number > $1 ORDER BY number LIMIT $2",
        )
        .bind(bigint(after))
        .bind(PAGE)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(number, line)| (number.cast_unsigned(), line)).collect())
    }

    /// Adds the next statement; `false` where another one has that number.
    pub(crate) async fn add(&self, statement: &Statement, key_id: &str, line: &str) -> Result<bool, LedgerError> {
        let added = sqlx::query(
            "INSERT INTO state.audit_heads (number, at, key_id, statement) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(bigint(statement.number))
        .bind(statement.at)
        .bind(key_id)
        .bind(line)
        .execute(&self.pool)
        .await?;
        Ok(added.rows_affected() == 1)
    }

    /// The next line in order, whatever its number is said to be.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, LedgerError> {
        if self.read.is_empty() {
            for (number, line) in self.page(self.number.cast_unsigned()).await? {
                self.number = number.cast_signed();
                self.read.push_back(line);
            }
        }
        Ok(self.read.pop_front())
    }

    pub(crate) fn rewind(&mut self) {
        self.read.clear();
        self.number = 0;
    }
}

fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
