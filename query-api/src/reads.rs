//! Where the read models are read: the primary, or a replica of it while that answers and keeps up.
//!
//! Positions are those of whichever is read. To the primary one can go over at any moment, since it has all that a
//! replica has; back only once the replica has all that was shown meanwhile, so that nobody is told of a position that
//! their answer is behind.

use std::sync::Arc;
use std::time::Duration;

use platform::applied::AppliedPositions;
use schemas::{Position, Topic};
use sqlx::PgPool;
use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::checkpoints;

/// How long it may take to say how far it has got.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a replica is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What the primary had so long ago a replica has to have.
const LAG: Duration = Duration::from_secs(5);
/// How long positions stand still while it is waited for the replica to have all that was shown.
const STILL: Duration = Duration::from_millis(100);
const PACE: Duration = Duration::from_millis(5);

/// The read models' databases; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    primary: PgPool,
    replica: Option<PgPool>,
    /// Whether the replica is read.
    on_replica: watch::Sender<bool>,
    /// Held by whoever asks for positions and posts them; by the one who goes over to the replica, alone.
    posting: RwLock<()>,
}

impl From<PgPool> for Reads {
    /// One database for all.
    fn from(primary: PgPool) -> Self {
        Self::with_replica(primary, None)
    }
}

impl Reads {
    /// A primary, and a replica that is read once [`crate::follow_checkpoints`] found that it has everything.
    #[must_use]
    pub fn with_replica(primary: PgPool, replica: Option<PgPool>) -> Self {
        metrics::describe_gauge!("parlance_replica_in_use", "Whether queries read from the replica: 1, or 0.");
        let (on_replica, posting) = (watch::Sender::new(false), RwLock::new(()));
        Self { inner: Arc::new(Inner { primary, replica, on_replica, posting }) }
    }

    /// The one to read now.
    pub(crate) fn pool(&self) -> &PgPool {
        self.replica_in_use().unwrap_or(&self.inner.primary)
    }

    /// The one that is written.
    pub(crate) fn primary(&self) -> &PgPool {
        &self.inner.primary
    }

    fn replica_in_use(&self) -> Option<&PgPool> {
        self.inner.replica.as_ref().filter(|_| *self.inner.on_replica.borrow())
    }

    /// Whether the replica is read, and as soon as it is not any more.
    pub(crate) fn leaves_replica(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.replica_in_use()?;
        let mut on_replica = self.inner.on_replica.subscribe();
        Some(async move {
            // An end of all this is as good.
            let _ = on_replica.wait_for(|on_replica| !on_replica).await;
        })
    }

    /// Reads: what a replica does not answer, the primary is asked.
    pub(crate) async fn read<T, F>(&self, query: impl Fn(PgPool) -> F) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        if let (Some(replica), Some(left)) = (self.replica_in_use(), self.leaves_replica()) {
            tokio::select! {
                answer = query(replica.clone()) => match answer {
                    Err(error) => {
                        tracing::debug!(%error, "the replica did not answer");
                        self.replica_answers().await;
                    }
                    answer => return answer,
                },
                () = left => {}
            }
        }
        query(self.inner.primary.clone()).await
    }

    /// Whether the replica is read and still there; one that is not is read no longer.
    pub(crate) async fn replica_answers(&self) -> bool {
        let Some(replica) = self.replica_in_use() else { return false };
        match positions(replica).await {
            Ok(_) => true,
            Err(reason) => {
                self.leave_replica(&reason);
                false
            }
        }
    }

    /// Asks the one that is read how far it has got, and posts that.
    pub(crate) async fn post(&self, applied: &AppliedPositions) -> Result<(), String> {
        let _posting = self.inner.posting.read().await;
        if let Some(replica) = self.replica_in_use() {
            match positions(replica).await {
                Ok(positions) => {
                    applied.post(positions);
                    return Ok(());
                }
                Err(reason) => self.leave_replica(&reason),
            }
        }
        applied.post(positions(&self.inner.primary).await?);
        Ok(())
    }

    fn leave_replica(&self, reason: &str) {
        if self.inner.on_replica.send_replace(false) {
            metrics::gauge!("parlance_replica_in_use").set(0.0);
            tracing::warn!(reason, "queries go to the primary: {reason}");
        }
    }

    /// Goes over to the replica, if it has all that is applied as far as anybody was told.
    async fn take_replica(&self, replica: &PgPool, applied: &AppliedPositions) {
        let _alone = self.inner.posting.write().await;
        let shown: Vec<Position> =
            Topic::ALL.into_iter().flat_map(|topic| applied.all(topic).places().to_vec()).collect();
        let caught_up = async {
            while !positions(replica).await.is_ok_and(|has| covers(&has, &shown)) {
                sleep(PACE).await;
            }
        };
        if timeout(STILL, caught_up).await.is_ok() {
            self.inner.on_replica.send_replace(true);
            metrics::gauge!("parlance_replica_in_use").set(1.0);
            tracing::info!("queries go to the replica");
        }
    }
}

/// How far a database has got, asked within a bound.
async fn positions(pool: &PgPool) -> Result<Vec<Position>, String> {
    match timeout(PATIENCE, checkpoints::read(pool)).await {
        Ok(Ok(positions)) => Ok(positions),
        Ok(Err(error)) => Err(format!("the checkpoints cannot be read: {error}")),
        Err(_) => Err(format!("the checkpoints could not be read within {PATIENCE:?}")),
    }
}

fn covers(has: &[Position], wanted: &[Position]) -> bool {
    let covered = |wanted: &Position| {
        let mut places = has.iter().filter(|place| (place.topic, place.shard) == (wanted.topic, wanted.shard));
        places.any(|place| place.position >= wanted.position)
    };
    wanted.iter().filter(|wanted| wanted.position > 0).all(covered)
}

