//! Sessions whose tokens are refused: known at once here, and within a quarter of a second in every process.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sqlx::PgPool;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often a process looks for what others revoked.
const POLL: Duration = Duration::from_millis(200);
/// What another process revoked is told of once every process has looked: whose socket was closed finds its token refused
/// wherever it asks next.
const SPREAD: Duration = Duration::from_millis(300);
/// A revocation is looked for again this long after its time, since commits come out of order and clocks differ.
const OVERLAP: Duration = Duration::from_secs(10);
/// A row outlives every refresh token of its session.
const KEEP: Duration = Duration::from_hours(32 * 24);
const SWEEP: Duration = Duration::from_mins(10);
const LISTENERS_BEHIND: usize = 1024;

/// The revoked sessions; cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    inner: Arc<Inner>,
}

struct Inner {
    pool: PgPool,
    /// Access tokens that were issued before a revocation have expired after this.
    access_ttl: Duration,
    revoked: RwLock<HashMap<Uuid, Instant>>,
    told: broadcast::Sender<Uuid>,
    /// What is to be told of, and from when on.
    untold: Mutex<VecDeque<(Instant, Uuid)>>,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("revoked", &self.inner.revoked.read().len()).finish_non_exhaustive()
    }
}

impl Revocations {
    /// Reads what is revoked, and follows it until `stop`.
    pub async fn open(pool: PgPool, access_ttl: Duration, stop: CancellationToken) -> Result<Self, sqlx::Error> {
        let (told, _) = broadcast::channel(LISTENERS_BEHIND);
        let inner = Arc::new(Inner {
            pool,
            access_ttl: access_ttl + OVERLAP,
            revoked: RwLock::default(),
            told,
            untold: Mutex::default(),
        });
        inner.learn(inner.access_ttl).await?;
        tokio::spawn(follow(inner.clone(), stop));
        Ok(Self { inner })
    }

    /// Refuses these sessions' access tokens from now on, in every process.
    ///
    /// Called before the event of the revocation is appended: should that fail, the session is refused all the same.
    pub async fn revoke(&self, sessions: &[Uuid]) -> Result<(), sqlx::Error> {
        if sessions.is_empty() {
            return Ok(());
        }
        // Devices that are logged out are pushed to no more.
        sqlx::query(
            "WITH gone AS (DELETE FROM state.push_subscriptions WHERE session_id = ANY($1))
             INSERT INTO state.revoked_sessions (session_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING",
        )
        .bind(sessions)
        .execute(&self.inner.pool)
        .await?;
        for session in self.inner.note(sessions.iter().copied()) {
            self.inner.tell(session);
        }
        Ok(())
    }

    /// Whether this session's access tokens are refused.
    pub fn is_revoked(&self, session: Uuid) -> bool {
        self.inner.revoked.read().contains_key(&session)
    }

    /// Whether the session was ever revoked, by the database's word: for refresh tokens, which live longer.
    pub async fn was_revoked(&self, session: Uuid) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM state.revoked_sessions WHERE session_id = $1)")
            .bind(session)
            .fetch_one(&self.inner.pool)
            .await
    }

    /// Each session as it is revoked from now on. Who falls behind asks [`Self::is_revoked`] instead.
    pub fn subscribe(&self) -> broadcast::Receiver<Uuid> {
        self.inner.told.subscribe()
    }
}

impl Inner {
    /// Reads what was revoked lately.
    async fn learn(&self, lately: Duration) -> Result<(), sqlx::Error> {
        let sessions: Vec<Uuid> = sqlx::query_scalar(
            "SELECT session_id FROM state.revoked_sessions WHERE revoked_at > clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(lately.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        let from = Instant::now() + SPREAD;
        let new = self.note(sessions);
        self.untold.lock().extend(new.into_iter().map(|session| (from, session)));
        Ok(())
    }

    /// Refuses them from now on; answers which were not refused before.
    fn note(&self, sessions: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
        let now = Instant::now();
        let mut revoked = self.revoked.write();
        sessions.into_iter().filter(|session| revoked.insert(*session, now).is_none()).collect()
    }

    fn tell(&self, session: Uuid) {
        // Nobody listens where no socket is open.
        let _ = self.told.send(session);
    }

    /// Tells of those whose time has come.
    fn tell_due(&self) {
        let now = Instant::now();
        let mut untold = self.untold.lock();
        while let Some((_, session)) = untold.pop_front_if(|(from, _)| *from <= now) {
            self.tell(session);
        }
    }

    async fn sweep(&self) -> Result<(), sqlx::Error> {
        self.revoked.write().retain(|_, noted| noted.elapsed() < self.access_ttl + OVERLAP);
        sqlx::query(
            "DELETE FROM state.revoked_sessions WHERE revoked_at < clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(KEEP.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut learnt, mut swept) = (Instant::now(), Instant::now());
    let mut away = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let begun = Instant::now();
        // After an outage it reaches back to before it.
        match inner.learn(learnt.elapsed() + OVERLAP).await {
            Ok(()) => (learnt, away) = (begun, false),
            Err(error) if !away => {
                tracing::warn!(%error, "cannot look for revoked sessions: {error}");
                away = true;
            }
            Err(_) => {}
        }
        inner.tell_due();
        if swept.elapsed() > SWEEP {
            swept = begun;
            if let Err(error) = inner.sweep().await {
                tracing::debug!(%error, "old revocations stay for now: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::{Database, eventually};

    use super::*;

    const TTL: Duration = Duration::from_mins(15);

    #[tokio::test]
    async fn another_process_knows_within_a_second() {
        let database = Database::new().await;
        let stop = CancellationToken::new();
        let here = Revocations::open(database.pool().clone(), TTL, stop.clone()).await.unwrap();
        let there = Revocations::open(database.pool().clone(), TTL, stop.clone()).await.unwrap();
        let mut told = there.subscribe();
        let session = Uuid::from_u128(7);
        assert!(!here.was_revoked(session).await.unwrap());
        here.revoke(&[session]).await.unwrap();
        here.revoke(&[session]).await.unwrap();
        assert!(here.is_revoked(session) && here.was_revoked(session).await.unwrap());
        eventually("the other knows", Duration::from_secs(1), async || there.is_revoked(session)).await;
        assert_eq!(told.recv().await.unwrap(), session);
        assert!(told.try_recv().is_err(), "told once");
        // And one that starts later.
        let later = Revocations::open(database.pool().clone(), TTL, stop.clone()).await.unwrap();
        assert!(later.is_revoked(session) && !later.is_revoked(Uuid::from_u128(8)));
        stop.cancel();
    }
}
