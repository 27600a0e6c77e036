//! What all projections hold, to be compared: whatever they are, by their registry.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testkit::{app::App, eventually_some};

use crate::people::BOUND;

/// The tables of all projections, and how far they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Models {
    /// The head of each shard.
    heads: BTreeMap<(i16, i16), i64>,
    /// How many rows each table has, and a digest of them.
    tables: BTreeMap<&'static str, (i64, Option<String>)>,
}

impl Models {
    /// Waits until every projection has applied all of the log, and takes down what they hold then.
    pub(crate) async fn of(app: &App) -> Self {
        let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
        eventually_some("every projection is at the head of the log", BOUND, async || {
            Self::at_heads(&mut database).await
        })
        .await
    }

    async fn at_heads(database: &mut PgConnection) -> Option<Self> {
        let mut transaction = database.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        let heads: Vec<(i16, i16, i64)> = sqlx::query_as("SELECT topic, shard, head FROM log.shards WHERE head > 0")
            .fetch_all(&mut *transaction)
            .await
            .unwrap();
        let heads: BTreeMap<_, _> = heads.into_iter().map(|(topic, shard, head)| ((topic, shard), head)).collect();
        let applied: Vec<(String, i16, i16, i64)> =
            sqlx::query_as("SELECT projection, topic, shard, position FROM read.checkpoints")
                .fetch_all(&mut *transaction)
                .await
                .unwrap();
        let applied: BTreeMap<_, _> =
            applied.into_iter().map(|(name, topic, shard, position)| ((name, topic, shard), position)).collect();
        let mut tables = BTreeMap::new();
        for projection in projectors::list() {
            for topic in projection.topics {
                for ((_, shard), head) in heads.iter().filter(|((of, _), _)| *of == topic.code()) {
                    if applied.get(&(projection.name.to_owned(), topic.code(), *shard)) != Some(head) {
                        return None;
                    }
                }
            }
            for table in projection.tables {
                let digest = format!(
                    "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM read.{table} t"
                );
                let digest = sqlx::query_as(AssertSqlSafe(digest)).fetch_one(&mut *transaction).await.unwrap();
                tables.insert(*table, digest);
            }
        }
        Some(Self { heads, tables })
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> i64 {
        self.heads.values().sum()
    }
}

/// Takes everything from all projections, as if they had never been there. Nobody may be at work on them.
pub(crate) async fn forget(app_database: &sqlx::postgres::PgConnectOptions) {
    let mut database = PgConnection::connect_with(app_database).await.unwrap();
    let tables: Vec<String> = projectors::list()
        .iter()
        .flat_map(|projection| projection.tables)
        .chain(&["checkpoints", "parked"])
        .map(|table| format!("read.{table}"))
        .collect();
    let truncate = format!("TRUNCATE {}", tables.join(", "));
    sqlx::raw_sql(AssertSqlSafe(truncate)).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}
