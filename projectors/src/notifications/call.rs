//! Calls to receivers that are not ours: bounded in time, without redirections, and where anybody may name the receiver,
//! to the public internet alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method};
use platform::push::is_public;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::outcome::Outcome;

/// How long a receiver may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Connections that are kept for the next delivery.
const KEPT: usize = 4;

/// Who calls.
pub(super) struct Caller {
    client: Client,
    /// Whether it may call private networks too.
    pub(super) anywhere: bool,
}

/// What a receiver answered: nothing but the status counts, and nothing else is read.
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long it wants to be left alone.
    after: Option<Duration>,
}

/// Why there was no answer. Says nothing of where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    #[error("did not answer in time")]
    Late,
    #[error("cannot be reached")]
    Unreachable,
    #[error("did not answer in HTTP")]
    Garbled,
}

impl Answer {
    pub(super) fn again(&self) -> Outcome {
        Outcome::Again { after: self.after, error: format!("answered {}", self.status) }
    }
}

impl CallError {
    pub(super) fn again(self) -> Outcome {
        Outcome::Again { after: None, error: self.to_string() }
    }
}

impl Caller {
    /// One that may call any address, or those of the public internet.
    pub(super) fn new(anywhere: bool) -> reqwest::Result<Self> {
        let builder = Client::builder()
            .user_agent(concat!("parlance/", env!("CARGO_PKG_VERSION")))
            // Whoever is called must not send us elsewhere.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .pool_max_idle_per_host(KEPT);
        let builder = if anywhere { builder } else { builder.dns_resolver(Arc::new(PublicAddresses)) };
        Ok(Self { client: builder.build()?, anywhere })
    }

    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.client.request(Method::POST, url)
    }

    pub(super) async fn call(&self, request: RequestBuilder) -> Result<Answer, CallError> {
        match request.send().await {
            Ok(response) => Ok(Answer {
                status: response.status().as_u16(),
                after: retry_after(response.headers(), OffsetDateTime::now_utc()),
            }),
            // Its own text names the address.
            Err(error) if error.is_timeout() => Err(CallError::Late),
            Err(error) if error.is_connect() => Err(CallError::Unreachable),
            Err(_) => Err(CallError::Garbled),
        }
    }
}

/// Whether an address may be called that is no name: names are looked at once they are resolved.
pub(super) fn is_reachable(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    !host.is_empty() && host.parse().map_or(true, |address: IpAddr| is_public(address))
}

/// Resolves names to addresses of the public internet, whatever else they stand for.
struct PublicAddresses;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(io::Error::other("no address of the public internet").into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| (OffsetDateTime::parse(text, &Rfc2822).ok()? - now).try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_may_not_call_private_networks_does_not_whatever_the_name() {
        let caller = Caller::new(false).unwrap();
        let answered = caller.call(caller.post("http://localhost:9/".parse().unwrap())).await;
        assert_eq!(answered.err(), Some(CallError::Unreachable));
        for (url, right) in [
            ("https://push.example.net/1", true),
            ("https://1.1.1.1/1", true),
            ("https://127.0.0.1/1", false),
            // As it is resolved to 127.0.0.1 by others too.
            ("https://0x7f.1/1", false),
            ("https://2130706433/1", false),
            ("https://[::1]/1", false),
            ("https://[::ffff:10.0.0.1]/1", false),
        ] {
            assert_eq!(is_reachable(&url.parse().unwrap()), right, "{url}");
        }
    }

    #[test]
    fn a_receiver_says_when_in_seconds_or_by_a_date() {
        let now = OffsetDateTime::from_unix_timestamp(1_445_412_420).unwrap();
        let after = |text: &str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now).map(|after| after.as_secs())
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        for nonsense in ["-1", "soon", "Wed, 21 Oct 2015 07:26:00 GMT"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
