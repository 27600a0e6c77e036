//! The same for people.

use std::fmt::{self, Formatter};

use super::report::{KafkaReport, PartitionReport, Report, TopicReport};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, topic) in self.topics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{topic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TopicReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.topic, self.summary)?;
        writeln!(f, "  key = {}", self.key)?;
        let count = self.partitions.map_or_else(|| "one a shard".to_owned(), |count| count.to_string());
        writeln!(f, "  partitions = {count}\n      {}", self.partitions_reason)?;
        for setting in self.settings {
            writeln!(f, "  {} = {}\n      {}", setting.name, setting.value, setting.reason)?;
        }
        writeln!(f, "  types, with the versions of their schemas")?;
        let width = self.types.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
        for kind in &self.types {
            let versions: Vec<_> = kind.versions.iter().map(u16::to_string).collect();
            writeln!(f, "      {:width$}  {}  {}", kind.name, versions.join(", "), kind.summary)?;
        }
        self.kafka.as_ref().map_or(Ok(()), |kafka| write!(f, "{kafka}"))
    }
}

impl fmt::Display for KafkaReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (count, records) = (self.partitions.len(), self.records);
        writeln!(f, "  in Kafka: {count} partitions, {records} records")?;
        if self.faults.is_empty() {
            writeln!(f, "      as it has to be")?;
        }
        for fault in &self.faults {
            writeln!(f, "      NOT as it has to be: {fault}")?;
        }
        if !self.partitions.is_empty() {
            writeln!(f, "      partition     offsets               sequence              records     behind the log")?;
        }
        self.partitions.iter().try_for_each(|partition| write!(f, "{partition}"))
    }
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let offsets = range(self.first_offset, self.last_offset);
        let sequence = range(self.first_sequence, self.last_sequence);
        let behind = |head: u64| head.saturating_sub(self.last_sequence.unwrap_or(0)).to_string();
        let behind = self.log_head.map_or_else(|| "?".to_owned(), behind);
        writeln!(f, "      {:<12}  {offsets:<20}  {sequence:<20}  {:<10}  {behind}", self.partition, self.records)
    }
}

fn range<T: fmt::Display>(first: Option<T>, last: Option<T>) -> String {
    match (first, last) {
        (Some(first), Some(last)) => format!("{first}..{last}"),
        _ => "-".to_owned(),
    }
}
