//! `parlance topics`: the catalogue of topics, and what is really there of it.

mod report;
mod text;

use std::process::ExitCode;

use clap::Args;
use event_store::Log;
use platform::bus::survey;
use platform::config::{CommonFlags, Config, ServeFlags};

use self::report::{LogHeads, Report};
use crate::database::Database;

/// Arguments of `parlance topics`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// One JSON object instead of a text
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let found = match &config.kafka_brokers {
        Some(brokers) => Some(survey(brokers, "").await?),
        None => None,
    };
    // Read after Kafka was looked at: what is published then is in the log by now.
    let heads = match &config.database_url {
        Some(_) => Some(heads(&config, found.as_deref().unwrap_or_default()).await?),
        None => None,
    };
    let report = Report::new(found.as_deref(), heads.as_ref());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn heads(config: &Config, found: &[platform::bus::SurveyedTopic]) -> anyhow::Result<LogHeads> {
    let database = Database::beside(config).await?;
    let pool = database.pool("topics", 1).await?;
    let heads = async { LogHeads::read(&Log::open(pool.clone()).await?, found).await }.await;
    pool.close().await;
    database.stop().await;
    heads
}
