//! The contract of the event store, against a real PostgreSQL.

mod basics;
mod model;

use std::time::Duration;

use event_store::{EventStore, Options};
use testkit::Database;

/// Bounds any wait of these tests.
const BOUND: Duration = Duration::from_secs(60);

/// A store on a database of its own.
async fn store() -> (Database, EventStore) {
    let database = Database::new().await;
    let store = open(&database).await;
    (database, store)
}

/// One more store on a database, as another process has it.
async fn open(database: &Database) -> EventStore {
    open_with(database, Options::default()).await
}

async fn open_with(database: &Database, options: Options) -> EventStore {
    EventStore::open(database.pool().clone(), options).await.expect("the store opens")
}
