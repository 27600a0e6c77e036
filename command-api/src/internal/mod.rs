//! What gateways and relays in other processes ask: the [`Service`] by HTTP, as `platform::internal` describes it.
//!
//! Any process takes any command: whose conversation it is only matters for speed, so nothing is handed on to another. The
//! gateway has authenticated the callers it speaks for; whether their sessions were revoked since is looked at again.

mod audit;
mod committed;
mod credential;
mod questions;
mod receipts;
mod send;

use axum::routing::any;
use axum::{Extension, Router};
use platform::auth::Caller;
use platform::http::Problem;
use platform::internal::{ADVANCE, COMMITTED, HEADS, POSITIONS, READ_AUDIT, SEND, TAKE_RECEIPTS};
use tokio_util::sync::CancellationToken;

use crate::service::Service;

/// The routes, to be hung in `platform::http::frame`; a proxy before it hands nothing on to them. Answers that have no end
/// of their own end with `stop`.
pub fn router(service: Service, stop: CancellationToken) -> Router {
    // The frame lets POST alone pass; a route of one method would tell others which by `Allow`.
    Router::new()
        .route(SEND, any(send::send))
        .route(ADVANCE, any(receipts::advance))
        .route(TAKE_RECEIPTS, any(receipts::take))
        .route(HEADS, any(questions::heads))
        .route(POSITIONS, any(questions::positions))
        .route(COMMITTED, any(committed::committed))
        .route(READ_AUDIT, any(audit::read))
        .layer(Extension(stop))
        .with_state(service)
}

impl Service {
    /// Refuses a caller whose session was revoked since the gateway looked.
    fn still_welcome(&self, caller: &Caller) -> Result<(), Problem> {
        let revoked = self.authenticator().revocations().is_revoked(caller.session_id);
        if revoked { Err(Problem::unauthorized()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
