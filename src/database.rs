//! The database of a command: the configured one, or the private cluster under the data directory.

use platform::config::Config;
use platform::postgres::{Embedded, PoolSettings, connect, parse_url};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

/// Where a command finds the database, and the cluster behind it where that is ours.
pub(crate) struct Database {
    server: PgConnectOptions,
    /// A replica that queries may read.
    replica: Option<PgConnectOptions>,
    embedded: Option<Embedded>,
}

impl Database {
    /// For the server: the private cluster is started, and belongs to this process alone.
    pub(crate) async fn own(config: &Config) -> anyhow::Result<Self> {
        Self::find(config, || Embedded::start(&config.data_dir)).await
    }

    /// For a command beside a server: a running private cluster is used as it is, else started for as long.
    pub(crate) async fn beside(config: &Config) -> anyhow::Result<Self> {
        Self::find(config, || Embedded::attach_or_start(&config.data_dir)).await
    }

    async fn find<F>(config: &Config, supply: impl FnOnce() -> F) -> anyhow::Result<Self>
    where
        F: Future<Output = Result<Embedded, platform::postgres::EmbeddedError>>,
    {
        if let Some(url) = &config.database_url {
            let replica = config.database_read_url.as_ref().map(parse_url).transpose()?;
            return Ok(Self { server: parse_url(url)?, replica, embedded: None });
        }
        let embedded = supply().await?;
        Ok(Self { server: embedded.options().clone(), replica: None, embedded: Some(embedded) })
    }

    /// How connections are made.
    pub(crate) fn server(&self) -> &PgConnectOptions {
        &self.server
    }

    /// How connections to the replica are made, where there is one.
    pub(crate) fn replica(&self) -> Option<&PgConnectOptions> {
        self.replica.as_ref()
    }

    /// A pool of connections for one purpose.
    pub(crate) async fn pool(&self, name: &'static str, max_connections: u32) -> anyhow::Result<PgPool> {
        Ok(connect(&self.server, &PoolSettings::named(name, max_connections)).await?)
    }

    /// Stops the cluster, if this process started it.
    pub(crate) async fn stop(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}
