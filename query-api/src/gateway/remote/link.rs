//! One command-api: a task keeps a connection to it, and calls use it while it stands.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use platform::http::TraceId;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long it may take to connect and to be answered for the first time.
const DIAL: Duration = Duration::from_secs(1);
/// Between tries to connect: at first, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Who said nothing for so long is asked whether it is there, and given up if it does not answer in time: a process that
/// was stopped, or cut off, still looks connected.
const PING: Duration = Duration::from_secs(1);
const PONG: Duration = Duration::from_millis(1_500);
/// Calls under way, of as many as a server lets us have.
const MOST_CALLS: usize = 512;
/// The largest answer, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;
const WINDOW: u32 = 1 << 20;
/// What any process answers, if it answers.
const PROBE: &str = "/health/live";

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
        match timeout(DIAL, dial(url)).await.unwrap_or(Err(DialError::Late)) {
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

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("it is no http:// address")]
    Address,
    #[error("it cannot be reached")]
    Unreachable(#[from] std::io::Error),
    #[error("it does not speak HTTP/2")]
    Http(#[from] hyper::Error),
    #[error("it did not answer in time")]
    Late,
}

/// A connection that has answered once: the system connects also to a process that was stopped.
async fn dial(url: &str) -> Result<(SendRequest<Body>, JoinHandle<hyper::Result<()>>), DialError> {
    let uri: Uri = url.parse().map_err(|_| DialError::Address)?;
    let plain = uri.scheme() == Some(&Scheme::HTTP);
    let authority = uri.authority().filter(|_| plain).ok_or(DialError::Address)?;
    let address = match authority.port() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:80"),
    };
    let stream = TcpStream::connect(address).await?;
    // Calls are small and waited for.
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await?;
    let driver = tokio::spawn(connection);
    let probe = Request::get(format!("{url}{PROBE}")).body(Body::empty()).map_err(|_| DialError::Address)?;
    sender.send_request(probe).await?;
    Ok((sender, driver))
}
