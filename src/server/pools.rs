//! Connections to the database, a pool a purpose: a slow query must not keep the projections from theirs.

use std::time::Duration;

use platform::postgres::{PoolSettings, connect, connect_lazily};
use sqlx::PgPool;

use super::roles::{Role, Roles};
use crate::database::Database;

/// Connections of each purpose at most.
mod connections {
    pub(super) const LOG: u32 = 4;
    pub(super) const STATE: u32 = 4;
    pub(super) const PROJECTIONS: u32 = 6;
    pub(super) const QUERIES: u32 = 12;
    pub(super) const NOTIFICATIONS: u32 = 3;
}

/// The pools that a process's roles need.
pub(super) struct Pools {
    /// Shared state: every process has some.
    pub(super) state: PgPool,
    /// The log; where no role of the process reads or writes it, the state's, by which its number of shards is read.
    pub(super) log: PgPool,
    /// For projectors alone.
    pub(super) projections: Option<PgPool>,
    /// For projectors alone, what is sent to others: receivers may be many.
    pub(super) notifications: Option<PgPool>,
    /// For query-api alone.
    pub(super) queries: Option<PgPool>,
    /// The same, of a replica; it need not be there.
    pub(super) replica: Option<PgPool>,
}

/// How long a query waits for a connection to the replica, before the primary is asked.
const REPLICA_PATIENCE: Duration = Duration::from_secs(1);

impl Pools {
    pub(super) async fn open(database: &Database, roles: &Roles) -> anyhow::Result<Self> {
        let state = database.pool("state", connections::STATE).await?;
        let reads_log = roles.has(Role::CommandApi) || roles.want_bus();
        let log = if reads_log { database.pool("log", connections::LOG).await? } else { state.clone() };
        let (mut projections, mut notifications) = (None, None);
        if roles.has(Role::Projectors) {
            projections = Some(database.pool("projections", connections::PROJECTIONS).await?);
            notifications = Some(database.pool("notifications", connections::NOTIFICATIONS).await?);
        }
        let queries = if roles.has(Role::QueryApi) {
            let server = query_api::steady_plans(database.server().clone());
            Some(connect(&server, &PoolSettings::named("queries", connections::QUERIES)).await?)
        } else {
            None
        };
        let replica = database.replica().filter(|_| queries.is_some()).map(|server| {
            let settings = PoolSettings::named("queries", connections::QUERIES);
            let settings = PoolSettings { acquire_timeout: REPLICA_PATIENCE, ..settings };
            connect_lazily(&query_api::steady_plans(server.clone()), &settings)
        });
        Ok(Self { state, log, projections, notifications, queries, replica })
    }

    pub(super) async fn close(&self) {
        for pool in [&self.replica, &self.queries, &self.notifications, &self.projections].into_iter().flatten() {
            pool.close().await;
        }
        self.log.close().await;
        self.state.close().await;
    }
}
