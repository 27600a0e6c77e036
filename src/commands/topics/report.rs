//! What is said of topics: how they have to be, how they are, and where the two differ.

use std::collections::BTreeMap;

use anyhow::Context;
use domain::kernel::LogTopic;
use event_store::Log;
use platform::bus::{SurveyedPartition, SurveyedTopic};
use schemas::catalogue::EVENT_TYPES;
use schemas::{Topic, TopicSetting};
use serde::Serialize;
use uuid::Uuid;

/// What the log says of the shards.
#[derive(Default)]
pub(super) struct LogHeads {
    /// Shards a topic.
    pub(super) shards: u16,
    heads: BTreeMap<(Topic, u16), u64>,
    /// The event at the position where the shard ends in Kafka, if there is one.
    events: BTreeMap<(Topic, u16), Uuid>,
}

/// All topics.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) topics: Vec<TopicReport>,
}

/// A topic.
#[derive(Serialize)]
pub(super) struct TopicReport {
    pub(super) topic: &'static str,
    pub(super) summary: &'static str,
    /// The member of the data that is the ordering key.
    pub(super) key: &'static str,
    /// How many partitions it has to have, where the log is known.
    pub(super) partitions: Option<u16>,
    pub(super) partitions_reason: &'static str,
    pub(super) settings: &'static [TopicSetting],
    pub(super) types: Vec<TypeReport>,
    /// What is there, where Kafka is configured.
    pub(super) kafka: Option<KafkaReport>,
}

/// A type of event.
#[derive(Serialize)]
pub(super) struct TypeReport {
    #[serde(rename = "type")]
    pub(super) name: &'static str,
    pub(super) versions: Vec<u16>,
    pub(super) summary: &'static str,
}

/// A topic as it is in Kafka.
#[derive(Serialize)]
pub(super) struct KafkaReport {
    /// What is not as it has to be.
    pub(super) faults: Vec<String>,
    pub(super) records: u64,
    pub(super) partitions: Vec<PartitionReport>,
}

/// A partition as it is in Kafka.
#[derive(Serialize)]
pub(super) struct PartitionReport {
    pub(super) partition: u16,
    pub(super) records: u64,
    pub(super) first_offset: Option<i64>,
    pub(super) last_offset: Option<i64>,
    pub(super) first_sequence: Option<u64>,
    pub(super) last_sequence: Option<u64>,
    /// The head of the shard in the log, where that is known.
    pub(super) log_head: Option<u64>,
}

impl LogHeads {
    pub(super) async fn read(log: &Log, found: &[SurveyedTopic]) -> anyhow::Result<Self> {
        let mut known = Self { shards: log.shards(), ..Self::default() };
        for head in log.heads().await? {
            let topic = Topic::from_code(head.topic.code()).context("a topic that is not public")?;
            known.heads.insert((topic, head.shard), head.head);
        }
        for SurveyedTopic { topic, partitions, .. } in found {
            let private = LogTopic::from_code(topic.code()).context("a topic that is not in the log")?;
            for partition in partitions.iter().flatten().filter(|partition| partition.shard < known.shards) {
                let Some(head) = partition.head.filter(|head| head.position > 0) else { continue };
                let events = log.read(private, partition.shard, head.position - 1, 1).await?;
                if let Some(event) = events.first().filter(|event| event.position == head.position) {
                    known.events.insert((*topic, partition.shard), event.event_id);
                }
            }
        }
        Ok(known)
    }
}

impl Report {
    pub(super) fn new(found: Option<&[SurveyedTopic]>, log: Option<&LogHeads>) -> Self {
        let topic = |topic: Topic| TopicReport {
            topic: topic.name(),
            summary: topic.summary(),
            key: topic.key(),
            partitions: log.map(|log| log.shards),
            partitions_reason: Topic::PARTITIONS_REASON,
            settings: topic.settings(),
            types: types(topic),
            kafka: found.map(|found| KafkaReport::new(topic, found.iter().find(|found| found.topic == topic), log)),
        };
        Self { topics: Topic::ALL.into_iter().map(topic).collect() }
    }

    /// Whether all is as it has to be, as far as it is known.
    pub(super) fn is_well(&self) -> bool {
        self.topics.iter().all(|topic| topic.kafka.as_ref().is_none_or(|kafka| kafka.faults.is_empty()))
    }
}

fn types(topic: Topic) -> Vec<TypeReport> {
    let of_topic = EVENT_TYPES.iter().filter(|kind| kind.topic == topic);
    let report = |kind: &&schemas::catalogue::EventType| TypeReport {
        name: kind.name,
        versions: kind.versions().collect(),
        summary: kind.summary,
    };
    of_topic.map(report).collect()
}

