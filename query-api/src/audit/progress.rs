//! How far the audit has got, which has a pace of its own.

use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use platform::http::Problem;
use schemas::{Position, PositionToken, Topic};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use crate::freshness::{Answer, WAIT, strict, wanted};
use crate::state::QueryState;

/// How often its checkpoints are read while somebody waits.
const PACE: Duration = Duration::from_millis(20);

/// What a request asked of the answer's age.
pub(super) struct Wanted {
    places: Vec<Position>,
    strict: bool,
}

impl<S> FromRequestParts<S> for Wanted
where
    S: Send + Sync,
    QueryState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self { places: wanted(&parts.headers)?, strict: strict(&parts.headers) })
    }
}

impl Wanted {
    /// Waits until the audit has got there, and begins an answer; before the data are read.
    pub(super) async fn begin(self, pool: &PgPool) -> Result<Answer, Problem> {
        let end = Instant::now() + WAIT;
        loop {
            let applied = applied(pool).await?;
            let reached = |wanted: &Position| {
                let mut places = applied.places().iter().filter(|place| place.topic == wanted.topic);
                let place = places.find(|place| place.shard == wanted.shard);
                place.map_or(0, |place| place.position) >= wanted.position
            };
            let stale = !self.places.iter().all(reached);
            if !stale || Instant::now() >= end {
                if stale && self.strict {
                    return Err(Problem::unavailable("the audit has not reached Min-Position yet"));
                }
                return Ok(Answer::at(applied, stale));
            }
            sleep(PACE).await;
        }
    }
}

/// How far it has got in each shard.
async fn applied(pool: &PgPool) -> Result<PositionToken, sqlx::Error> {
    let rows: Vec<(i16, i16, i64)> = sqlx::query_as(
        "SELECT topic, shard, position FROM read.checkpoints \
          WHERE projection = 'audit' AND position > 0 ORDER BY topic, shard",
    )
    .fetch_all(pool)
    .await?;
    let place = |(topic, shard, position): (i16, i16, i64)| {
        let topic = Topic::from_code(topic)?;
        Some(Position { topic, shard: shard.cast_unsigned(), position: position.cast_unsigned() })
    };
    let applied: PositionToken = rows.into_iter().filter_map(place).collect();
    if applied.places().is_empty() {
        // Nothing was applied yet, which is a position too.
        return Ok(Position { topic: Topic::Users, shard: 0, position: 0 }.into());
    }
    Ok(applied)
}
