//! Spans that are under way, and who makes them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
    Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};

use super::TraceContext;

/// What a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that is answered.
    Server,
    /// Work of ours.
    Internal,
    /// A message that is handed on.
    Producer,
    /// A message that was taken.
    Consumer,
    /// A request of ours to others.
    Client,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Internal => Self::Internal,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Client => Self::Client,
        }
    }
}

/// Makes spans of contexts that are sampled.
#[derive(Debug)]
pub(super) struct Tracer {
    sdk: SdkTracer,
    /// Of traces that begin here.
    share: f64,
}

impl Tracer {
    pub(super) fn new(provider: &SdkTracerProvider, share: f64) -> Self {
        metrics::describe_counter!("parlance_trace_spans_total", "Spans that were made.");
        Self { sdk: provider.tracer("parlance"), share }
    }

    pub(super) fn begin(&self, name: &'static str, kind: Kind, parent: TraceContext) -> Span {
        self.start(SpanBuilder::from_name(name).with_kind(kind.into()), &within(parent))
    }

    pub(super) fn begin_root(&self, name: &'static str, kind: Kind) -> Option<Span> {
        if self.share <= 0.0 || rand::random::<f64>() >= self.share {
            return None;
        }
        Some(self.start(SpanBuilder::from_name(name).with_kind(kind.into()), &Context::new()))
    }

    pub(super) fn passed(
        &self,
        name: Cow<'static, str>,
        kind: Kind,
        parent: TraceContext,
        (from, to): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
    ) {
        let builder = SpanBuilder::from_name(name).with_kind(kind.into()).with_start_time(from);
        let mut span = self.start(builder.with_attributes(attributes), &within(parent));
        // Clocks may be set back.
        span.0.end_with_timestamp(to.max(from));
    }

    fn start(&self, builder: SpanBuilder, parent: &Context) -> Span {
        metrics::counter!("parlance_trace_spans_total").increment(1);
        Span(self.sdk.build_with_context(builder, parent))
    }
}

/// The context in which a child of `parent` begins.
fn within(parent: TraceContext) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        opentelemetry::TraceId::from(parent.trace_id),
        SpanId::from(parent.span_id),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    ))
}

/// A span that is under way; dropped, it is over.
#[derive(Debug)]
pub struct Span(SdkSpan);

impl Span {
    /// What its children begin from.
    pub fn context(&self) -> TraceContext {
        let context = self.0.span_context();
        let number = |bytes: [u8; 16]| u128::from_be_bytes(bytes);
        TraceContext::sampled(number(context.trace_id().to_bytes()), u64::from_be_bytes(context.span_id().to_bytes()))
    }

    /// The same as a header has it.
    pub fn traceparent(&self) -> Arc<str> {
        self.context().to_string().into()
    }

    /// Says something about it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// Names it by what is only known now.
    pub fn rename(&mut self, name: String) {
        self.0.update_name(name);
    }

    /// It came to nothing.
    pub fn fail(&mut self, why: &'static str) {
        self.0.set_status(Status::error(why));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter};
    use parking_lot::Mutex;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().extend(batch);
            Ok(())
        }
    }

    fn tracer(share: f64) -> (Tracer, Kept) {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        (Tracer::new(&provider, share), kept)
    }

    #[test]
    fn a_span_is_a_child_of_the_context_that_came() {
        let (tracer, kept) = tracer(0.0);
        let parent: TraceContext = PARENT.parse().unwrap();
        let mut span = tracer.begin("append", Kind::Internal, parent);
        let context = span.context();
        span.set("parlance.position", 7);
        span.fail("busy");
        drop(span);
        let kept = kept.0.lock();
        assert_eq!((kept.len(), &*kept[0].name), (1, "append"));
        assert_eq!(kept[0].parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(context.trace_id(), parent.trace_id());
        assert_eq!(context.to_string(), format!("00-{}-{}-01", parent.trace_id(), kept[0].span_context.span_id()));
        assert_eq!(kept[0].status, Status::error("busy"));
    }

    #[test]
    fn what_is_over_keeps_its_times_though_the_clock_was_set_back() {
        let (tracer, kept) = tracer(0.0);
        let from = SystemTime::UNIX_EPOCH + Duration::from_hours(9);
        for to in [from + Duration::from_secs(1), from - Duration::from_secs(1)] {
            tracer.passed("apply".into(), Kind::Consumer, PARENT.parse().unwrap(), (from, to), Vec::new());
        }
        let times: Vec<_> = kept.0.lock().iter().map(|span| (span.start_time, span.end_time)).collect();
        assert_eq!(times, [(from, from + Duration::from_secs(1)), (from, from)]);
    }

    #[test]
    fn of_traces_that_begin_here_the_share_is_kept() {
        for (share, all) in [(0.0, 0), (1.0, 100)] {
            let (tracer, kept) = tracer(share);
            let roots = (0..100).filter_map(|_| tracer.begin_root("request", Kind::Server)).count();
            assert_eq!((roots, kept.0.lock().len()), (all, all));
            assert!(kept.0.lock().iter().all(|span| span.parent_span_id == SpanId::INVALID));
        }
    }
}
