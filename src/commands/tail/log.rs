//! From the log, as the relay would publish it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use domain::kernel::LogTopic;
use event_store::Log;
use schemas::CloudEvent;

use super::Arguments;
use super::output::Lines;

/// How often new events are looked for.
const POLL: Duration = Duration::from_millis(200);
/// How many events are read at once.
const PAGE: u32 = 1_000;

pub(super) async fn tail(log: &Log, arguments: &Arguments, base: &str, lines: &Lines) -> anyhow::Result<()> {
    let mut next: HashMap<(LogTopic, u16), u64> = HashMap::new();
    for from in &arguments.from {
        if from.shard >= log.shards() {
            bail!("there is no shard {}: the log has {} a topic, from 0", from.shard, log.shards());
        }
        let topic = LogTopic::from_code(from.topic.code()).context("a topic that is not in the log")?;
        next.insert((topic, from.shard), from.position.saturating_sub(1));
    }
    if arguments.from.is_empty() {
        for head in log.heads().await? {
            next.insert((head.topic, head.shard), if arguments.only_new() { head.head } else { 0 });
        }
    }
    loop {
        let mut found = false;
        for head in log.heads().await? {
            let Some(after) = next.get_mut(&(head.topic, head.shard)) else { continue };
            while *after < head.head {
                let events = log.read(head.topic, head.shard, *after, PAGE).await?;
                let Some(last) = events.last() else { break };
                *after = last.position;
                for event in &events {
                    let record = relay::translate(event, log.upcasters())?;
                    if arguments.filter().wants(record.event.event_type(), Some(record.at)) {
                        lines.print(&CloudEvent::new(&record, base)?).await?;
                    }
                }
                found = true;
            }
        }
        if found {
            continue;
        }
        if arguments.no_follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}
