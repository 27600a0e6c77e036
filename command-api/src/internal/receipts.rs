//! Watermarks: those that somebody waits for, and those that nobody does.

use axum::extract::State;
use http::StatusCode;
use platform::http::{Json, Problem, RequestContext};
use platform::internal::{self, Advance, MOST_MOVES, ReceiptsTaken, TakeReceipts};

use super::credential::Colleague;
use crate::receipts::ReceiptMove;
use crate::service::Service;

/// `POST /internal/v1/receipts/advance`
pub(super) async fn advance(
    _: Colleague,
    State(service): State<Service>,
    context: RequestContext,
    Json(Advance { caller, conversation_id, receipt }): Json<Advance>,
) -> Result<StatusCode, Problem> {
    service.still_welcome(&caller)?;
    let moved = ReceiptMove {
        conversation_id,
        user_id: caller.user_id,
        device_id: caller.device_id,
        delivered_to: receipt.delivered_to,
        read_to: receipt.read_to,
    };
    service.advance(moved, &context.unrecorded()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /internal/v1/receipts`
pub(super) async fn take(
    _: Colleague,
    State(service): State<Service>,
    Json(TakeReceipts { moves }): Json<TakeReceipts>,
) -> Result<Json<ReceiptsTaken>, Problem> {
    if moves.len() > MOST_MOVES {
        return Err(Problem::invalid_at("/moves", "too many at once"));
    }
    // The caller forgets what was taken, and keeps the rest and comes again: what was taken is committed.
    let taken = service.settle_receipts(moves.into_iter().map(own)).await;
    Ok(Json(ReceiptsTaken { taken }))
}

fn own(moved: internal::ReceiptMove) -> ReceiptMove {
    let internal::ReceiptMove { conversation_id, user_id, device_id, delivered_to, read_to } = moved;
    ReceiptMove { conversation_id, user_id, device_id, delivered_to, read_to }
}
