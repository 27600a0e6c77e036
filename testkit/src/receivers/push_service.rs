//! A push service: it knows its browsers, checks who pushes (VAPID), and has the browser read what comes.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::DropGuard;
use uuid::Uuid;

use super::{Browser, Manner, serve, text};

/// A service on this machine.
#[derive(Debug)]
pub struct PushService {
    inner: Arc<Inner>,
    origin: String,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Inner {
    origin: Mutex<String>,
    browsers: Mutex<HashMap<Uuid, Arc<Browser>>>,
    pushed: Mutex<Vec<Pushed>>,
    faults: Mutex<Vec<String>>,
    manner: Mutex<Manner>,
}

/// A message that a browser read.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The browser's endpoint.
    pub endpoint: String,
    /// What it says.
    pub message: Value,
    /// `Topic`, by which a newer one takes the place of those that wait.
    pub topic: String,
}

impl PushService {
    /// One that takes all that comes and is as it should be.
    pub async fn start() -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            origin: Mutex::default(),
            browsers: Mutex::default(),
            pushed: Mutex::default(),
            faults: Mutex::default(),
            manner: Mutex::new(Manner::Answers(201)),
        });
        let (address, stop) = serve(Router::new().route("/push/{id}", post(take)).with_state(inner.clone())).await?;
        let origin = format!("http://{address}");
        inner.origin.lock().clone_from(&origin);
        Ok(Self { inner, origin, _stop: stop })
    }

    /// A browser that takes messages of whoever has this key.
    pub fn subscribe(&self, server_key: &str) -> Arc<Browser> {
        let id = Uuid::new_v4();
        let browser = Arc::new(Browser::new(format!("{}/push/{id}", self.origin), server_key));
        self.inner.browsers.lock().insert(id, browser.clone());
        browser
    }

    /// What it does from now on with what is as it should be.
    pub fn behave(&self, manner: Manner) {
        *self.inner.manner.lock() = manner;
    }

    /// All that browsers read, repeats too.
    pub fn pushed(&self) -> Vec<Pushed> {
        self.inner.pushed.lock().clone()
    }

    /// What was not as it should be.
    pub fn faults(&self) -> Vec<String> {
        self.inner.faults.lock().clone()
    }
}

async fn take(State(inner): State<Arc<Inner>>, Path(id): Path<Uuid>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(browser) = inner.browsers.lock().get(&id).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let origin = inner.origin.lock().clone();
    match check(&browser, &origin, &headers, &body) {
        Ok(pushed) => {
            let manner = *inner.manner.lock();
            inner.pushed.lock().push(pushed);
            manner.respond().await
        }
        Err(fault) => {
            inner.faults.lock().push(fault.to_owned());
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}

fn check(browser: &Browser, origin: &str, headers: &HeaderMap, body: &[u8]) -> Result<Pushed, &'static str> {
    let (token, key) = text(headers, "authorization")
        .strip_prefix("vapid t=")
        .and_then(|rest| rest.split_once(", k="))
        .ok_or("no VAPID")?;
    if key != browser.server_key {
        return Err("another key than the browser subscribed to");
    }
    let (signed, signature) = token.rsplit_once('.').ok_or("no token")?;
    let (header, claims) = signed.split_once('.').ok_or("no token")?;
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "no base64url");
    let json = |text: &str| serde_json::from_slice::<Value>(&bytes(text)?).map_err(|_| "no JSON");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes(key)?)
        .verify(signed.as_bytes(), &bytes(signature)?)
        .map_err(|_| "a signature of somebody else")?;
    if json(header)?["alg"] != "ES256" {
        return Err("another algorithm");
    }
    let (claims, now) = (json(claims)?, OffsetDateTime::now_utc().unix_timestamp());
    let is_good = |exp: i64| exp > now && exp <= now + 24 * 60 * 60;
    if claims["aud"] != origin {
        return Err("for another service");
    }
    if !claims["exp"].as_i64().is_some_and(is_good) {
        return Err("expired, or good for too long");
    }
    if !claims["sub"].as_str().is_some_and(|sub| sub.starts_with("mailto:") || sub.starts_with("https://")) {
        return Err("no contact");
    }
    if text(headers, "content-encoding") != "aes128gcm" || text(headers, "ttl").parse::<u32>().is_err() {
        return Err("no encoding, or no TTL");
    }
    let topic = text(headers, "topic");
    if !(1..=32).contains(&topic.len()) {
        return Err("a topic that is none");
    }
    let plain = browser.read(body).ok_or("nothing that the browser can read")?;
    let message = serde_json::from_slice(&plain).map_err(|_| "no JSON inside")?;
    Ok(Pushed { endpoint: browser.endpoint.clone(), message, topic: topic.to_owned() })
}
