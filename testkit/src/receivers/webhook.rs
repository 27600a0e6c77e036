//! A webhook's server.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::DropGuard;
use uuid::Uuid;

use super::{Manner, serve, text};

/// A server that keeps what it is told.
#[derive(Debug)]
pub struct Webhook {
    inner: Arc<Inner>,
    url: String,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Inner {
    told: Mutex<Vec<Told>>,
    manner: Mutex<Manner>,
}

/// What it was told once.
#[derive(Debug, Clone)]
pub struct Told {
    /// What tells repeats.
    pub id: Uuid,
    /// The trace that it came in, if it names one.
    pub traceparent: Option<String>,
    timestamp: String,
    signature: String,
    /// As it came.
    body: Bytes,
}

impl Webhook {
    /// One that takes all that comes.
    pub async fn start() -> std::io::Result<Self> {
        let inner = Arc::new(Inner { told: Mutex::default(), manner: Mutex::new(Manner::Answers(204)) });
        let (address, stop) = serve(Router::new().route("/hook", post(take)).with_state(inner.clone())).await?;
        Ok(Self { inner, url: format!("http://{address}/hook"), _stop: stop })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it does from now on.
    pub fn behave(&self, manner: Manner) {
        *self.inner.manner.lock() = manner;
    }

    /// All that it was told, repeats too.
    pub fn told(&self) -> Vec<Told> {
        self.inner.told.lock().clone()
    }
}

impl Told {
    /// The event.
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether who sent it knows the secret.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let secret = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap_or_default();
        let signed = [format!("{}.{}.", self.id, self.timestamp).as_bytes(), &self.body].concat();
        let signature = self.signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        signature.is_some_and(|signature| hmac::verify(&key, &signed, &signature).is_ok())
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let manner = *inner.manner.lock();
    inner.told.lock().push(Told {
        id: text(&headers, "webhook-id").parse().unwrap_or_default(),
        traceparent: headers.get("traceparent").and_then(|value| Some(value.to_str().ok()?.to_owned())),
        timestamp: text(&headers, "webhook-timestamp").to_owned(),
        signature: text(&headers, "webhook-signature").to_owned(),
        body,
    });
    manner.respond().await
}
