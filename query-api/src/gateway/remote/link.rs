//! One command-api: a task keeps a connection to it, and calls use it while it stands.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use hyper::client::conn::http2::SendRequest;
use platform::http::TraceId;
use platform::internal::dial;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between tries to connect: at first, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Calls under way, of as many as a server lets us have.
const MOST_CALLS: usize = 512;
/// The largest answer, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// The call came to nothing, or nobody knows what it came to: the connection is not there, or broke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

/// A command-api; its connection goes with this value.
pub(super) struct Link {
    url: String,
    token: HeaderValue,
    sender: watch::Receiver<Option<SendRequest<Body>>>,
    calls: Semaphore,
    _stop: DropGuard,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Link {
    /// A link to the command-api at `url`; `news` is told when it stands.
    pub(super) fn new(url: &str, token: HeaderValue, news: watch::Sender<()>) -> Self {
        let stop = CancellationToken::new();
        let (publish, sender) = watch::channel(None);
        tokio::spawn({
            let (url, stop) = (url.to_owned(), stop.clone());
            async move { stop.run_until_cancelled(keep(&url, publish, news)).await }
        });
        Self { url: url.to_owned(), token, sender, calls: Semaphore::new(MOST_CALLS), _stop: stop.drop_guard() }
    }

    /// The URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether calls can go there.
    pub(super) fn stands(&self) -> bool {
        self.sender.borrow().as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Posts a body, and reads what comes back.
    pub(super) async fn post(&self, path: &str, body: Bytes, trace: TraceId) -> Result<(StatusCode, Bytes), Broken> {
        let sender = self.sender.borrow().clone().filter(|sender| !sender.is_closed());
        let mut sender = sender.ok_or(Broken)?;
        // Closed never: it goes with the link.
        let _permit = self.calls.acquire().await.map_err(|_| Broken)?;
        let request = Request::post(format!("{}{path}", self.url))
            .header(AUTHORIZATION, self.token.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("traceparent", trace.traceparent())
            .body(Body::from(body))
            .map_err(|_| Broken)?;
        let answer = sender.send_request(request).await.map_err(|error| self.broke(&error))?;
        let status = answer.status();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), LONGEST_ANSWER).await;
        Ok((status, body.map_err(|error| self.broke(&error))?))
    }

    fn broke(&self, error: &(dyn std::error::Error + 'static)) -> Broken {
        tracing::debug!(error, url = self.url, "a call to {} came to nothing", self.url);
        Broken
    }
}

/// Connects, and again whenever the connection broke.
async fn keep(url: &str, publish: watch::Sender<Option<SendRequest<Body>>>, news: watch::Sender<()>) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        match dial(url).await {
            Ok((sender, driver)) => {
                tracing::info!(url, "commands can go to {url}");
                (pause, told) = (FIRST_PAUSE, false);
                publish.send_replace(Some(sender));
                news.send_replace(());
                // Detached where this task ends first: calls under way still use it.
                let _ = driver.await;
                publish.send_replace(None);
                tracing::info!(url, "the connection to {url} is gone");
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = &error as &dyn std::error::Error, url, "cannot send commands to {url}");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
