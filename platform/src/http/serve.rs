//! Serving HTTP/1.1 and HTTP/2 on one listener: bounds on slow clients, upgrades, and a drain that ends in time.
//!
//! Clients speak HTTP/1.1, by which WebSockets are opened. Our own processes speak HTTP/2 from the first byte on (RFC 9113,
//! 3.3: prior knowledge), so that one connection carries all their calls. Encryption is the business of a proxy before us.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// What an upgraded connection is underneath: `Upgraded::downcast::<ClientIo>()`.
pub type ClientIo = TokioIo<TcpStream>;

/// A client that takes longer for its headers, or leaves a connection idle longer, is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_mins(1);
/// How long to wait when no connection can be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for the rest of what may become HTTP/2's preface: it comes in one piece, as good as always.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// What a client that speaks HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bounds of one HTTP/2 connection.
mod bounds {
    use std::time::Duration;

    /// Requests under way.
    pub(super) const STREAMS: u32 = 512;
    pub(super) const HEADER_BYTES: u32 = 16 * 1024;
    /// Of bodies that were sent and not yet read: of one request, of all.
    pub(super) const STREAM_WINDOW: u32 = 128 * 1024;
    pub(super) const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
    /// Who says nothing for so long is asked whether it is there, and dropped if it does not answer in time.
    pub(super) const PING: Duration = Duration::from_secs(20);
    pub(super) const PONG: Duration = Duration::from_secs(10);
}

/// Serves until `stop`; then lets requests that are under way finish, for at most `grace`.
///
/// Upgraded connections are their owner's to drain. The client's address stands in the extensions of each request as
/// [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, grace: Duration) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                connections.spawn(connection(stream, address, router.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(grace, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests are still under way after {grace:?}");
    }
}

/// What a router makes of a request.
type Answer = tower::util::Oneshot<Router, http::Request<Body>>;

async fn connection(stream: TcpStream, address: SocketAddr, router: Router, stop: CancellationToken) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let first = tokio::select! {
        first = timeout(HEADER_TIMEOUT, speaks_http2(&stream)) => first,
        () = stop.cancelled() => return,
    };
    let ended = match first {
        // Boxed: the many that speak HTTP/1.1 do not hold the space of these few.
        Ok(Ok(true)) => Box::pin(over_http2(stream, address, router, stop)).await,
        Ok(Ok(false)) => over_http1(stream, address, router, stop).await,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection ended early: {error}"),
        Err(_) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early: {error}");
    }
}

/// Looks at what a client says first, and leaves it where it is.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 || !PREFACE.starts_with(&first[..length]) {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        sleep(PREFACE_PAUSE).await;
    }
}

async fn over_http1(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(router.clone(), address, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn over_http2(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let (begun, under_way) = (Arc::new(AtomicU64::new(0)), Arc::new(()));
    let service = service_fn({
        let (begun, under_way) = (begun.clone(), under_way.clone());
        move |request| {
            begun.fetch_add(1, Ordering::Relaxed);
            let (answer, one) = (answer(router.clone(), address, request), under_way.clone());
            async move {
                let answered = answer.await;
                drop(one);
                answered
            }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds::STREAMS)
        .max_header_list_size(bounds::HEADER_BYTES)
        .initial_stream_window_size(bounds::STREAM_WINDOW)
        .initial_connection_window_size(bounds::CONNECTION_WINDOW)
        .keep_alive_interval(bounds::PING)
        .keep_alive_timeout(bounds::PONG)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = idle(&begun, &under_way) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Waits until no request was under way, and none begun, for as long as a connection may be left idle.
async fn idle(begun: &AtomicU64, under_way: &Arc<()>) {
    let mut ticks = interval(HEADER_TIMEOUT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let now = begun.load(Ordering::Relaxed);
        // One is the service's own, one the connection's.
        if before == Some(now) && Arc::strong_count(under_way) <= 2 {
            return;
        }
        before = Some(now);
    }
}

fn answer(router: Router, address: SocketAddr, request: http::Request<Incoming>) -> Answer {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(address));
    router.oneshot(request)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_request_under_way_is_answered_before_the_end() {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = Router::new().route(
            "/",
            get({
                let (begun, go) = (begun.clone(), go.clone());
                move |ConnectInfo(address): ConnectInfo<SocketAddr>| async move {
                    begun.notify_one();
                    go.notified().await;
                    format!("hello {}", address.ip())
                }
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, stop.clone(), Duration::from_secs(10)));

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        begun.notified().await;
        stop.cancel();
        go.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello 127.0.0.1"), "{answer}");
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    /// A server of one path, and how to stop it.
    async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let router = Router::new()
            .route("/", get(async |ConnectInfo(address): ConnectInfo<SocketAddr>| address.ip().to_string()))
            .route("/held", get(async || sleep(Duration::from_millis(300)).await));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, stop.clone(), Duration::from_secs(10)));
        (address, stop, served)
    }

    async fn over_two(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
        let stream = TcpStream::connect(address).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn to(address: SocketAddr, path: &str) -> http::Request<Body> {
        http::Request::get(format!("http://{address}{path}")).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn one_connection_carries_many_requests_by_http2() {
        let (address, stop, served) = serving().await;
        let sender = over_two(address).await;
        let answers = futures::future::join_all((0..20).map(|_| {
            let mut sender = sender.clone();
            async move { sender.send_request(to(address, "/")).await.unwrap() }
        }))
        .await;
        for answer in answers {
            assert_eq!(answer.version(), http::Version::HTTP_2);
            let body = axum::body::to_bytes(Body::new(answer.into_body()), 1024).await.unwrap();
            assert_eq!(body, "127.0.0.1");
        }
        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_under_way_by_http2_is_answered_before_the_end() {
        let (address, stop, served) = serving().await;
        let mut sender = over_two(address).await;
        sender.ready().await.unwrap();
        let held = sender.send_request(to(address, "/held"));
        let answer = tokio::spawn(held);
        // A second request is answered, so the first has come.
        assert_eq!(over_again(&sender, address).await, 200);
        stop.cancel();
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
        served.await.unwrap();
    }

    async fn over_again(sender: &hyper::client::conn::http2::SendRequest<Body>, address: SocketAddr) -> u16 {
        sender.clone().send_request(to(address, "/")).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces_and_a_post_is_none() {
        let (address, stop, served) = serving().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(b"P").await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(b"OST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");

        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(&PREFACE[..5]).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(&PREFACE[5..]).await.unwrap();
        client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        // The server's settings: their length, their type.
        let mut frame = [0; 4];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[3], 4);
        stop.cancel();
        drop(client);
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_who_asks_nothing_for_a_while() {
        let (begun, one) = (AtomicU64::new(7), Arc::new(()));
        let (_connection, before) = (one.clone(), tokio::time::Instant::now());
        idle(&begun, &one).await;
        assert_eq!(before.elapsed(), HEADER_TIMEOUT);
        let _request = one.clone();
        assert!(timeout(HEADER_TIMEOUT * 5, idle(&begun, &one)).await.is_err());
    }

    #[tokio::test]
    async fn one_who_says_nothing_does_not_hold_up_the_end() {
        let (address, stop, served) = serving().await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(&PREFACE[..3]).await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
    }
}
