//! Telling: what concerns one node goes there in one piece; what is not taken in time is dropped.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::names::Names;
use super::wire::Writer;
use crate::live::{Channel, Hint};
use crate::redis::{Nodes, Redis};

/// How long all hints that are told at once may take.
const BOUND: Duration = Duration::from_millis(750);
/// What is sent in one piece.
const PIECE_BYTES: usize = 1024 * 1024;

/// What is to be sent next.
struct Piece {
    nodes: Arc<Nodes>,
    /// One for each node.
    pipelines: Vec<Pipeline>,
    bytes: usize,
    /// What there is no node for.
    homeless: usize,
}

impl Piece {
    fn new(nodes: Arc<Nodes>) -> Self {
        let pipelines = nodes.all.iter().map(|_| redis::pipe()).collect();
        Self { nodes, pipelines, bytes: 0, homeless: 0 }
    }

    /// What is to be sent to the node that has a key or a channel.
    fn pipeline(&mut self, name: &str) -> Option<&mut Pipeline> {
        self.pipelines.get_mut(self.nodes.place_of(name.as_bytes())?)
    }

    fn add(&mut self, name: &str, payload: &[u8]) {
        let Some(pipeline) = self.pipeline(name) else {
            self.homeless += 1;
            return;
        };
        pipeline.cmd("SPUBLISH").arg(name).arg(payload);
        self.bytes += name.len() + payload.len();
    }

    /// Sends it, and begins the next.
    async fn send(&mut self, redis: &Redis, bound: Duration) {
        let sent = std::mem::replace(self, Self::new(self.nodes.clone()));
        let each = sent.nodes.all.iter().zip(&sent.pipelines).filter(|(_, pipeline)| !pipeline.is_empty());
        let answers = join_all(each.map(|(node, pipeline)| async move {
            match redis.ask_all(node, pipeline, bound).await {
                Ok(answers) => {
                    let refused = answers.iter().filter(|answer| matches!(answer, Value::ServerError(_))).count();
                    (answers.len() - refused, refused)
                }
                Err(_) => (0, pipeline.len()),
            }
        }))
        .await;
        let (told, dropped) = answers
            .into_iter()
            .fold((0, sent.homeless), |(told, dropped), (more, fewer)| (told + more, dropped + fewer));
        metrics::counter!("parlance_live_published_total").increment(told as u64);
        metrics::counter!("parlance_live_dropped_total").increment(dropped as u64);
    }
}

/// Tells hints, in their order.
pub(super) async fn hints(redis: &Redis, names: &Names, hints: &[Hint]) {
    let end = Instant::now() + BOUND;
    let mut writer = Writer::default();
    let mut piece = Piece::new(redis.nodes());
    for hint in hints {
        let Some(payload) = writer.hint(hint) else { continue };
        match &hint.audience {
            Some(members) => members.iter().for_each(|id| piece.add(&names.name(Channel::User(*id)), &payload)),
            None => piece.add(&names.name(hint.channel), &payload),
        }
        if piece.bytes >= PIECE_BYTES {
            piece.send(redis, end.saturating_duration_since(Instant::now())).await;
        }
    }
    piece.send(redis, end.saturating_duration_since(Instant::now())).await;
}
