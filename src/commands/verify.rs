//! `parlance verify`: proves that no event was changed, removed or reordered.

use std::process::ExitCode;

use platform::config::{CommonFlags, Config, ServeFlags};

use crate::database::Database;

pub(crate) async fn run(common: &CommonFlags) -> anyhow::Result<ExitCode> {
    let config = Config::load(common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("verify", 1).await?;
    let verified = async { anyhow::Ok(event_store::Log::open(pool.clone()).await?.verify().await?) }.await;
    pool.close().await;
    database.stop().await;
    let verification = verified?;
    for shard in &verification.shards {
        if let Some(fault) = &shard.fault {
            println!("{:?}/{}: {fault}", shard.topic, shard.shard);
        }
    }
    if verification.is_sound() {
        println!("sound: {} events in {} shards", verification.events(), verification.shards.len());
        Ok(ExitCode::SUCCESS)
    } else {
        println!("NOT sound: see the first wrong position of each shard above");
        Ok(ExitCode::FAILURE)
    }
}
