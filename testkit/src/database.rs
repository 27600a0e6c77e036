//! A fresh, migrated database for one test.

use std::{
    env, process,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, Durability};

/// URL of a superuser on a running server. Unset: each test process starts its own.
const SERVER_VARIABLE: &str = "PARLANCE_TEST_DATABASE_URL";
/// Advisory lock held while the template is made.
const TEMPLATE_LOCK: i64 = 0x7061_726C;
const POOL_SIZE: u32 = 10;

/// A server that tests make their databases on.
#[derive(Debug)]
struct Server {
    admin: PgConnectOptions,
    template: String,
    /// Dropped never: a static keeps it, and its server ends with this process.
    _cluster: Option<Cluster>,
}

static SHARED: OnceCell<Server> = OnceCell::const_new();
static DURABLE: OnceCell<Server> = OnceCell::const_new();

/// A database of one test's own, with all migrations applied; dropped with this value.
#[derive(Debug)]
pub struct Database {
    name: String,
    admin: PgConnectOptions,
    pool: PgPool,
}

impl Database {
    /// A database on the server that all tests share, where commits cost nothing and survive nothing.
    pub async fn new() -> Self {
        let server = SHARED.get_or_try_init(Server::shared).await;
        Self::on(server.expect("a PostgreSQL for the tests")).await
    }

    /// A database at PostgreSQL's default durability, for tests that crash the engine or measure commits.
    pub async fn durable() -> Self {
        let server = DURABLE.get_or_try_init(|| Server::private(Durability::Full)).await;
        Self::on(server.expect("a durable PostgreSQL for the tests")).await
    }

    /// Connections to it, as the role that owns everything in it.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Its URL, for programs that connect by themselves.
    #[must_use]
    pub fn url(&self) -> String {
        self.options().to_url_lossy().into()
    }

    /// How to connect to it, for pools with settings of their own.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.admin.clone().database(&self.name)
    }

    async fn on(server: &Server) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("parlance_test_{}_{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        server.copy_template(&name).await.expect("a database for the test");
        let admin = server.admin.clone();
        let pool = PgPoolOptions::new().max_connections(POOL_SIZE).connect_lazy_with(admin.clone().database(&name));
        Self { name, admin, pool }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // The test's runtime is busy right here, in this very call: a thread with a runtime of its own.
        let dropped = thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(drop_database(&admin, &name))
        })
        .join();
        if let Ok(Err(error)) = dropped {
            tracing::warn!(database = self.name, %error, "the test's database stays behind");
        }
    }
}

impl Server {
    /// The one the environment names, else a private one.
    async fn shared() -> Result<Self> {
        match env::var(SERVER_VARIABLE) {
            Ok(url) => Self::with_template(&url, None)
                .await
                .with_context(|| format!("cannot use the server of {SERVER_VARIABLE}")),
            Err(_) => Self::private(Durability::None).await,
        }
    }

    async fn private(durability: Durability) -> Result<Self> {
        let cluster = Cluster::start(durability)?;
        let url = cluster.url();
        Self::with_template(&url, Some(cluster)).await
    }

    async fn with_template(url: &str, cluster: Option<Cluster>) -> Result<Self> {
        let server = Self {
            admin: PgConnectOptions::from_str(url)?,
            // A server that outlives a change of the migrations gets a new template.
            template: format!("parlance_template_{:016x}", migrations::fingerprint()),
            _cluster: cluster,
        };
        let mut admin = server.admin.connect().await?;
        sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut admin).await?;
        server.make_template(&mut admin).await?;
        admin.close().await?; // and with it the lock
        Ok(server)
    }

    /// Makes the template under a passing name: one that bears its own is whole.
    async fn make_template(&self, admin: &mut PgConnection) -> Result<()> {
        let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&self.template)
            .fetch_one(&mut *admin)
            .await?;
        if known {
            return Ok(());
        }
        let draft = format!("{}_draft", self.template);
        execute(admin, format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await?;
        execute(admin, format!("CREATE DATABASE {draft}")).await?;
        let pool = PgPoolOptions::new().max_connections(2).connect_with(self.admin.clone().database(&draft)).await?;
        let migrated = migrations::run(&pool).await;
        pool.close().await;
        migrated?;
        let rename = format!("ALTER DATABASE {draft} RENAME TO {}", self.template);
        execute(admin, rename).await
    }

    async fn copy_template(&self, name: &str) -> Result<()> {
        let mut admin = self.admin.connect().await?;
        let copy = format!("CREATE DATABASE {name} TEMPLATE {}", self.template);
        execute(&mut admin, copy).await?;
        Ok(admin.close().await?)
    }
}

async fn drop_database(admin: &PgConnectOptions, name: &str) -> Result<()> {
    let mut connection = admin.connect().await?;
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    execute(&mut connection, drop).await?;
    Ok(connection.close().await?)
}

/// For statements that take no parameters; the names in them are made here, of letters, digits and `_`.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn databases(admin: &PgConnectOptions, name: &str) -> i64 {
        let mut connection = admin.connect().await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn each_test_has_a_migrated_database_of_its_own() {
        let (one, other) = tokio::join!(Database::new(), Database::new());
        for database in [&one, &other] {
            let mut connection = PgConnection::connect(&database.url()).await.unwrap();
            let (name, migrated): (String, bool) =
                sqlx::query_as("SELECT current_database()::text, to_regclass('log.events') IS NOT NULL")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
            assert_eq!(name, database.name);
            assert!(migrated);
        }
        assert_ne!(one.name, other.name);
    }

    #[tokio::test]
    async fn a_database_goes_with_its_test_though_connections_are_open() {
        let database = Database::new().await;
        let (admin, name) = (database.admin.clone(), database.name.clone());
        let _open = database.pool().acquire().await.unwrap();
        assert_eq!(databases(&admin, &name).await, 1);
        drop(database);
        assert_eq!(databases(&admin, &name).await, 0);
    }
}
