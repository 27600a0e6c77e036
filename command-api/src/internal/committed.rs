//! What is committed here, for relays in other processes.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use event_store::{Committed, CommittedBatch};
use futures::stream;
use tokio_util::sync::CancellationToken;

use super::credential::Colleague;
use crate::service::Service;

/// So much is sent in one piece, where it waits.
const PIECE_BYTES: usize = 64 * 1024;

/// `POST /internal/v1/committed`
///
/// Until the server stops, or the store is closed. Who reads slowly is told of what went by without it.
pub(super) async fn committed(
    _: Colleague,
    State(service): State<Service>,
    Extension(stop): Extension<CancellationToken>,
) -> Body {
    let pieces = stream::unfold(service.store().committed(), move |mut committed| {
        let stop = stop.clone();
        async move {
            let first = stop.run_until_cancelled(committed.next()).await??;
            Some((Ok::<_, std::convert::Infallible>(piece(&first, &mut committed)), committed))
        }
    });
    Body::from_stream(pieces)
}

/// A batch, and those that wait behind it.
fn piece(first: &CommittedBatch, committed: &mut Committed) -> Bytes {
    let mut piece = Vec::new();
    first.write(&mut piece);
    while piece.len() < PIECE_BYTES
        && let Some(batch) = committed.try_next()
    {
        batch.write(&mut piece);
    }
    piece.into()
}
