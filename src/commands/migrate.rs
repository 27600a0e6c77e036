//! `parlance migrate`: brings the database up to date.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use event_store::Log;
use platform::config::{CommonFlags, Config, ServeFlags};
use sqlx::PgPool;

use crate::database::Database;

/// Arguments of `parlance migrate`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// Shards a topic, 4 to 1024, of a database that has no log yet: they are Kafka's partitions, and stay as they are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4..=1024))]
    shards: Option<u16>,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("migrate", 1).await?;
    let migrated = migrate(&pool, arguments.shards).await;
    pool.close().await;
    database.stop().await;
    migrated?;
    println!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}

async fn migrate(pool: &PgPool, wanted: Option<u16>) -> anyhow::Result<()> {
    migrations::run(pool).await.context("the database cannot be brought up to date")?;
    if let Some(wanted) = wanted {
        let shards = Log::open_or_make(pool.clone(), wanted).await?.shards();
        ensure!(shards == wanted, "the log has {shards} shards a topic since it was made, which stay as they are");
    }
    Ok(())
}
