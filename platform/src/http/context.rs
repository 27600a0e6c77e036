//! Who asked, as far as logs, traces and events are concerned: correlation and trace of one request.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::auth::Caller;

/// The header that carries the correlation id.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// The header that carries the W3C trace context.
pub(super) const TRACEPARENT: &str = "traceparent";
const LONGEST_REQUEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The id of a trace; 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// A new one.
    pub fn random() -> Self {
        // All zeroes would be "no trace".
        Self(rand::random::<u128>().max(1))
    }

    /// A `traceparent` within it, not sampled.
    pub fn traceparent(self) -> String {
        format!("00-{self}-{:016x}-00", rand::random::<u64>().max(1))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Correlation and trace of one request, for its logs, its answer and its events.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's `X-Request-Id`, or the server's own; absent where an event is to be its own correlation.
    pub correlation_id: Option<Arc<str>>,
    /// The request's `traceparent`, or the server's own.
    pub traceparent: Option<Arc<str>>,
    /// The session that asks, once it is known.
    pub session_id: Option<Uuid>,
    /// The trace within `traceparent`.
    pub trace_id: TraceId,
}

impl RequestContext {
    /// One that leaves nothing with the events that it causes: for a frame of a WebSocket, which has no headers.
    pub fn bare() -> Self {
        Self { correlation_id: None, traceparent: None, session_id: None, trace_id: TraceId::random() }
    }

    /// The same trace, as one that leaves nothing with the events that it causes.
    #[must_use]
    pub fn unrecorded(&self) -> Self {
        Self { correlation_id: None, traceparent: None, session_id: None, trace_id: self.trace_id }
    }

    /// The same, of a caller whose session is to stand with the events.
    #[must_use]
    pub fn by(mut self, caller: &Caller) -> Self {
        self.session_id = Some(caller.session_id);
        self
    }

    /// That of a request with these headers; what is absent or bad is replaced.
    pub fn of(headers: &HeaderMap) -> Self {
        let correlation_id = headers
            .get(REQUEST_ID)
            .filter(|id| !id.is_empty() && id.len() <= LONGEST_REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
            .map_or_else(|| Arc::from(Uuid::now_v7().to_string()), Arc::from);
        let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let (traceparent, trace_id) =
            given.and_then(|value| Some((Arc::from(value), trace_of(value)?))).unwrap_or_else(|| {
                let trace_id = TraceId::random();
                (Arc::from(trace_id.traceparent()), trace_id)
            });
        Self { correlation_id: Some(correlation_id), traceparent: Some(traceparent), session_id: None, trace_id }
    }

    /// That of the request that this task works for.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    pub(super) async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        let value = |text: &Option<Arc<str>>| text.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        if let Some(id) = value(&self.correlation_id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(parent) = value(&self.traceparent) {
            headers.insert(TRACEPARENT, parent);
        }
    }
}

/// To be taken after the [`Caller`], where there is one: it then says by which session the request came.
impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let context = Self::current().unwrap_or_else(|| Self::of(&parts.headers));
        Ok(match parts.extensions.get::<Caller>() {
            Some(caller) => context.by(caller),
            None => context,
        })
    }
}

/// The trace id of a version 00 `traceparent`: `00-{trace}-{span}-{flags}` in lower-case hexadecimal.
fn trace_of(value: &str) -> Option<TraceId> {
    let digits = |text: &str, length| {
        let right = text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        right.then(|| u128::from_str_radix(text, 16).ok()).flatten()
    };
    let mut fields = value.split('-');
    (fields.next()? == "00").then_some(())?;
    let trace = digits(fields.next()?, 32).filter(|trace| *trace != 0)?;
    digits(fields.next()?, 16).filter(|span| *span != 0)?;
    digits(fields.next()?, 2)?;
    fields.next().is_none().then_some(TraceId(trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
        let id = |value: &str| RequestContext::of(&headers(REQUEST_ID, value)).correlation_id.unwrap();
        assert_eq!(&*id("order-7"), "order-7");
        assert_eq!(&*id(&"x".repeat(128)), "x".repeat(128));
        for bad in ["", "two words", "tab\there", &"x".repeat(129)] {
            assert!(Uuid::parse_str(&id(bad)).is_ok(), "{bad:?}");
        }
    }

    #[test]
    fn a_good_traceparent_is_kept_and_a_bad_one_replaced() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = RequestContext::of(&headers(TRACEPARENT, good));
        assert_eq!(context.traceparent.as_deref(), Some(good));
        assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let made = RequestContext::of(&headers(TRACEPARENT, bad));
            let text = made.traceparent.unwrap();
            assert_ne!(&*text, bad);
            assert_eq!(trace_of(&text), Some(made.trace_id));
        }
    }
}
