//! From Kafka, as it stands there: what came twice, what others wrote, and types that this version does not know.

use futures::future::try_join_all;
use platform::bus::{KafkaError, RawReader, RawRecord, Start};
use schemas::Topic;
use schemas::structured_mode::structured;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Arguments;
use super::filter::Filter;
use super::output::Lines;

pub(super) async fn tail(brokers: &str, arguments: &Arguments, lines: &Lines) -> anyhow::Result<()> {
    let wanted = Topic::ALL
        .into_iter()
        .filter(|topic| arguments.from.is_empty() || arguments.from.iter().any(|from| from.topic == *topic));
    try_join_all(wanted.map(|topic| one(brokers, topic, arguments, lines))).await?;
    Ok(())
}

/// One topic, to its end or for ever.
async fn one(brokers: &str, topic: Topic, arguments: &Arguments, lines: &Lines) -> anyhow::Result<()> {
    let from = arguments.from.iter().filter(|from| from.topic == topic);
    let starts = from.map(|from| (from.shard, Start::Position(from.position)));
    let otherwise = match arguments.since {
        _ if !arguments.from.is_empty() => None,
        // What happened then was published later, whenever that was.
        Some(since) => Some(Start::Since(since)),
        None if arguments.only_new() => Some(Start::End),
        None => Some(Start::Beginning),
    };
    let mut reader = RawReader::new((brokers, ""), topic, starts, otherwise, !arguments.no_follow).await?;
    loop {
        match reader.next().await {
            Ok(Some(record)) => print(&record, arguments.filter(), lines).await?,
            Ok(None) => return Ok(()),
            Err(error @ KafkaError::NoTopic(_)) => {
                eprintln!("parlance: {error}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn print(record: &RawRecord, filter: Filter<'_>, lines: &Lines) -> anyhow::Result<()> {
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let event = match structured(headers, &record.data) {
        Ok(event) => event,
        Err(why) => {
            let (topic, shard, offset) = (record.topic.name(), record.shard, record.offset);
            eprintln!("parlance: the record at offset {offset} of {topic}/{shard} is no CloudEvent: {why}");
            return Ok(());
        }
    };
    if filter.wants(text(&event, "type"), at(&event)) {
        lines.print(&event).await?;
    }
    Ok(())
}

fn text<'a>(event: &'a Map<String, Value>, attribute: &str) -> &'a str {
    event.get(attribute).and_then(Value::as_str).unwrap_or_default()
}

fn at(event: &Map<String, Value>) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text(event, "time"), &Rfc3339).ok()
}