impl KafkaReport {
    fn new(topic: Topic, found: Option<&SurveyedTopic>, log: Option<&LogHeads>) -> Self {
        let mut faults = Vec::new();
        let there = found.and_then(|found| Some((found.partitions.as_deref()?, &found.differences)));
        let Some((partitions, differences)) = there else {
            return Self { faults: vec!["it is not there".to_owned()], records: 0, partitions: Vec::new() };
        };
        if let Some(log) = log.filter(|log| partitions.len() != usize::from(log.shards)) {
            faults.push(format!("it has {} partitions, not {}", partitions.len(), log.shards));
        }
        faults.extend(differences.iter().map(|difference| {
            format!("{} is {}, not {}", difference.setting.name, difference.found, difference.setting.value)
        }));
        faults.extend(partitions.iter().filter_map(|partition| {
            let why = fault(topic, partition, log)?;
            Some(format!("partition {} {why}", partition.shard))
        }));
        let report = |partition: &SurveyedPartition| {
            let filled = partition.records() > 0;
            PartitionReport {
                partition: partition.shard,
                records: partition.records(),
                first_offset: filled.then_some(partition.first_offset),
                last_offset: filled.then_some(partition.next_offset - 1),
                first_sequence: partition.first,
                last_sequence: partition.head.map(|head| head.position),
                log_head: log.and_then(|log| log.heads.get(&(topic, partition.shard)).copied()),
            }
        };
        Self {
            faults,
            records: partitions.iter().map(SurveyedPartition::records).sum(),
            partitions: partitions.iter().map(report).collect(),
        }
    }
}

/// What is wrong with a partition. That it is behind the log is not: it is filled in a moment.
fn fault(topic: Topic, partition: &SurveyedPartition, log: Option<&LogHeads>) -> Option<String> {
    if partition.is_foreign() {
        return Some("begins or ends with a record that is none of ours".to_owned());
    }
    if let Some(first) = partition.first.filter(|first| *first != 1) {
        return Some(format!("begins at {first}, not at 1"));
    }
    let head = partition.head?;
    let place = (topic, partition.shard);
    let known = log.and_then(|log| Some((*log.heads.get(&place)?, log.events.get(&place))))?;
    match known {
        (of_log, _) if head.position > of_log => Some(format!("ends at {}, the log at {of_log}", head.position)),
        (_, event) if event != Some(&head.event_id) => {
            Some(format!("has another event than the log at {}", head.position))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use platform::bus::Difference;
    use schemas::binary_mode::Head;

    use super::*;

    const OURS: Uuid = Uuid::from_u128(7);
    const EMPTY: SurveyedPartition =
        SurveyedPartition { shard: 0, first_offset: 0, next_offset: 0, first: None, head: None };
    const FILLED: SurveyedPartition = SurveyedPartition {
        shard: 1,
        next_offset: 9,
        first: Some(1),
        head: Some(Head { position: 5, event_id: OURS }),
        ..EMPTY
    };

    fn log(head: u64, event: Uuid) -> LogHeads {
        let place = (Topic::Users, 1);
        LogHeads { shards: 2, heads: [(place, head)].into(), events: [(place, event)].into() }
    }

    fn faults(partitions: Option<Vec<SurveyedPartition>>, log: Option<&LogHeads>) -> Vec<String> {
        let found = SurveyedTopic { topic: Topic::Users, partitions, differences: Vec::new() };
        KafkaReport::new(Topic::Users, Some(&found), log).faults
    }

    #[test]
    fn without_kafka_there_is_the_catalogue_and_nothing_wrong() {
        let report = Report::new(None, None);
        assert!(report.is_well());
        let told: usize = report.topics.iter().map(|topic| topic.types.len()).sum();
        assert_eq!(told, EVENT_TYPES.len());
        let text = report.to_string();
        for kind in EVENT_TYPES {
            assert!(text.contains(kind.name), "{text}");
        }
        assert!(text.contains("cleanup.policy") && text.contains("never compacted"), "{text}");
    }

    #[test]
    fn what_is_as_it_has_to_be_is_well_though_it_lags() {
        let whole = || Some(vec![EMPTY, FILLED]);
        assert_eq!(faults(whole(), None), [""; 0]);
        assert_eq!(faults(whole(), Some(&log(5, OURS))), [""; 0]);
        assert_eq!(faults(whole(), Some(&log(6, OURS))), [""; 0]);
    }

    #[test]
    fn what_differs_is_named() {
        let (sound, other) = (log(5, OURS), log(5, Uuid::nil()));
        assert_eq!(faults(None, None), ["it is not there"]);
        assert_eq!(faults(Some(vec![EMPTY]), Some(&sound)), ["it has 1 partitions, not 2"]);
        let ahead = log(4, OURS);
        assert_eq!(faults(Some(vec![EMPTY, FILLED]), Some(&ahead)), ["partition 1 ends at 5, the log at 4"]);
        let strange = faults(Some(vec![EMPTY, FILLED]), Some(&other));
        assert_eq!(strange, ["partition 1 has another event than the log at 5"]);
        let cut = SurveyedPartition { first: Some(3), ..FILLED };
        assert_eq!(faults(Some(vec![EMPTY, cut]), None), ["partition 1 begins at 3, not at 1"]);
        let foreign = SurveyedPartition { head: None, ..FILLED };
        let wrong = ["partition 1 begins or ends with a record that is none of ours"];
        assert_eq!(faults(Some(vec![EMPTY, foreign]), None), wrong);
        let setting = &Topic::Users.settings()[0];
        let differences = vec![Difference { setting, found: "compact".into() }];
        let found = SurveyedTopic { topic: Topic::Users, partitions: Some(vec![EMPTY, FILLED]), differences };
        let report = Report::new(Some(&[found]), None);
        assert!(!report.is_well());
        let users = report.topics[0].kafka.as_ref().unwrap();
        assert_eq!(users.faults, ["cleanup.policy is compact, not delete"]);
        assert_eq!(report.topics[1].kafka.as_ref().unwrap().faults, ["it is not there"]);
        assert!(report.to_string().contains("NOT as it has to be: cleanup.policy is compact, not delete"), "{report}");
    }
}
