//! Spans for OTLP: what one command causes, from the request to the push to a device, as one trace.
//!
//! Every span is a child of a context that came with a request or a record, and there is one only where that is sampled:
//! what is not costs a look at its flags, and where nothing is exported not even that. Spans carry ids and types, never
//! content, names or tokens.

mod context;
mod export;
mod record;
mod span;

use std::sync::OnceLock;
use std::time::Duration;

pub use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::task::spawn_blocking;

pub use self::context::{NotATraceparent, TraceContext, TraceId};
pub use self::export::{ExportError, Service};
pub use self::record::Traced;
use self::span::Tracer;
pub use self::span::{Kind, Span};
use crate::config::Otlp;

/// What spans go to; empty where nobody wants them.
static TRACER: OnceLock<Tracer> = OnceLock::new();

/// The export of this process's spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Exports from now on, for the whole process, once.
    pub fn install(otlp: &Otlp, service: Service<'_>) -> Result<Self, ExportError> {
        let provider = export::provider(otlp, service)?;
        if TRACER.set(Tracer::new(&provider, otlp.share)).is_err() {
            return Err(ExportError::Twice);
        }
        Ok(Self(provider))
    }

    /// Exports what is left, as far as the receiver takes it within `bound`.
    pub async fn finish(self, bound: Duration) {
        let ended = spawn_blocking(move || self.0.shutdown_with_timeout(bound)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans were not taken by the receiver of traces within {bound:?}");
        }
    }
}

/// Whether spans are wanted at all.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Begins a span that is caused by `traceparent`, if that is sampled; it ends when it is dropped.
pub fn begin(name: &'static str, kind: Kind, traceparent: Option<&str>) -> Option<Span> {
    let tracer = TRACER.get()?;
    Some(tracer.begin(name, kind, traceparent.and_then(TraceContext::of_sampled)?))
}

/// Begins a trace, for the share of them that is wanted.
pub fn begin_root(name: &'static str, kind: Kind) -> Option<Span> {
    TRACER.get()?.begin_root(name, kind)
}
