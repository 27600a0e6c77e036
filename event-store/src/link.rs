//! A lane's own connection: opened when it is needed, never kept when its state is in doubt.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSeverity};
use sqlx::{ConnectOptions, PgConnection};
use tokio::time::timeout;

use crate::options::Options;

/// What a failed statement means for the batch.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another process wrote to a shard of the batch. Nothing was done.
    Moved,
    /// A stream or key exists that was thought not to. Nothing was done.
    Collision(Arc<sqlx::Error>),
    /// The database wants us to try again. Nothing was done.
    Passing(Arc<sqlx::Error>),
    /// The database is not able to work at present. Nothing was done.
    Away(Arc<sqlx::Error>),
    /// The database refuses what it was given. Nothing was done.
    Rejected(Arc<sqlx::Error>),
    /// No answer came. What was done is not known.
    Lost(Arc<sqlx::Error>),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        let Some(answer) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        else {
            return match error {
                // The statement was never sent, or its answer was read to the end and not understood.
                sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                    Self::Rejected(Arc::new(error))
                }
                _ => Self::Lost(Arc::new(error)),
            };
        };
        // FATAL and PANIC end the session, and may come after the commit (while it waits for a standby, for one).
        // An ERROR says that the transaction is rolled back.
        if answer.severity() != PgSeverity::Error {
            return Self::Lost(Arc::new(error));
        }
        match answer.code() {
            "PA001" => Self::Moved,
            "23505" => Self::Collision(Arc::new(error)),
            "40001" | "40P01" | "55P03" => Self::Passing(Arc::new(error)),
            // Read-only, out of resources, cancelled (a statement's time is up), failing disk.
            "25006" => Self::Away(Arc::new(error)),
            code if ["53", "57", "58"].iter().any(|class| code.starts_with(class)) => Self::Away(Arc::new(error)),
            _ => Self::Rejected(Arc::new(error)),
        }
    }
}

impl Trouble {
    /// Whether the connection is good for another statement.
    fn leaves_connection(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }
}

/// A connection that is opened anew after it was lost.
#[derive(Debug)]
pub(crate) struct Link {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    in_transaction: bool,
    connect_timeout: Duration,
    bound: Duration,
}

impl Link {
    pub(crate) fn new(pool: &PgConnectOptions, name: &str, options: &Options) -> Self {
        let millis = options.statement_timeout.as_millis().to_string();
        let settings = [
            ("statement_timeout", millis.as_str()),
            // A transaction that we lost must not hold its row locks for long.
            ("idle_in_transaction_session_timeout", millis.as_str()),
            // Few statements, always the same, all by index: plan them once, and never by what the statistics of a
            // young table say.
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
            // After its locks, a transaction must see what others committed before.
            ("default_transaction_isolation", "read committed"),
        ];
        Self {
            options: pool.clone().application_name(name).options(settings),
            connection: None,
            in_transaction: false,
            connect_timeout: options.connect_timeout,
            bound: options.statement_timeout + options.statement_timeout / 4,
        }
    }

    /// The connection, to run one statement with and to give back to [`settle`](Self::settle). Taken out meanwhile, so
    /// that a statement that is cut short takes its connection with it.
    pub(crate) async fn take(&mut self) -> Result<PgConnection, Trouble> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        match timeout(self.connect_timeout, self.options.connect()).await {
            Ok(connected) => connected.map_err(|error| Trouble::Lost(Arc::new(error))),
            Err(_) => Err(Trouble::Lost(Arc::new(timed_out("connecting took too long")))),
        }
    }

    /// Takes a connection back, unless its statement was lost.
    pub(crate) fn settle<T>(&mut self, connection: PgConnection, result: Result<T, sqlx::Error>) -> Result<T, Trouble> {
        let result = result.map_err(Trouble::from);
        if result.as_ref().err().is_none_or(Trouble::leaves_connection) {
            self.connection = Some(connection);
        }
        result
    }

    /// How long a statement may take, as seen from here.
    pub(crate) fn bound(&self) -> Duration {
        self.bound
    }

    async fn simple(&mut self, sql: &'static str) -> Result<(), Trouble> {
        let mut connection = self.take().await?;
        let result = bounded(self.bound, sqlx::raw_sql(sql).execute(&mut connection)).await;
        self.settle(connection, result.map(|_| ()))
    }

    pub(crate) async fn begin(&mut self) -> Result<(), Trouble> {
        self.simple("BEGIN").await?;
        self.in_transaction = true;
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Result<(), Trouble> {
        self.in_transaction = false;
        self.simple("COMMIT").await
    }

    /// Ends a transaction that is open, and the connection where that fails.
    pub(crate) async fn abort(&mut self) {
        if std::mem::take(&mut self.in_transaction)
            && self.connection.is_some()
            && self.simple("ROLLBACK").await.is_err()
        {
            self.connection = None;
        }
    }
}

/// The statement's result, or an error of its own when it takes too long.
pub(crate) async fn bounded<T>(
    bound: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(bound, statement).await.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
}

fn timed_out(what: &'static str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
}
