//! `parlance tail`: events as CloudEvents in structured mode, one a line, from Kafka where there is one, else from the log.

mod filter;
mod kafka;
mod log;
mod output;
mod place;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use event_store::Log;
use platform::config::{CommonFlags, Config, ServeFlags};
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::filter::{Filter, parse_type};
use self::output::{Lines, Output};
use self::place::From;
use super::parse_time;
use crate::database::Database;
use crate::server::schema_base;

/// How long the reader of our output may take for the last lines, once we are told to end.
const LAST_LINES: Duration = Duration::from_millis(300);

/// Arguments of `parlance tail`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// Only events of this type, such as message.sent
    #[arg(value_name = "TYPE", value_parser = parse_type)]
    event_type: Option<String>,
    /// Begin a shard at a position, such as parlance.conversations.v1/3:1042; may be given several times, and then other
    /// shards are left out
    #[arg(long, value_name = "TOPIC/SHARD:N")]
    from: Vec<From>,
    /// Only events from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// Stop at the end of what is there instead of waiting for more
    #[arg(long)]
    no_follow: bool,
}

impl Arguments {
    /// Whether only what is new is wanted: who names no start and follows wants what comes, everybody else what is there.
    fn only_new(&self) -> bool {
        self.from.is_empty() && self.since.is_none() && !self.no_follow
    }

    fn filter(&self) -> Filter<'_> {
        Filter { event_type: self.event_type.as_deref(), since: self.since }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let Output { lines, written } = Output::start()?;
    let interrupted = CancellationToken::new();
    let interrupt = interrupted.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupt.cancel();
        }
    });
    let tailed = tail(&config, arguments, lines, &interrupted).await;
    if interrupted.is_cancelled() {
        // Whoever reads us may read no more.
        let _ = timeout(LAST_LINES, written).await;
        return tailed.map(|()| ExitCode::SUCCESS);
    }
    // A pipe that was closed is the end of it, and no failure.
    match written.await {
        Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(())) | Err(_) => tailed.map(|()| ExitCode::SUCCESS),
    }
}

/// Prints until the end, or until it is interrupted, which is one too.
async fn tail(
    config: &Config,
    arguments: &Arguments,
    lines: Lines,
    interrupted: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(brokers) = &config.kafka_brokers {
        let tailing = kafka::tail(brokers, arguments, &lines);
        return interrupted.run_until_cancelled(tailing).await.unwrap_or(Ok(()));
    }
    // A private cluster that was started for this is stopped in any case.
    let database = Database::beside(config).await?;
    let pool = database.pool("tail", 1).await?;
    let base = schema_base(config.public_url.as_ref());
    let tailing = async { log::tail(&Log::open(pool.clone()).await?, arguments, &base, &lines).await };
    let tailed = interrupted.run_until_cancelled(tailing).await.unwrap_or(Ok(()));
    pool.close().await;
    database.stop().await;
    tailed
}
