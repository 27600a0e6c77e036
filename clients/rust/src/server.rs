//! A server by its address: what one can do there without being logged in, and the one place that speaks HTTP.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode, header};
use schemas::PositionToken;
use schemas::rest::{LogIn, Problem, Register, Registered, SessionTokens};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{client::Client, error::Error, session::Backoff};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A Parlance server. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: reqwest::Url,
    http: reqwest::Client,
    retries: u32,
    backoff: Backoff,
}

/// One request: what is the same however often it is tried.
pub(crate) struct Call<'a, B: ?Sized> {
    pub(crate) method: Method,
    /// Path segments, not encoded yet.
    pub(crate) path: &'a [&'a str],
    pub(crate) query: &'a [(&'static str, String)],
    pub(crate) body: Option<&'a B>,
    pub(crate) bearer: Option<&'a str>,
    pub(crate) min_position: Option<&'a PositionToken>,
    pub(crate) strict: bool,
    /// Whether the same call may be made twice, so that a lost answer is no reason to give up.
    pub(crate) repeatable: bool,
}

/// No body.
pub(crate) const NO_BODY: Option<&()> = None;

impl Server {
    /// The server at an address such as `http://localhost:8080`.
    ///
    /// Calls that the server asks to make later (429, 503), and those that may be made twice and whose answer was lost,
    /// are tried again up to five times.
    pub fn new(address: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::Address { address: address.to_owned(), reason };
        let base = reqwest::Url::parse(address).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("it does not begin with http:// or https:// and a host".to_owned()));
        }
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { inner: Arc::new(Inner { base, http, retries: 5, backoff: Backoff::default() }) })
    }

    /// The same server, with another number of retries (0: every refusal is reported at once) and another pace of them.
    #[must_use]
    pub fn with_retries(self, retries: u32, backoff: Backoff) -> Self {
        let inner = Inner { base: self.inner.base.clone(), http: self.inner.http.clone(), retries, backoff };
        Self { inner: Arc::new(inner) }
    }

    /// The address of the server.
    pub fn address(&self) -> &str {
        self.inner.base.as_str()
    }

    /// Registers a user. Not tried again when the answer is lost: the name may be taken by then.
    pub async fn register(&self, user: &Register) -> Result<Registered, Error> {
        self.call(Call { body: Some(user), ..Call::new(Method::POST, &["users"]) }).await
    }

    /// Logs in on a device: `device_id` is what the device was called before, `None` for a new one.
    pub async fn log_in(&self, login: &str, password: &str, device_id: Option<Uuid>) -> Result<Client, Error> {
        let body = LogIn { login: login.to_owned(), password: password.to_owned(), device_id, device_name: None };
        let tokens: SessionTokens =
            self.call(Call { body: Some(&body), repeatable: true, ..Call::new(Method::POST, &["sessions"]) }).await?;
        Ok(Client::new(self.clone(), tokens))
    }

    /// The address of the WebSocket.
    pub(crate) fn socket_address(&self) -> String {
        let mut url = self.url(&["ws"], &[]);
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("http and ws are both special schemes");
        url.into()
    }

    fn url(&self, path: &[&str], query: &[(&'static str, String)]) -> reqwest::Url {
        let mut url = self.inner.base.clone();
        url.path_segments_mut()
            .expect("checked when made: an address with a host")
            .pop_if_empty()
            .push("v1")
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Makes a call whose answer has a body.
    pub(crate) async fn call<B, T>(&self, call: Call<'_, B>) -> Result<T, Error>
    where
        B: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let answer = self.exchange(call).await?;
        answer.json().await.map_err(|error| {
            if error.is_decode() { Error::Unexpected(error.without_url().to_string()) } else { error.into() }
        })
    }

    /// Makes a call whose answer has none.
    pub(crate) async fn call_empty<B: Serialize + ?Sized>(&self, call: Call<'_, B>) -> Result<(), Error> {
        self.exchange(call).await.map(drop)
    }

    /// Makes a call, again where that is worth it; an answer that is no success becomes an error.
    async fn exchange<B: Serialize + ?Sized>(&self, call: Call<'_, B>) -> Result<reqwest::Response, Error> {
        let mut attempt = 0;
        loop {
            let error = match self.exchange_once(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again = match &error {
                Error::Refused(problem) if problem.status == 429 => true,
                other => call.repeatable && other.is_retryable(),
            };
            if !again || attempt >= self.inner.retries {
                return Err(error);
            }
            let wait = self.inner.backoff.draw(attempt).max(error.retry_after().unwrap_or_default());
            tracing::debug!(?wait, attempt, error = %error, "calling again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn exchange_once<B: Serialize + ?Sized>(&self, call: &Call<'_, B>) -> Result<reqwest::Response, Error> {
        let mut request = self.inner.http.request(call.method.clone(), self.url(call.path, call.query));
        if let Some(token) = call.bearer {
            request = request.bearer_auth(token);
        }
        if let Some(position) = call.min_position {
            request = request.header("Min-Position", position.to_string());
            if call.strict {
                request = request.header("Prefer", "strict");
            }
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(refusal(answer).await)
    }
}

impl<B: ?Sized> Clone for Call<'_, B> {
    fn clone(&self) -> Self {
        Self { method: self.method.clone(), ..*self }
    }
}

impl<'a, B: ?Sized> Call<'a, B> {
    /// A call without anything but its address; those of the methods that HTTP calls idempotent may be repeated.
    pub(crate) fn new(method: Method, path: &'a [&'a str]) -> Self {
        let repeatable = method != Method::POST && method != Method::PATCH;
        Self { method, path, query: &[], body: None, bearer: None, min_position: None, strict: false, repeatable }
    }
}

/// The problem that an answer carries, or one made from its status where something between us and the server answered.
async fn refusal(answer: reqwest::Response) -> Error {
    let status = answer.status();
    let retry_after_s = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let body = answer.bytes().await.unwrap_or_default();
    let mut problem = serde_json::from_slice::<Problem>(&body).unwrap_or_else(|_| from_status(status));
    problem.retry_after_s = problem.retry_after_s.or(retry_after_s);
    Error::Refused(Box::new(problem))
}

fn from_status(status: StatusCode) -> Problem {
    Problem {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("unknown").to_owned(),
        status: status.as_u16(),
        detail: "the answer was no problem document".to_owned(),
        retryable: status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
        trace_id: String::new(),
        errors: Vec::new(),
        retry_after_s: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_path_and_change_their_scheme() -> Result<(), Error> {
        let server = Server::new("https://chat.example.org/parlance/")?;
        assert_eq!(server.socket_address(), "wss://chat.example.org/parlance/v1/ws");
        assert_eq!(
            server.url(&["users", "a/b"], &[("query", "x y".to_owned())]).as_str(),
            "https://chat.example.org/parlance/v1/users/a%2Fb?query=x+y"
        );
        assert!(matches!(Server::new("localhost:8080"), Err(Error::Address { .. })));
        assert!(matches!(Server::new("not an address"), Err(Error::Address { .. })));
        Ok(())
    }
}