/// Looks at a replica now and then.
pub(crate) struct Watch {
    reads: Reads,
    looked: Option<Instant>,
    /// What the primary had, and when: the replica does not have it yet.
    owed: Option<(Instant, Vec<Position>)>,
}

impl Watch {
    pub(crate) fn new(reads: Reads) -> Self {
        Self { reads, looked: None, owed: None }
    }

    /// Looks, if it is time: a replica that is away or behind is read no longer, one that is there again is.
    pub(crate) async fn look(&mut self, applied: &AppliedPositions) {
        let Some(replica) = &self.reads.inner.replica else { return };
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let has = match positions(replica).await {
            Ok(has) => has,
            Err(reason) => {
                self.reads.leave_replica(&reason);
                return;
            }
        };
        if self.reads.replica_in_use().is_none() {
            self.owed = None;
            self.reads.take_replica(replica, applied).await;
            return;
        }
        match &self.owed {
            Some((since, owed)) if !covers(&has, owed) => {
                if since.elapsed() > LAG {
                    self.reads.leave_replica(&format!("the replica lags by more than {LAG:?}"));
                }
            }
            // While the primary is away a replica owes nothing new.
            _ => self.owed = positions(&self.reads.inner.primary).await.ok().map(|owed| (Instant::now(), owed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::{Cluster, Durability, eventually};
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::*;

    const BOUND: Duration = Duration::from_mins(1);

    struct Setup {
        _primary: Cluster,
        replica: Cluster,
        pools: [PgPool; 2],
        reads: Reads,
        applied: AppliedPositions,
        _stop: DropGuard,
    }

    impl Setup {
        async fn new() -> Self {
            let primary = Cluster::start(Durability::Full).unwrap();
            let pool = PgPool::connect(&primary.url()).await.unwrap();
            migrations::run(&pool).await.unwrap();
            let replica = primary.replica().unwrap();
            let pools = [pool, PgPool::connect(&replica.url()).await.unwrap()];
            let reads = Reads::with_replica(pools[0].clone(), Some(pools[1].clone()));
            let (applied, stop) = (AppliedPositions::default(), CancellationToken::new());
            tokio::spawn(crate::follow_checkpoints(reads.clone(), applied.clone(), stop.clone()));
            let setup = Self { _primary: primary, replica, pools, reads, applied, _stop: stop.drop_guard() };
            setup.reaches(1).await;
            setup.is_on_replica(true).await;
            setup
        }

        /// Has the primary's read model get there.
        async fn reaches(&self, position: i64) {
            sqlx::query(
                "INSERT INTO read.checkpoints (projection, topic, shard, position) VALUES ('a', 1, 3, $1)
                     ON CONFLICT (projection, topic, shard) DO UPDATE SET position = excluded.position",
            )
            .bind(position)
            .execute(&self.pools[0])
            .await
            .unwrap();
        }

        async fn is_on_replica(&self, expected: bool) {
            let is = async || self.reads.replica_in_use().is_some() == expected;
            eventually("queries go where they should", BOUND, is).await;
        }

        async fn applied(&self, position: u64) {
            let place = Position { topic: Topic::Conversations, shard: 3, position };
            assert!(self.applied.reached(&[place], BOUND).await, "{position} is applied");
        }

        /// Whether a replica answers, and how far it has got.
        async fn asked(&self) -> (bool, i64) {
            let query = |pool| async move {
                sqlx::query_as("SELECT pg_is_in_recovery(), max(position) FROM read.checkpoints").fetch_one(&pool).await
            };
            self.reads.read(query).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_replica_is_read_while_it_keeps_up_and_positions_are_its_own() {
        let setup = Setup::new().await;
        setup.reaches(5).await;
        setup.applied(5).await;
        assert_eq!(setup.asked().await, (true, 5));
        sqlx::query("SELECT pg_wal_replay_pause()").execute(&setup.pools[1]).await.unwrap();
        setup.reaches(6).await;
        setup.reads.post(&setup.applied).await.unwrap();
        assert_eq!(setup.applied.get(Topic::Conversations, 3), 5);
        // It lags too far.
        setup.is_on_replica(false).await;
        setup.applied(6).await;
        setup.reaches(7).await;
        setup.applied(7).await;
        assert_eq!(setup.asked().await, (false, 7));
        sqlx::query("SELECT pg_wal_replay_resume()").execute(&setup.pools[1]).await.unwrap();
        setup.is_on_replica(true).await;
        assert_eq!(setup.asked().await, (true, 7), "it has all that was shown");
    }

    #[tokio::test]
    async fn what_a_replica_does_not_answer_the_primary_does() {
        let setup = Setup::new().await;
        // Under way while it is found out that it is gone.
        let query = |pool| async move {
            let query = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_sleep(600)::text ELSE 'primary' END";
            sqlx::query_scalar::<_, String>(query).fetch_one(&pool).await
        };
        let (answer, ()) = tokio::join!(biased; setup.reads.read(query), async { setup.reads.leave_replica("a test") });
        assert_eq!(answer.unwrap(), "primary");
        setup.is_on_replica(true).await;
        setup.replica.kill().unwrap();
        assert_eq!(setup.asked().await, (false, 1));
        setup.is_on_replica(false).await;
        setup.reaches(2).await;
        setup.applied(2).await;
        setup.replica.start_again().unwrap();
        setup.is_on_replica(true).await;
        assert_eq!(setup.asked().await, (true, 2));
    }
}
