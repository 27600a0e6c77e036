//! Where a request comes from, where proxies of ours stand between.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use http::HeaderMap;

use crate::config::Network;

/// What proxies say whom they speak for in: the client first, then each proxy as the next one saw it.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Has requests of trusted proxies come from whoever these say they come from, in [`ConnectInfo<SocketAddr>`].
///
/// Of what they say the last address that is not a trusted proxy's counts: those before it are a client's own words.
pub fn behind(proxies: &[Network], router: Router) -> Router {
    if proxies.is_empty() {
        return router;
    }
    let proxies: Arc<[Network]> = proxies.into();
    router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        let connected = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
        if let Some(peer) = connected {
            let client = client(peer.ip(), request.headers(), &proxies);
            if client != peer.ip() {
                // By which port the client reached the proxy nobody knows.
                request.extensions_mut().insert(ConnectInfo(SocketAddr::new(client, 0)));
            }
        }
        next.run(request)
    }))
}

fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let trusted = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut client = peer;
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    for said in lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')) {
        if !trusted(client) {
            break;
        }
        // What is no address was not written by a proxy of ours, nor was what stands before it.
        let Ok(before) = said.trim().parse() else { break };
        client = before;
    }
    client
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn by(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let proxies = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        client(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_counts() {
        assert_eq!(by("10.0.0.1", &["1.1.1.1, 2.2.2.2"]), "2.2.2.2");
        assert_eq!(by("10.0.0.1", &["1.1.1.1, 2.2.2.2, 10.0.0.9"]), "2.2.2.2");
        assert_eq!(by("::1", &["1.1.1.1", "2001:db8::1", "10.0.0.9"]), "2001:db8::1");
        assert_eq!(by("::ffff:10.0.0.1", &["2.2.2.2"]), "2.2.2.2");
        assert_eq!(by("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn a_client_cannot_speak_for_another() {
        assert_eq!(by("3.3.3.3", &["1.1.1.1"]), "3.3.3.3");
        assert_eq!(by("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(by("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(by("10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(by("10.0.0.1", &[""]), "10.0.0.1");
    }

    #[tokio::test]
    async fn routes_see_the_client() {
        let ask = async |proxies: &[Network]| {
            let routes = Router::new()
                .route("/", get(async |ConnectInfo(address): ConnectInfo<SocketAddr>| address.ip().to_string()));
            let mut request = Request::get("/").header(FORWARDED_FOR, "2.2.2.2").body(Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 7))));
            let answer = behind(proxies, routes).oneshot(request).await.unwrap();
            axum::body::to_bytes(answer.into_body(), 100).await.unwrap()
        };
        assert_eq!(ask(&["10.0.0.1".parse().unwrap()]).await, "2.2.2.2");
        assert_eq!(ask(&["10.0.0.2".parse().unwrap()]).await, "10.0.0.1");
        assert_eq!(ask(&[]).await, "10.0.0.1");
    }
}
