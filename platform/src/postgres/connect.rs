//! Connecting: an engine that is away at the start is waited for, one that refuses us is not.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection, Error, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// How long an engine that is away at the start is waited for.
const START_WAIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(200);
/// A connection idle for longer is asked whether it still lives before it is handed out; asking each time would
/// cost every statement a second round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Why there is no connection. No text here holds a password.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL cannot be read.
    #[error("DATABASE_URL is not a PostgreSQL URL such as postgres://user:password@host:5432/database")]
    Url,
    /// The engine answered, and what it said will not change by waiting.
    #[error("PostgreSQL at {server} refuses the connection")]
    Refused {
        /// Host, port and database.
        server: String,
        /// What the engine said.
        source: Error,
    },
    /// Nothing answered for as long as one may wait.
    #[error("PostgreSQL at {server} was not reachable within {} s", waited.as_secs())]
    Away {
        /// Host, port and database.
        server: String,
        /// How long it was waited for.
        waited: Duration,
        /// The last failure.
        source: Error,
    },
}

/// What a role asks of its pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Shown as `application_name` in the engine's own views.
    pub name: &'static str,
    /// Connections at most.
    pub max_connections: u32,
    /// How long an engine that is away at the start is waited for.
    pub start_wait: Duration,
    /// How long a caller waits for a free connection before it is refused.
    pub acquire_timeout: Duration,
}

impl PoolSettings {
    /// Settings that fit most roles, under a name of the role's own.
    #[must_use]
    pub fn named(name: &'static str, max_connections: u32) -> Self {
        Self { name, max_connections, start_wait: START_WAIT, acquire_timeout: Duration::from_secs(5) }
    }
}

/// Reads a URL; the error does not repeat it, for it may hold a password.
pub fn parse_url(url: &SecretString) -> Result<PgConnectOptions, ConnectError> {
    let url = url.expose_secret();
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(ConnectError::Url);
    }
    PgConnectOptions::from_str(url).map_err(|_| ConnectError::Url)
}

/// Opens a pool once the engine takes connections.
pub async fn connect(server: &PgConnectOptions, settings: &PoolSettings) -> Result<PgPool, ConnectError> {
    let server = server.clone().application_name(settings.name);
    wait_until_reachable(&server, settings.start_wait).await?;
    let pool = options(settings).connect_with(server.clone()).await;
    pool.map_err(|source| ConnectError::Refused { server: describe(&server), source })
}

/// A pool that connects when it is first asked, for an engine that need not be there.
pub fn connect_lazily(server: &PgConnectOptions, settings: &PoolSettings) -> PgPool {
    options(settings).connect_lazy_with(server.clone().application_name(settings.name))
}

fn options(settings: &PoolSettings) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < TRUSTED_IDLE || connection.ping().await.is_ok()) })
        })
}

/// Waits, at most `bound`, until one connection was made; it is closed again.
pub(super) async fn wait_until_reachable(server: &PgConnectOptions, bound: Duration) -> Result<(), ConnectError> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let error = match sqlx::PgConnection::connect_with(server).await {
            Ok(connection) => {
                // Nothing was asked of it: how it ends does not matter.
                drop(connection.close().await);
                return Ok(());
            }
            Err(error) => error,
        };
        if !passes_with_time(&error) {
            return Err(ConnectError::Refused { server: describe(server), source: error });
        }
        let waited = start.elapsed();
        if waited >= bound {
            return Err(ConnectError::Away { server: describe(server), waited, source: error });
        }
        if !told && waited > Duration::from_secs(1) {
            told = true;
            tracing::info!(server = describe(server), %error, "waiting for PostgreSQL");
        }
        sleep(PAUSE.min(bound)).await;
    }
}

/// Whether the engine may think otherwise in a moment: it is away, starting, stopping or full.
fn passes_with_time(error: &Error) -> bool {
    match error {
        Error::Database(refusal) => {
            refusal.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("53"))
        }
        Error::Io(_) | Error::Protocol(_) | Error::PoolTimedOut => true,
        _ => false,
    }
}

/// Host, port and database, without user and password.
fn describe(server: &PgConnectOptions) -> String {
    let database = server.get_database().unwrap_or_default();
    match server.get_socket() {
        Some(socket) => format!("{}/{database}", socket.display()),
        None => format!("{}:{}/{database}", server.get_host(), server.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_named_but_not_repeated() {
        let error = parse_url(&"mysql://me:secret@host".into()).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("DATABASE_URL"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn an_engine_that_stays_away_is_named() {
        // Port 9 (discard) of the loopback: refused at once.
        let server = parse_url(&"postgres://me:secret@127.0.0.1:9/chat".into()).unwrap();
        let settings = PoolSettings { start_wait: Duration::from_millis(300), ..PoolSettings::named("test", 1) };
        let error = connect(&server, &settings).await.unwrap_err();
        assert!(matches!(error, ConnectError::Away { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("PostgreSQL at 127.0.0.1:9/chat"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
