//! `parlance rebuild`: fills a read model anew from the log, while the server runs.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use event_store::Log;
use platform::config::{CommonFlags, Config, ServeFlags};
use relay::LogBackfill;

use crate::database::Database;

/// Arguments of `parlance rebuild`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// The projection, or `all`
    #[arg(value_name = "NAME")]
    which: Option<String>,
    /// Name the projections there are
    #[arg(long)]
    list: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list {
        for projection in projectors::list() {
            let topics: Vec<_> = projection.topics.iter().map(|topic| topic.name()).collect();
            println!("{}\t{}\t{}", projection.name, topics.join(", "), projection.tables.join(", "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(which) = &arguments.which else {
        bail!("name a projection, or `all`; `parlance rebuild --list` names them");
    };
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("rebuild", 4).await?;
    let rebuilt = async {
        let log = Log::open(pool.clone()).await?;
        let shards = log.shards();
        anyhow::Ok(projectors::rebuild(&pool, Arc::new(LogBackfill::new(log)), shards, which).await?)
    }
    .await;
    pool.close().await;
    database.stop().await;
    for projection in rebuilt? {
        let (name, records, parked, took) = (projection.name, projection.records, projection.parked, projection.took);
        println!("{name}: {records} records in {:.1} s, {parked} put aside", took.as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}
