//! A connection to another process of the installation: HTTP/2 with prior knowledge, watched over.

use std::time::Duration;

use axum::body::Body;
use http::uri::Scheme;
use http::{Request, Uri};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long it may take to connect and to be answered for the first time.
const BOUND: Duration = Duration::from_secs(1);
/// Who said nothing for so long is asked whether it is there, and given up if it does not answer in time: a process that
/// was stopped, or cut off, still looks connected.
const PING: Duration = Duration::from_secs(1);
const PONG: Duration = Duration::from_millis(1_500);
const WINDOW: u32 = 1 << 20;
/// What any process answers, if it answers.
const PROBE: &str = "/health/live";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL is none that is called.
    #[error("it is no http:// address")]
    Address,
    /// Nobody listens there.
    #[error("it cannot be reached")]
    Unreachable(#[from] std::io::Error),
    /// Somebody else does.
    #[error("it does not speak HTTP/2")]
    Http(#[from] hyper::Error),
    /// Nobody answers.
    #[error("it did not answer in time")]
    Late,
}

/// A connection to a process that has answered once, since the system connects also to one that was stopped; and the task
/// that carries it, which ends with it.
///
/// # Errors
/// None that answers within a second.
pub async fn dial(url: &str) -> Result<(SendRequest<Body>, JoinHandle<hyper::Result<()>>), DialError> {
    timeout(BOUND, connect(url)).await.unwrap_or(Err(DialError::Late))
}

async fn connect(url: &str) -> Result<(SendRequest<Body>, JoinHandle<hyper::Result<()>>), DialError> {
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
