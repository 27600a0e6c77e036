//! From a GET to a socket: who asks, from where, and by which subprotocol.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use platform::auth::Caller;
use platform::config::Origin;
use platform::http::{ClientIo, Problem};
use schemas::ws::SUBPROTOCOL;

use tokio::net::TcpStream;

use super::{Shared, socket};

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the kernel holds of what it has not sent yet.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 64 * 1024;

/// Answers `GET /v1/ws`.
pub(super) async fn upgrade(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match accept(&shared, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn accept(shared: &Arc<Shared>, mut request: Request) -> Result<Response, Problem> {
    let headers = request.headers();
    let credentials = Credentials::of(&request).ok_or_else(Problem::unauthorized)?;
    check_origin(headers, &shared.origins)?;
    // What costs nothing to look at comes before the ticket is spent.
    let caller = match &credentials {
        Credentials::Bearer => Some(shared.authenticator.caller(headers)?),
        Credentials::Ticket(_) => None,
    };
    let key = check_handshake(request.method(), headers)?;
    if shared.stop.is_cancelled() {
        return Err(Problem::unavailable("the server drains"));
    }
    let on_upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(|| Problem::bad_request("this connection cannot be upgraded"))?;
    let caller = match (caller, credentials) {
        (Some(caller), _) => caller,
        (None, Credentials::Ticket(ticket)) => {
            shared.tickets.redeem(&ticket).await?.ok_or_else(Problem::unauthorized)?
        }
        (None, Credentials::Bearer) => return Err(Problem::unauthorized()),
    };
    tokio::spawn(serve(shared.clone(), on_upgrade, caller));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    Ok(response)
}

async fn serve(shared: Arc<Shared>, on_upgrade: OnUpgrade, caller: Caller) {
    let upgraded = match on_upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "a connection was not upgraded: {error}");
            return;
        }
    };
    // Where it is plainly a TCP connection the layers that carried the request are left behind. Each in a task of its
    // own, since it lives long and this one need not.
    match upgraded.downcast::<ClientIo>() {
        Ok(Parts { io, read_buf, .. }) => {
            let stream = io.into_inner();
            notice_stalls(&stream);
            tokio::spawn(socket::serve(shared, stream, read_buf, caller))
        }
        Err(upgraded) => serve_any(shared, upgraded, caller),
    };
}

/// What a client does not take is to wait here, where it is noticed, and not in megabytes of the kernel's buffers.
fn notice_stalls(stream: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "the kernel's buffer of a connection stays as it is: {error}");
    }
    let _ = stream.set_nodelay(true);
}

fn serve_any(shared: Arc<Shared>, upgraded: Upgraded, caller: Caller) -> tokio::task::JoinHandle<()> {
    tokio::spawn(socket::serve(shared, TokioIo::new(upgraded), Bytes::new(), caller))
}

/// What a client shows; never printed.
enum Credentials {
    /// In the header, which wins.
    Bearer,
    /// In the query.
    Ticket(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "Bearer",
            Self::Ticket(_) => "Ticket",
        })
    }
}

impl Credentials {
    fn of(request: &Request) -> Option<Self> {
        if request.headers().contains_key(header::AUTHORIZATION) {
            return Some(Self::Bearer);
        }
        let query = request.uri().query()?;
        let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket="))?;
        Some(Self::Ticket(ticket.to_owned()))
    }
}

/// A page of another site may not open a socket; who is no browser sends no origin.
fn check_origin(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), Problem> {
    let Some(given) = headers.get(header::ORIGIN) else { return Ok(()) };
    let forbidden = || Problem::forbidden("pages of this origin may not open a socket here");
    let origin: Origin = given.to_str().ok().and_then(|origin| origin.parse().ok()).ok_or_else(forbidden)?;
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| {
        let of = |scheme: &str| format!("{scheme}://{host}").parse::<Origin>().ok();
        [of("http"), of("https")].contains(&Some(origin.clone()))
    });
    if own || allowed.contains(&origin) { Ok(()) } else { Err(forbidden()) }
}

/// The handshake of RFC 6455, with our subprotocol; answers what `Sec-WebSocket-Accept` has to say.
fn check_handshake(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let lists = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(wanted))
    };
    if method != Method::GET || !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        return Err(Problem::bad_request("this path is a WebSocket: a handshake is wanted"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Problem::bad_request("version 13 of the WebSocket protocol is wanted"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(Problem::bad_request("Sec-WebSocket-Key is missing or malformed"));
    }
    if !lists(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(Problem::bad_request("the subprotocol parlance.v1 has to be offered"));
    }
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()));
    HeaderValue::from_str(&accept).map_err(|_| Problem::bad_request("Sec-WebSocket-Key is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::UPGRADE, "WebSocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (header::SEC_WEBSOCKET_PROTOCOL, "chat, parlance.v1"),
            (header::HOST, "chat.example.org"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_key_of_the_rfc_is_answered_as_there() {
        let answer = check_handshake(&Method::GET, &handshake()).unwrap();
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn half_a_handshake_is_malformed() {
        for (name, bad) in [
            (header::CONNECTION, "close"),
            (header::UPGRADE, "h2c"),
            (header::SEC_WEBSOCKET_VERSION, "8"),
            (header::SEC_WEBSOCKET_KEY, "short"),
            (header::SEC_WEBSOCKET_PROTOCOL, "parlance.v2"),
        ] {
            let mut headers = handshake();
            headers.insert(&name, HeaderValue::from_static(bad));
            assert_eq!(
                check_handshake(&Method::GET, &headers).unwrap_err().status(),
                StatusCode::BAD_REQUEST,
                "{name}"
            );
            headers.remove(&name);
            assert_eq!(
                check_handshake(&Method::GET, &headers).unwrap_err().status(),
                StatusCode::BAD_REQUEST,
                "{name}"
            );
        }
        assert!(check_handshake(&Method::HEAD, &handshake()).is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let allowed = ["https://app.example.org".parse().unwrap()];
        let check = |origin: Option<&'static str>| {
            let mut headers = handshake();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            check_origin(&headers, &allowed).map_err(|problem| problem.status())
        };
        for good in
            [None, Some("https://chat.example.org"), Some("http://chat.example.org"), Some("https://app.example.org")]
        {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in ["https://evil.example", "null", "https://app.example.org:8443", "http://app.example.org", ""] {
            assert_eq!(check(Some(bad)), Err(StatusCode::FORBIDDEN), "{bad}");
        }
    }
}
