//! The way of spans out of the process: OTLP over HTTP, from a thread of its own with a bounded queue.
//!
//! A receiver that is away, slow or refuses costs the spans and nothing else: what has no room in the queue is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use uuid::Uuid;

use crate::config;

/// Spans that may wait; a span is about half a kilobyte.
const QUEUE: usize = 4096;
/// Spans in one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const PACE: Duration = Duration::from_secs(1);
/// How long the receiver may take for one request, with all tries.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The exporter cannot be made.
    #[error("the exporter of traces cannot be made")]
    Exporter(#[from] ExporterBuildError),
    /// Something else exports already.
    #[error("the export of traces is set up twice")]
    Twice,
}

/// What this process is to whoever looks at its spans.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// `service.name`, where the settings say none.
    pub name: &'a str,
    /// The roles, separated by commas.
    pub roles: &'a str,
    /// The program's version.
    pub version: &'static str,
}

/// Makes what spans are given to.
pub(super) fn provider(otlp: &config::Otlp, service: Service<'_>) -> Result<SdkTracerProvider, ExportError> {
    let exporter = Otlp::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(otlp.endpoint.join("/v1/traces"))
        .with_timeout(PATIENCE)
        .build()?;
    let queue = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(PACE)
        .build();
    let processor = BatchSpanProcessor::builder(Told::new(exporter)).with_batch_config(queue).build();
    let resource = Resource::builder()
        .with_service_name(otlp.service_name.clone().unwrap_or_else(|| service.name.to_owned()))
        .with_attributes([
            KeyValue::new("service.namespace", "parlance"),
            KeyValue::new("service.version", service.version),
            KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
            KeyValue::new("parlance.roles", service.roles.to_owned()),
        ])
        .build();
    // Whether a span is made is decided before, by its parent.
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).with_resource(resource);
    Ok(provider.with_span_processor(processor).build())
}

/// An exporter that says once that it cannot export, and once that it can again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    fails: AtomicBool,
}

impl<E> Told<E> {
    fn new(exporter: E) -> Self {
        metrics::describe_counter!("parlance_trace_spans_exported_total", "Spans that the receiver of traces took.");
        metrics::describe_counter!("parlance_trace_spans_lost_total", "Spans that it did not take.");
        Self { exporter, fails: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let exported = self.exporter.export(batch).await;
        match &exported {
            Ok(()) => {
                metrics::counter!("parlance_trace_spans_exported_total").increment(count);
                if self.fails.swap(false, Ordering::Relaxed) {
                    tracing::info!("the receiver of traces takes spans again");
                }
            }
            Err(error) => {
                metrics::counter!("parlance_trace_spans_lost_total").increment(count);
                if !self.fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the receiver of traces takes no spans; they are lost until it does: {error}");
                }
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
