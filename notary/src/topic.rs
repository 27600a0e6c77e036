//! Signed heads in Kafka, where the database's owner does not reach.

use std::collections::VecDeque;

use async_trait::async_trait;
use platform::bus::{KafkaError, LineTopic};

use crate::ledger::{Ledger, LedgerError, Statements};
use crate::repeats::Repeats;

/// What the topic is called.
pub const HEADS_TOPIC: &str = "parlance.audit-heads.v1";

/// Statements in a topic of one partition, a record each.
pub struct TopicLedger {
    topic: LineTopic,
    read: VecDeque<String>,
    /// What was written twice is read once, wherever it stands: behind a newer one too.
    repeats: Repeats,
}

impl TopicLedger {
    /// The topic of these brokers.
    pub fn new(brokers: &str) -> Self {
        Self::named(brokers, HEADS_TOPIC)
    }

    pub(crate) fn named(brokers: &str, name: &str) -> Self {
        Self { topic: LineTopic::new(brokers, name), read: VecDeque::new(), repeats: Repeats::default() }
    }
}

fn failed(error: KafkaError) -> LedgerError {
    LedgerError::Other("the topic of signed heads", Box::new(error))
}

#[async_trait]
impl Statements for TopicLedger {
    fn name(&self) -> String {
        format!("the topic {}", self.topic.name())
    }

    async fn rewind(&mut self) -> Result<(), LedgerError> {
        self.topic.rewind();
        self.read.clear();
        self.repeats.clear();
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, LedgerError> {
        loop {
            if self.read.is_empty() {
                self.read.extend(self.topic.page().await.map_err(failed)?);
            }
            let Some(line) = self.read.pop_front() else { return Ok(None) };
            if self.repeats.is_new(&line) {
                return Ok(Some(line));
            }
        }
    }
}

#[async_trait]
impl Ledger for TopicLedger {
    async fn tail(&mut self) -> Result<Vec<String>, LedgerError> {
        self.topic.ensure().await.map_err(failed)?;
        self.topic.tail().await.map_err(failed)
    }

    async fn append(&mut self, lines: &[String]) -> Result<(), LedgerError> {
        self.topic.append(lines).await.map_err(failed)
    }
}
