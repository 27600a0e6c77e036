//! `parlance tail`: events of the log as CloudEvents in structured mode, one a line.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use domain::kernel::LogTopic;
use event_store::Log;
use platform::config::{CommonFlags, Config, ServeFlags};
use schemas::{CloudEvent, DEFAULT_BASE, Topic};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::database::Database;

/// How often new events are looked for.
const POLL: Duration = Duration::from_millis(200);
/// How many events are read at once.
const PAGE: u32 = 1_000;

/// Arguments of `parlance tail`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// Only events of this type, such as message.sent
    #[arg(value_name = "TYPE")]
    event_type: Option<String>,
    /// Begin a shard at a position, such as parlance.conversations.v1/3:1042; may be given several times, and then other
    /// shards are left out
    #[arg(long, value_name = "TOPIC/SHARD:N")]
    from: Vec<From>,
    /// Only events from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// Stop at the end of the log instead of waiting for more
    #[arg(long)]
    no_follow: bool,
}

/// Where to begin in one shard.
#[derive(Clone, Copy)]
struct From {
    topic: Topic,
    shard: u16,
    position: u64,
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (topic, rest) = text.split_once('/')?;
            let (shard, position) = rest.split_once(':')?;
            let topic = Topic::ALL.into_iter().find(|known| known.name() == topic)?;
            Some(Self { topic, shard: shard.parse().ok()?, position: position.parse().ok()? })
        };
        parts().ok_or_else(|| "expected TOPIC/SHARD:N, such as parlance.conversations.v1/3:1042".to_owned())
    }
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("not an RFC 3339 time: {error}"))
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("tail", 1).await?;
    let base = config.public_url.as_ref().map_or_else(|| DEFAULT_BASE.to_owned(), |url| url.join(""));
    let ended = tokio::select! {
        ended = async { tail(&Log::open(pool.clone()).await?, arguments, base.trim_end_matches('/')).await } => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    pool.close().await;
    database.stop().await;
    ended.map(|()| ExitCode::SUCCESS)
}

async fn tail(log: &Log, arguments: &Arguments, base: &str) -> anyhow::Result<()> {
    let mut next: HashMap<(LogTopic, u16), u64> = HashMap::new();
    for from in &arguments.from {
        if from.shard >= log.shards() {
            bail!("there is no shard {}: the log has {} a topic, from 0", from.shard, log.shards());
        }
        let topic = LogTopic::from_code(from.topic.code()).context("a topic that is not in the log")?;
        next.insert((topic, from.shard), from.position.saturating_sub(1));
    }
    // Who names no start and follows wants what comes; everybody else wants what is there.
    let from_now = arguments.from.is_empty() && arguments.since.is_none() && !arguments.no_follow;
    if arguments.from.is_empty() {
        for head in log.heads().await? {
            next.insert((head.topic, head.shard), if from_now { head.head } else { 0 });
        }
    }
    loop {
        let mut printed = false;
        for head in log.heads().await? {
            let Some(after) = next.get_mut(&(head.topic, head.shard)) else { continue };
            while *after < head.head {
                let events = log.read(head.topic, head.shard, *after, PAGE).await?;
                let Some(last) = events.last() else { break };
                *after = last.position;
                for event in &events {
                    print(&relay::translate(event, log.upcasters())?, arguments, base)?;
                }
                printed = true;
            }
        }
        if printed {
            continue;
        }
        if arguments.no_follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn print(record: &schemas::Record, arguments: &Arguments, base: &str) -> anyhow::Result<()> {
    let wanted = arguments.event_type.as_deref().is_none_or(|kind| kind == record.event.event_type());
    if wanted && arguments.since.is_none_or(|since| record.at >= since) {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &CloudEvent::new(record, base)?)?;
        writeln!(out)?;
    }
    Ok(())
}
