//! Who takes commands where, by a table in PostgreSQL: each command-api says every second that it is there, and
//! whoever sends commands reads who said so lately.
//!
//! Only the database's clock is read, so that clocks may differ. The list is a hint, as all lists of processes are: who
//! stands in it may be gone since, and whoever calls tries the next.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::PublicUrl;

/// How often a command-api says that it is there, and others look who is.
const BEAT: Duration = Duration::from_secs(1);
/// How long after that it is taken for gone.
const TTL: Duration = Duration::from_secs(4);
/// How long one statement may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who said nothing for so long is forgotten.
const KEEP: Duration = Duration::from_mins(10);

/// The URLs of those that take commands, in their order.
pub type Members = Arc<[String]>;

/// Says that commands are taken at `url`, until `stop`; then says that they are no longer.
pub async fn join(pool: PgPool, url: PublicUrl, stop: CancellationToken) {
    let (url, member) = (url.join(""), Uuid::now_v7());
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = Well::default();
    while stop.run_until_cancelled(beats.tick()).await.is_some() {
        well.note("say that commands are taken here", timeout(PATIENCE, beat(&pool, &url, member)).await);
    }
    let leave = sqlx::query("DELETE FROM state.command_apis WHERE url = $1 AND member = $2").bind(&url).bind(member);
    well.note("say that commands are no longer taken here", timeout(PATIENCE, leave.execute(&pool)).await);
}

async fn beat(pool: &PgPool, url: &str, member: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH gone AS (DELETE FROM state.command_apis WHERE url <> $1 AND seen_at < clock_timestamp() - $3::interval)
         INSERT INTO state.command_apis (url, member, seen_at) VALUES ($1, $2, clock_timestamp())
         ON CONFLICT (url) DO UPDATE SET member = excluded.member, seen_at = excluded.seen_at",
    )
    .bind(url)
    .bind(member)
    .bind(KEEP)
    .execute(pool)
    .await?;
    Ok(())
}

/// Who takes commands, as it changes, until `stop`; nobody before the first answer.
///
/// While PostgreSQL is away the last list stands, and for a while after: those on it could not say that they are there.
pub fn watch(pool: PgPool, stop: CancellationToken) -> watch::Receiver<Members> {
    let (members, receiver) = watch::channel(Members::default());
    tokio::spawn(follow(pool, members, stop));
    receiver
}

async fn follow(pool: PgPool, members: watch::Sender<Members>, stop: CancellationToken) {
    let mut looks = interval(BEAT);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = Well::default();
    // When the last one who is on the list for the outage's sake has to have come back.
    let mut until = Instant::now();
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        match well.note("look who takes commands", timeout(PATIENCE, read(&pool)).await) {
            None => until = Instant::now() + TTL,
            Some(mut found) => {
                if Instant::now() < until {
                    found.extend(members.borrow().iter().cloned());
                    found.sort_unstable();
                    found.dedup();
                }
                members.send_if_modified(|known| {
                    let changed = known[..] != found[..];
                    if changed {
                        tracing::info!(count = found.len(), "commands are taken by {found:?}");
                        *known = found.into();
                    }
                    changed
                });
            }
        }
    }
}

async fn read(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let mut found: Vec<String> =
        sqlx::query_scalar("SELECT url FROM state.command_apis WHERE seen_at > clock_timestamp() - $1::interval")
            .bind(TTL)
            .fetch_all(pool)
            .await?;
    // By their bytes, whatever the database sorts by.
    found.sort_unstable();
    Ok(found)
}

/// Whether the last statement was carried out: an outage is told once, and so is its end.
#[derive(Default)]
struct Well {
    away: bool,
}

impl Well {
    fn note<T>(
        &mut self,
        what: &str,
        outcome: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Option<T> {
        let error = match outcome {
            Ok(Ok(done)) => {
                if std::mem::take(&mut self.away) {
                    tracing::info!("can {what} again");
                }
                return Some(done);
            }
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        if !std::mem::replace(&mut self.away, true) {
            tracing::warn!(error, "cannot {what}: {error}");
        }
        None
    }
}

#[cfg(test)]
mod tests;
