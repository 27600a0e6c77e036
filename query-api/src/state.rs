//! What the queries stand on.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use platform::applied::AppliedPositions;
use platform::auth::Authenticator;
use platform::cache::{Answers, ShardOf};
use schemas::Position;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::checkpoints::CheckpointPoller;
use crate::documents::Documents;
use crate::gateway::CommandPort;
use crate::reads::Reads;

/// How connections of the queries' pool are to be opened.
///
/// Each statement is planned once (planning one costs ten times its execution), by what it asks and not by how small
/// its tables were just then: all of them go by an index.
#[must_use]
pub fn steady_plans(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("jit", "off")])
}

/// What the queries need from the process they run in.
pub struct Dependencies {
    /// The database of the read models, and a replica of it where there is one; opened with [`steady_plans`].
    pub reads: Reads,
    /// How far the read models have got.
    pub applied: AppliedPositions,
    /// Verifies access tokens.
    pub authenticator: Authenticator,
    /// The log's own function, since this crate knows nothing of the log.
    pub shard_of: ShardOf,
    /// The command side, which takes down who reads the audit.
    pub commands: Arc<dyn CommandPort>,
    /// The descriptions of the whole surface.
    pub documents: Documents,
    /// Where answers are kept for a while, if anywhere but in the database.
    pub answers: Option<Answers>,
}

/// The state of every query's handler; cheap to clone.
#[derive(Clone)]
pub struct QueryState {
    inner: Arc<Inner>,
}

struct Inner {
    reads: Reads,
    applied: AppliedPositions,
    checkpoints: CheckpointPoller,
    authenticator: Authenticator,
    shard_of: ShardOf,
    commands: Arc<dyn CommandPort>,
    documents: Documents,
    answers: Option<Answers>,
}

impl QueryState {
    /// The state over what the process supplies.
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies { reads, applied, authenticator, shard_of, commands, documents, answers } = dependencies;
        let checkpoints = CheckpointPoller::new(reads.clone(), applied.clone());
        let inner = Inner { reads, applied, checkpoints, authenticator, shard_of, commands, documents, answers };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.inner.reads.pool()
    }

    /// The database that has everything, and state too.
    pub(crate) fn primary(&self) -> &PgPool {
        self.inner.reads.primary()
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    pub(crate) fn applied(&self) -> &AppliedPositions {
        &self.inner.applied
    }

    /// Where answers are kept, if anywhere.
    pub(crate) fn answers(&self) -> Option<&Answers> {
        self.inner.answers.as_ref()
    }

    pub(crate) fn commands(&self) -> &dyn CommandPort {
        &*self.inner.commands
    }

    pub(crate) fn documents(&self) -> &Documents {
        &self.inner.documents
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.inner.authenticator
    }

    pub(crate) fn shard_of(&self, key: Uuid) -> u16 {
        (self.inner.shard_of)(key)
    }

    /// Waits until the read models have applied all of `places`; `false` if they have not within `bound`.
    pub(crate) async fn reached(&self, places: &[Position], bound: Duration) -> bool {
        self.inner.checkpoints.reached(places, bound).await
    }
}

impl FromRef<QueryState> for Authenticator {
    fn from_ref(state: &QueryState) -> Self {
        state.inner.authenticator.clone()
    }
}
