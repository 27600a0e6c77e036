//! What is committed here, for relays in other processes.

use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use event_store::{Committed, CommittedBatch, StoredEvent};
use futures::stream;
use platform::http::Json;
use platform::internal;
use tokio_util::sync::CancellationToken;

use super::credential::Colleague;
use crate::service::Service;

/// So much is sent in one piece, where it waits.
const PIECE_BYTES: usize = 64 * 1024;

/// `POST /internal/v1/committed`
///
/// Until the server stops, or the store is closed. Who reads slowly is told that something went by.
pub(super) async fn committed(
    _: Colleague,
    State(service): State<Service>,
    Extension(stop): Extension<CancellationToken>,
    Json(wanted): Json<internal::Committed>,
) -> Body {
    let telling = Telling { committed: service.store().committed(), wanted };
    Body::from_stream(stream::unfold(telling, move |mut telling| {
        let stop = stop.clone();
        async move {
            let piece = stop.run_until_cancelled(telling.next()).await??;
            Some((Ok::<_, Infallible>(piece), telling))
        }
    }))
}

struct Telling {
    committed: Committed,
    wanted: internal::Committed,
}

impl Telling {
    /// Batches with something that is wanted; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.is_empty() {
            let mut batch = Some(self.committed.next().await?);
            while let Some(some) = batch {
                if let Some(wanted) = self.of(some) {
                    wanted.write(&mut piece);
                }
                batch = if piece.len() < PIECE_BYTES { self.committed.try_next() } else { None };
            }
        }
        Some(piece.into())
    }

    /// What is wanted of a batch.
    fn of(&self, batch: CommittedBatch) -> Option<CommittedBatch> {
        let CommittedBatch::Events(events) = batch else { return Some(batch) };
        let wants = |event: &StoredEvent| self.wanted.shards.contains(&(event.topic.code(), event.shard));
        if events.iter().all(wants) {
            return Some(CommittedBatch::Events(events));
        }
        let wanted: Vec<StoredEvent> = events.iter().filter(|event| wants(event)).cloned().collect();
        (!wanted.is_empty()).then(|| CommittedBatch::Events(wanted.into()))
    }
}
