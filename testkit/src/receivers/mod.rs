//! Receivers of notifications that tests bring along: a webhook's server, and a push service with browsers.

mod browser;
mod push_service;
mod webhook;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use browser::Browser;
pub use push_service::{PushService, Pushed};
pub use webhook::{Told, Webhook};

/// What a receiver does from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers with this status.
    Answers(u16),
    /// Answers with this status, and wants to be left alone for so many seconds.
    Later(u16, u64),
    /// Takes what comes and never answers.
    Hangs,
}

impl Manner {
    async fn respond(self) -> Response {
        let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match self {
            Self::Answers(code) => status(code).into_response(),
            Self::Later(code, seconds) => (status(code), [(header::RETRY_AFTER, seconds.to_string())]).into_response(),
            Self::Hangs => std::future::pending().await,
        }
    }
}

/// A server on a free port of this machine, until it is dropped.
async fn serve(router: Router) -> std::io::Result<(SocketAddr, DropGuard)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, stop) = (listener.local_addr()?, CancellationToken::new());
    tokio::spawn(platform::http::serve(listener, router, stop.clone(), Duration::ZERO));
    Ok((address, stop.drop_guard()))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
