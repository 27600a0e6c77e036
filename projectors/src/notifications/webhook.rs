//! One delivery to a webhook: the event as it is, by the conventions of Standard Webhooks.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use reqwest::Url;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::call::Caller;
use super::outcome::Outcome;

/// What secrets begin with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, at least and at most.
const SECRET: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret's bytes, if its text is one: `whsec_`, and 24 to 64 bytes in base64.
pub(super) fn parse_secret(text: &str) -> Option<Vec<u8>> {
    let secret = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
    SECRET.contains(&secret.len()).then_some(secret)
}

/// A secret as its owner is told it.
pub(super) fn secret_text(secret: &[u8]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret))
}

/// The signature of a body that is sent at this time.
fn sign(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)))
}

/// Sends an event, within a trace; what tells repeats is its id.
pub(super) async fn send(
    caller: &Caller,
    url: Url,
    secret: &[u8],
    event_id: Uuid,
    event: &Value,
    traceparent: Option<&str>,
) -> Outcome {
    let (id, timestamp) = (event_id.to_string(), OffsetDateTime::now_utc().unix_timestamp());
    let body = serde_json::to_vec(event).expect("JSON was read from JSON");
    let mut request = caller
        .post(url)
        .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
        .header("webhook-id", &id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", sign(secret, &id, timestamp, &body));
    if let Some(trace) = traceparent {
        request = request.header("traceparent", trace);
    }
    match caller.call(request.body(body)).await {
        Ok(answer) => match answer.status {
            200..=299 => Outcome::Taken,
            410 => Outcome::Gone,
            // Whatever else is wrong with a receiver may be mended.
            _ => answer.again(),
        },
        Err(error) => error.again(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the libraries of Standard Webhooks test by.
    #[test]
    fn signs_as_the_example_of_the_convention() {
        let secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret_text(&secret), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = secret_text(&[7; 23]);
        let long = secret_text(&[7; 65]);
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", &short, &long] {
            assert_eq!(parse_secret(text), None, "{text}");
        }
        assert!(parse_secret(&secret_text(&[7; 64])).is_some());
    }
}
