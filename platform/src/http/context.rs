//! Who asked, as far as logs, traces and events are concerned: correlation and trace of one request.

use std::future::Future;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::auth::Caller;
use crate::traces::{self, Kind, Span, TraceContext, TraceId};

/// The header that carries the correlation id.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// The header that carries the W3C trace context.
pub(super) const TRACEPARENT: &str = "traceparent";
const LONGEST_REQUEST_ID: usize = 128;
/// What a request's span is called until its route is known.
const REQUEST: &str = "request";

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// Correlation and trace of one request, for its logs, its answer and its events.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's `X-Request-Id`, or the server's own; absent where an event is to be its own correlation.
    pub correlation_id: Option<Arc<str>>,
    /// The request's `traceparent`, or the server's own.
    pub traceparent: Option<Arc<str>>,
    /// The event that caused it, where it was not the request itself.
    pub causation_id: Option<Uuid>,
    /// The session that asks, once it is known.
    pub session_id: Option<Uuid>,
    /// The trace within `traceparent`.
    pub trace_id: TraceId,
}

impl RequestContext {
    /// One that leaves nothing with the events that it causes: for a frame of a WebSocket, which has no headers.
    pub fn bare() -> Self {
        Self::new(TraceId::random())
    }

    fn new(trace_id: TraceId) -> Self {
        Self { correlation_id: None, traceparent: None, causation_id: None, session_id: None, trace_id }
    }

    /// The same trace, as one that leaves nothing with the events that it causes.
    #[must_use]
    pub fn unrecorded(&self) -> Self {
        Self::new(self.trace_id)
    }

    /// The same within this trace; one that cannot be followed is passed over.
    #[must_use]
    pub fn traced(self, traceparent: Option<Arc<str>>) -> Self {
        match traceparent.as_deref().and_then(|text| text.parse().ok()) {
            Some(context) => Self { traceparent, trace_id: TraceContext::trace_id(&context), ..self },
            None => self,
        }
    }

    /// The same for what is done because of this event.
    #[must_use]
    pub fn because_of(self, event_id: Option<Uuid>) -> Self {
        Self { causation_id: event_id.or(self.causation_id), ..self }
    }

    /// The same, of a caller whose session is to stand with the events.
    #[must_use]
    pub fn by(mut self, caller: &Caller) -> Self {
        self.session_id = Some(caller.session_id);
        self
    }

    /// That of a request with these headers; what is absent or bad is replaced.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::given(headers).in_a_trace()
    }

    /// As [`Self::of`], with the request's span: where its own `traceparent` wants one, or it brought none, may begin a trace,
    /// and is of the share that is traced. The first of the two contexts marks the answer, the second is what happens within.
    pub(super) fn begin(headers: &HeaderMap, may_begin: bool) -> (Self, Self, Option<Span>) {
        let given = Self::given(headers);
        let span = match &given.traceparent {
            Some(traceparent) => traces::begin(REQUEST, Kind::Server, Some(traceparent)),
            None if may_begin => traces::begin_root(REQUEST, Kind::Server),
            None => None,
        };
        let Some(within) = span.as_ref().map(|span| given.clone().traced(Some(span.traceparent()))) else {
            let asked = given.in_a_trace();
            return (asked.clone(), asked, None);
        };
        let asked = if given.traceparent.is_some() { given } else { within.clone() };
        (asked, within, span)
    }

    /// What of it the headers say.
    fn given(headers: &HeaderMap) -> Self {
        let correlation_id = headers
            .get(REQUEST_ID)
            .filter(|id| !id.is_empty() && id.len() <= LONGEST_REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
            .map_or_else(|| Arc::from(Uuid::now_v7().to_string()), Arc::from);
        let traceparent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).map(Arc::from);
        Self { correlation_id: Some(correlation_id), ..Self::bare() }.traced(traceparent)
    }

    /// The same in a trace, which is its own where none was given.
    fn in_a_trace(self) -> Self {
        let traceparent = self.traceparent.or_else(|| Some(self.trace_id.traceparent().into()));
        Self { traceparent, ..self }
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
            assert_eq!(text.parse::<TraceContext>().unwrap().trace_id(), made.trace_id);
        }
    }
}
