//! A receiver of traces: OTLP over HTTP, as protobuf; it keeps every span that comes.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A span as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process that it came from.
    pub service: String,
    /// What it is called.
    pub name: String,
    /// Its trace, in hexadecimal.
    pub trace_id: String,
    /// Its own id, in hexadecimal.
    pub span_id: String,
    /// That of what caused it, in hexadecimal; empty at the root.
    pub parent_id: String,
    /// What is said about it, and about its process.
    pub attributes: BTreeMap<String, String>,
}

/// A receiver that runs until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    _stop: DropGuard,
}

impl Receiver {
    /// Listens on a port that is free.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the receiver of traces")?;
        let address = listener.local_addr()?;
        let spans = Arc::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        let stop = CancellationToken::new();
        tokio::spawn(platform::http::serve(listener, router, stop.clone(), Duration::ZERO));
        Ok(Self { address, spans, _stop: stop.drop_guard() })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` has to say.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that came.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }

    /// What came of one trace.
    pub fn of_trace(&self, trace_id: &str) -> Vec<Span> {
        self.spans.lock().iter().filter(|span| span.trace_id == trace_id).cloned().collect()
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut spans = spans.lock();
    for resource in request.resource_spans {
        let of_process = attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let mut attributes = attributes(span.attributes);
            attributes.extend(of_process.clone());
            spans.push(Span {
                service: of_process.get("service.name").cloned().unwrap_or_default(),
                name: span.name,
                trace_id: hex::encode(span.trace_id),
                span_id: hex::encode(span.span_id),
                parent_id: hex::encode(span.parent_span_id),
                attributes,
            });
        }
    }
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    list.into_iter().map(|KeyValue { key, value, .. }| (key, text(value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}
