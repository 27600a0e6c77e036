//! The contract of the event store, against a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the functions that Clippy knows as such")]

mod basics;
mod concurrency;
mod cqrs;
mod crash;
mod history;
mod model;
mod random;
mod tampering;
mod upcasting;

use std::time::Duration;

use event_store::{Command, Context, EventStore, ExecuteError, Executed, Options};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use testkit::Database;

/// Bounds any wait of these tests.
const BOUND: Duration = Duration::from_mins(1);

/// A store on a database of its own.
async fn store() -> (Database, EventStore) {
    let database = Database::new().await;
    let store = open(&database).await;
    (database, store)
}

/// One more store on a database, as another process has it.
async fn open(database: &Database) -> EventStore {
    open_with(database.options(), Options::default()).await
}

async fn open_with(connect: PgConnectOptions, options: Options) -> EventStore {
    let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(connect);
    EventStore::open(pool, options).await.expect("the store opens")
}

/// Executes as a caller does who never gives up: what cannot be told is asked again.
async fn insist<C: Command + Clone>(store: &EventStore, command: C) -> Result<Executed<C::Output>, C::Refusal> {
    let deadline = tokio::time::Instant::now() + BOUND;
    loop {
        match store.execute(command.clone(), Context::default()).await {
            Ok(executed) => return Ok(executed),
            Err(ExecuteError::Refused(refusal)) => return Err(refusal),
            Err(ExecuteError::Unavailable(_) | ExecuteError::Busy) => {
                assert!(tokio::time::Instant::now() < deadline, "the log never came back");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(ExecuteError::Rejected(error)) => panic!("rejected: {error}"),
            Err(other) => panic!("{other}"),
        }
    }
}
