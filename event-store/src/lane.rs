//! A lane.
use crate::{Log, Options, StoredEvent, rows::ShardRow, task::Task};
use domain::kernel::LogTopic;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
pub(crate) struct Shards;
impl Shards {
    pub(crate) fn new(_: u16, _: &[ShardRow]) -> Self {
        Self
    }
    pub(crate) fn index(shards: u16, topic: LogTopic, shard: u16) -> usize {
        topic as usize * usize::from(shards) + usize::from(shard)
    }
}
pub(crate) struct Lane(mpsc::Receiver<Task>);
impl Lane {
    pub(crate) fn new(
        _: usize,
        _: &Log,
        _: Shards,
        _: &Options,
        r: mpsc::Receiver<Task>,
        _: broadcast::Sender<Arc<[StoredEvent]>>,
        _: CancellationToken,
    ) -> Self {
        Self(r)
    }
    pub(crate) async fn run(mut self) {
        while self.0.recv().await.is_some() {}
    }
}
