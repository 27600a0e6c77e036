//! What a projection is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Record, Topic};
use sqlx::PgConnection;

/// Tables that are filled from topics.
///
/// It is a pure consequence of the log: empty its tables, and the same records bring the same rows back, whatever the
/// batches they come in.
#[async_trait]
pub trait Projection: Send + Sync {
    /// What it is called and made of.
    fn describe(&self) -> Description;

    /// Brings the tables up to date: records of any shards, within a shard in order, none of them applied before.
    ///
    /// Writes by unqualified table names: the connection's search path says which copy of them is meant. What is no read
    /// model it writes elsewhere, and then has to see to it that a rebuild does not write it again.
    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError>;
}

/// A projection's name and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The name in checkpoints and commands; it never changes.
    pub name: &'static str,
    /// Whose checkpoints it moves with.
    pub consumer: Consumer,
    /// Where its records come from; in no order between topics.
    pub topics: &'static [Topic],
    /// Its tables: no other projection touches them.
    pub tables: &'static [&'static str],
}

/// Who reads the topics, at a pace of its own: the projections of one are applied together, and wait for no other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// What queries answer from: positions tell how far these have got.
    ReadModels,
    /// What dashboards show.
    Analytics,
    /// Who did what, for operators.
    Audit,
    /// What is pushed to those who are away, and told to webhooks.
    Notifications,
}

impl Consumer {
    pub(crate) const ALL: [Self; 4] = [Self::ReadModels, Self::Analytics, Self::Audit, Self::Notifications];

    /// The name in checkpoints; it never changes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ReadModels => "read_models",
            Self::Analytics => "analytics",
            Self::Audit => "audit",
            Self::Notifications => "notifications",
        }
    }

    /// At most a batch in this time, unless enough wait; the first after a pause goes at once.
    pub(crate) fn pace(self) -> Duration {
        match self {
            Self::ReadModels => Duration::from_millis(20),
            // Nobody waits for these as for a message, and what little there is to do at low rates costs by the batch.
            Self::Analytics | Self::Audit => Duration::from_secs(1),
            // The first push waits longer than that anyway.
            Self::Notifications => Duration::from_millis(500),
        }
    }

    /// How long a record may wait for others before it is fetched.
    pub(crate) fn leisure(self) -> Duration {
        match self {
            Self::ReadModels => Duration::ZERO,
            Self::Analytics | Self::Audit | Self::Notifications => Duration::from_millis(500),
        }
    }
}

/// Why a batch was not applied. Its text says nothing of what records contain.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A record that can never be applied: it is put aside, with all that follow it under its key.
    #[error("{0}")]
    Poison(String),
    /// The database did not do it; the same batch is tried again.
    #[error("the read models' database cannot be written")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for ApplyError {
    /// Values that no column takes are the record's fault; whatever else goes wrong is the database's.
    fn from(error: sqlx::Error) -> Self {
        let poison = match &error {
            sqlx::Error::Encode(_) => Some("a value that PostgreSQL has no form for".to_owned()),
            sqlx::Error::Database(refusal) => refusal.code().filter(|code| is_data_error(code)).map(|code| {
                let place = refusal.constraint().or(refusal.table()).unwrap_or("a value");
                format!("PostgreSQL refuses {place} with {code}")
            }),
            _ => None,
        };
        poison.map_or(Self::Database(error), Self::Poison)
    }
}

/// Data exceptions, integrity violations, and values too large for an index or a row.
fn is_data_error(code: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| code.starts_with(class))
}
