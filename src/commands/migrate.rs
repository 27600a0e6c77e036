//! `parlance migrate`: brings the database up to date.

use std::process::ExitCode;

use platform::config::{CommonFlags, Config, ServeFlags};

use crate::database::Database;

pub(crate) async fn run(common: &CommonFlags) -> anyhow::Result<ExitCode> {
    let config = Config::load(common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("migrate", 1).await?;
    let migrated = migrations::run(&pool).await;
    pool.close().await;
    database.stop().await;
    migrated?;
    println!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}
