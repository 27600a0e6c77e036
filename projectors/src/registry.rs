//! Every projection there is.

use schemas::Topic;

use crate::projection::{Consumer, Description, Projection};
use crate::{analytics, audit, conversations, notifications, receipts, sessions, timeline, users};

/// A line each. Those of one consumer and topic are applied in this order, in one transaction.
pub(crate) static PROJECTIONS: &[&dyn Projection] = &[
    &users::Users,
    &sessions::Sessions,
    &conversations::Conversations,
    &receipts::Receipts,
    &timeline::Timeline,
    &analytics::Analytics,
    &audit::Audit,
    &notifications::Notifications,
];

/// What one consumer applies of one topic.
pub(crate) fn of(consumer: Consumer, topic: Topic) -> impl Iterator<Item = &'static dyn Projection> {
    PROJECTIONS.iter().copied().filter(move |projection| {
        let about = projection.describe();
        about.consumer == consumer && about.topics.contains(&topic)
    })
}

/// What there is to rebuild.
pub fn list() -> Vec<Description> {
    PROJECTIONS.iter().map(|projection| projection.describe()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use testkit::Database;

    use super::*;

    #[tokio::test]
    async fn every_table_belongs_to_one_projection() {
        let database = Database::new().await;
        let tables: HashSet<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.tables \
              WHERE table_schema = 'read' AND table_type = 'BASE TABLE' \
                AND table_name NOT IN ('checkpoints', 'parked', '_sqlx_migrations')",
        )
        .fetch_all(database.pool())
        .await
        .unwrap()
        .into_iter()
        .collect();
        let claimed: Vec<&str> = list().iter().flat_map(|projection| projection.tables).copied().collect();
        assert_eq!(claimed.len(), tables.len());
        assert_eq!(claimed.into_iter().map(str::to_owned).collect::<HashSet<_>>(), tables);
        assert_eq!(list().iter().map(|projection| projection.name).collect::<HashSet<_>>().len(), list().len());
    }
}
