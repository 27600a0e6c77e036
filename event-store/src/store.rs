//! The store: commands in, answers and committed events out.

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::{Command, Context, ExecuteError, Executed};
use crate::committed::Committed;
use crate::event::StoredEvent;
use crate::lane::Lane;
use crate::log::{Log, OpenError};
use crate::options::Options;
use crate::rows;
use crate::shards::Shards;
use crate::task::{Task, erase};

/// The event store. Clones share its lanes.
#[derive(Debug, Clone)]
pub struct EventStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    lanes: Vec<mpsc::Sender<Task>>,
    committed: broadcast::Sender<Arc<[StoredEvent]>>,
    closing: CancellationToken,
    tracker: TaskTracker,
}

impl EventStore {
    /// Opens the store of a migrated database, and makes its shards where none are.
    ///
    /// Lanes take the pool's connection options, and a connection each of their own.
    ///
    /// # Errors
    /// A database that does not answer or is not migrated, or a number of shards that no log may have.
    pub async fn open(pool: PgPool, options: Options) -> Result<Self, OpenError> {
        let log = Log::open_or_make(pool, options.shards).await?.with_upcasters(options.upcasters.clone());
        let rows = rows::shards(&mut *log.pool().acquire().await?).await?;
        let (committed, _) = broadcast::channel(options.committed_batches.max(1));
        let (closing, tracker) = (CancellationToken::new(), TaskTracker::new());
        let lanes = (0..options.lanes.max(1))
            .map(|number| {
                let (sender, receiver) = mpsc::channel(options.queue.max(1));
                let shards = Shards::new(log.shards(), &rows);
                let lane = Lane::new(number, &log, shards, &options, receiver, committed.clone(), closing.clone());
                tracker.spawn(lane.run());
                sender
            })
            .collect();
        tracker.close();
        Ok(Self { inner: Arc::new(Inner { log, lanes, committed, closing, tracker }) })
    }

    /// Decides a command and commits its events with those of the commands that wait beside it.
    ///
    /// A caller that stops waiting does not take its command back.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute<C: Command>(
        &self,
        command: C,
        context: Context,
    ) -> Result<Executed<C::Output>, ExecuteError<C::Refusal>> {
        let key = command.key();
        let shard = Shards::index(self.inner.log.shards(), command.topic(), self.inner.log.shard_of(key));
        let (context, metadata) = context.stored().unzip();
        let (work, answer) = erase(command);
        let lane = &self.inner.lanes[shard % self.inner.lanes.len()];
        match lane.try_send(Task { work, shard, key, context, metadata }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("parlance_commands_total", "outcome" => "busy").increment(1);
                return Err(ExecuteError::Busy);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ExecuteError::Closed),
        }
        // Only a lane that was torn down with its runtime gives no answer.
        answer.await.unwrap_or_else(|_| Err(ExecuteError::Unavailable(Arc::new(sqlx::Error::WorkerCrashed))))
    }

    /// What this process commits from now on, batch by batch.
    pub fn committed(&self) -> Committed {
        Committed { receiver: self.inner.committed.subscribe() }
    }

    /// The read side.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Turns new commands away, answers those that wait, and ends the lanes.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tracker.wait().await;
    }
}
