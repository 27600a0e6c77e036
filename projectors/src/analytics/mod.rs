//! Projection `analytics`: who was active when, messages by hour, and how long delivery and reading took.
//!
//! Its tables stand behind views of stable names, documented in the database (`COMMENT ON`): `daily_active_users`,
//! `messages_by_hour`, `delivery_delays`, `read_delays`.

mod activity;
mod course;
mod delays;
mod facts;
mod hours;
mod messages;
mod watermarks;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Record, Topic};
use sqlx::PgConnection;

use crate::projection::{ApplyError, Consumer, Description, Projection};
use activity::Activity;
use course::Course;
use delays::Delays;
use watermarks::Watermarks;

/// See the module.
pub(crate) struct Analytics;

#[async_trait]
impl Projection for Analytics {
    fn describe(&self) -> Description {
        Description {
            name: "analytics",
            consumer: Consumer::Analytics,
            topics: &[Topic::Users, Topic::Conversations],
            tables: &[
                "analytics_conversations",
                "analytics_members",
                "analytics_messages",
                "analytics_messages_by_hour",
                "analytics_messages_by_hour_in_all",
                "analytics_delays",
                "analytics_delays_in_all",
                "analytics_active_users",
                "analytics_active_members",
            ],
        }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        let facts = facts::of(batch);
        if !facts.is_empty() {
            let watermarks = Watermarks::load(connection, &facts).await?;
            let Course { watermarks, sent, mut moves, settled } = Course::of(&facts, watermarks);
            hours::add(connection, &sent).await?;
            messages::observe(connection, &sent, &watermarks, &mut moves).await?;
            Delays::of(&moves).add(connection).await?;
            messages::remember(connection, &sent).await?;
            watermarks.save(connection).await?;
            messages::forget(connection, &settled).await?;
        }
        // Last, since these rows alone are written by those of other shards too, who wait for each other there.
        Activity::of(batch).save(connection).await
    }
}

#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
