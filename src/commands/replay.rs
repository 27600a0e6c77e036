//! `parlance replay`: has the relay publish records again, for consumers that lost their place.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use event_store::Log;
use platform::config::{CommonFlags, Config, ServeFlags};
use relay::replay::requests::{Progress, Wanted, ask, cancel, progress};
use schemas::{Position, Topic};
use sqlx::PgPool;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::database::Database;

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may stand still: a lease is another's after 3 s, and Kafka may be starting.
const PATIENCE: Duration = Duration::from_mins(1);

/// Arguments of `parlance replay`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// What to publish again, such as parlance.conversations.v1, or its shard 3 alone: parlance.conversations.v1/3
    #[arg(value_name = "TOPIC[/SHARD]")]
    target: Target,
    /// The position to begin with, in each shard; on to its head
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
}

/// A topic, or one shard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    topic: Topic,
    shard: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, shard) = match text.split_once('/') {
            Some((topic, shard)) => (topic, shard.parse().ok().map(Some)),
            None => (text, Some(None)),
        };
        let known = || Topic::ALL.map(Topic::name).join(", ");
        let target = Topic::from_name(topic).zip(shard).map(|(topic, shard)| Self { topic, shard });
        target.ok_or_else(|| format!("expected TOPIC or TOPIC/SHARD; topics are {}", known()))
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    if config.kafka_brokers.is_none() {
        eprintln!("parlance: there is no Kafka to publish into again: KAFKA_BROKERS names none");
        return Ok(ExitCode::from(2));
    }
    let database = Database::beside(&config).await?;
    let pool = database.pool("replay", 1).await?;
    let replayed = async {
        let log = Log::open(pool.clone()).await?;
        let wanted = wanted(arguments, &log).await?;
        replay(&pool, &wanted).await
    };
    let replayed = replayed.await;
    pool.close().await;
    database.stop().await;
    replayed
}

/// What that is, as the log stands now.
async fn wanted(arguments: &Arguments, log: &Log) -> anyhow::Result<Vec<Wanted>> {
    let Target { topic, shard } = arguments.target;
    if let Some(shard) = shard {
        ensure!(shard < log.shards(), "there is no shard {shard}: the log has {} a topic, from 0", log.shards());
    }
    let heads: Vec<Position> = relay::heads(log).await?;
    let of_target = heads.iter().filter(|head| head.topic == topic && shard.is_none_or(|shard| head.shard == shard));
    let furthest = of_target.clone().map(|head| head.position).max().unwrap_or(0);
    ensure!(
        arguments.from <= furthest,
        "there is nothing at {} or behind it: the furthest position is {furthest}",
        arguments.from
    );
    let reaching = of_target.filter(|head| head.position >= arguments.from);
    Ok(reaching.map(|head| Wanted { topic, shard: head.shard, first: arguments.from, last: head.position }).collect())
}

/// Asks, and waits until it is done. Whatever ends the waiting ends the replay, but for a kill: what is asked for then is
/// done all the same.
async fn replay(pool: &PgPool, wanted: &[Wanted]) -> anyhow::Result<ExitCode> {
    // Heeded from before it is asked for.
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let id = ask(pool, wanted).await?;
    eprintln!("asked the relay for it, as {id}; Ctrl-C takes it back");
    let ended = tokio::select! {
        ended = follow(pool, id) => ended,
        _ = interrupted.recv() => Ok(None),
        _ = terminated.recv() => Ok(None),
    };
    let at_last = match ended {
        Ok(Some(at_last)) => at_last,
        given_up => {
            cancel(pool, id).await?;
            let at_last = progress(pool, id).await?;
            let (done, records) = (at_last.done, at_last.records);
            eprintln!("taken back: {done} of {records} records were published again");
            given_up?;
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("{} of {} records published again, as {id}", at_last.done, at_last.records);
    for (after, why) in &at_last.failures {
        println!("{}/{} stopped after {}: {why}", after.topic.name(), after.shard, after.position);
    }
    Ok(if at_last.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows how it goes on, until it does no more.
async fn follow(pool: &PgPool, id: Uuid) -> anyhow::Result<Option<Progress>> {
    let mut before = Progress::default();
    let mut moved = Instant::now();
    loop {
        let now = progress(pool, id).await?;
        if now.open == 0 {
            return Ok(Some(now));
        }
        if (now.done, now.open) != (before.done, before.open) {
            eprintln!("{} of {} records", now.done, now.records);
            moved = Instant::now();
            before = now;
        } else if moved.elapsed() >= PATIENCE {
            bail!("nothing was published for {} s: does a relay run, and is Kafka there?", PATIENCE.as_secs());
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_topic_or_a_shard_of_it() {
        assert_eq!("parlance.users.v1".parse(), Ok(Target { topic: Topic::Users, shard: None }));
        assert_eq!("parlance.users.v1/15".parse(), Ok(Target { topic: Topic::Users, shard: Some(15) }));
        for nonsense in ["", "users", "parlance.users.v1/", "parlance.users.v1/x", "parlance.users.v1/3:4"] {
            let refused = nonsense.parse::<Target>().unwrap_err();
            assert!(refused.contains("parlance.users.v1, parlance.conversations.v1"), "{refused}");
        }
    }
}
