//! Where a request comes from: for limits, and for the events of sessions.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use domain::session::Client;
use http::header::USER_AGENT;
use http::request::Parts;

/// The client's address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// What limits count by: an IPv6 client has a whole /64 to choose from.
    pub(crate) fn network(self) -> [u8; 16] {
        match self.0 {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => address.octets(),
            IpAddr::V6(address) => (u128::from_be_bytes(address.octets()) & (u128::MAX << 64)).to_be_bytes(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let connected = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(connected.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())))
    }
}

/// Longer names of programs are cut.
const LONGEST_USER_AGENT: usize = 256;

/// Where a session is used from, and by what program.
#[derive(Clone, Debug)]
pub(crate) struct Whence(pub(crate) Client);

impl<S: Sync> FromRequestParts<S> for Whence {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let connected = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = connected.map(|ConnectInfo(address)| address.ip().to_canonical().to_string());
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).map(str::trim);
        let user_agent = user_agent.filter(|text| !text.is_empty());
        let user_agent = user_agent.map(|text| text.chars().take(LONGEST_USER_AGENT).collect());
        Ok(Self(Client { address, user_agent }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_choose_another_network() {
        let network = |text: &str| ClientAddress(text.parse().unwrap()).network();
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
        assert_eq!(network("10.0.0.1"), network("::ffff:10.0.0.1"));
    }

    #[tokio::test]
    async fn a_client_says_what_program_it_is_within_a_bound() {
        let whence = async |agent: &str, connected: Option<&str>| {
            let mut request = http::Request::get("/").header(USER_AGENT, agent).body(()).unwrap();
            if let Some(address) = connected {
                request.extensions_mut().insert(ConnectInfo::<SocketAddr>(address.parse().unwrap()));
            }
            Whence::from_request_parts(&mut request.into_parts().0, &()).await.unwrap().0
        };
        let client = whence(" phone/1 ", Some("[::ffff:10.0.0.1]:7")).await;
        assert_eq!((client.address.as_deref(), client.user_agent.as_deref()), (Some("10.0.0.1"), Some("phone/1")));
        assert_eq!(whence(" ", None).await, Client::default());
        assert_eq!(whence(&"x".repeat(1000), None).await.user_agent.unwrap().len(), LONGEST_USER_AGENT);
    }
}
