//! One push: an encrypted message for one browser, by its push service (RFC 8030).

mod encrypt;
mod vapid;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use platform::auth::PushKey;
use platform::push::PushTarget;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::call::{Caller, is_reachable};
use super::outcome::Outcome;

/// How long a push service keeps a message for a browser that is away.
const TTL_S: u32 = 24 * 60 * 60;
/// What a message says is cut to so many bytes: the browser has to fetch the rest anyway.
const MOST_CONTENT: usize = 2000;

/// What a browser is told of a message: nothing that anybody said, unless the settings have it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// `message.sent`
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// What tells repeats.
    pub(super) event_id: Uuid,
    pub(super) conversation_id: Uuid,
    pub(super) seq: u64,
    pub(super) message_id: Uuid,
    pub(super) sender_id: Uuid,
    pub(super) sent_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    /// Of the trace that the message is part of, if it came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) traceparent: Option<String>,
}

impl Told {
    /// The same with what was said, as much as fits.
    pub(super) fn saying(mut self, content: &str) -> Self {
        let mut end = content.len().min(MOST_CONTENT);
        loop {
            while !content.is_char_boundary(end) {
                end -= 1;
            }
            self.content = Some(content[..end].to_owned());
            // What JSON has to escape takes more room.
            if self.to_json().len() <= encrypt::LARGEST {
                return self;
            }
            end /= 2;
        }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers are JSON")
    }
}

/// Sends it to a browser.
pub(super) async fn send(
    caller: &Caller,
    key: &PushKey,
    contact: Option<&str>,
    to: &PushTarget,
    told: &Told,
) -> Outcome {
    let Ok(url) = Url::parse(to.endpoint()) else { return Outcome::Refused("its endpoint is no address".to_owned()) };
    if !caller.anywhere && !is_reachable(&url) {
        return Outcome::Refused("its endpoint is not on the public internet".to_owned());
    }
    let Ok(body) = encrypt::encrypt(&told.to_json(), to.key(), to.secret()) else {
        return Outcome::Refused("it cannot be encrypted for this subscription".to_owned());
    };
    let service = url.origin().ascii_serialization();
    let request = caller
        .post(url)
        .header(AUTHORIZATION, vapid::authorization(key, &service, contact, OffsetDateTime::now_utc()))
        .header(CONTENT_ENCODING, "aes128gcm")
        .header(CONTENT_TYPE, "application/octet-stream")
        .header("TTL", TTL_S)
        .header("Urgency", "high")
        // The newest of a conversation takes the place of those that wait: 22 of the 32 characters that there may be.
        .header("Topic", URL_SAFE_NO_PAD.encode(told.conversation_id));
    match caller.call(request.body(body)).await {
        Ok(answer) => match answer.status {
            200..=299 => Outcome::Taken,
            // RFC 8030 has them for a subscription that is no more.
            404 | 410 => Outcome::Gone,
            408 | 425 | 429 | 500.. => answer.again(),
            // Nothing that the next try would do otherwise: too large, or not ours to push to.
            status => Outcome::Refused(format!("answered {status}")),
        },
        Err(error) => error.again(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_fits_whatever_was_said() {
        let told = Told {
            kind: "message.sent".to_owned(),
            event_id: Uuid::max(),
            conversation_id: Uuid::max(),
            seq: u64::MAX,
            message_id: Uuid::max(),
            sender_id: Uuid::max(),
            sent_at: "2026-01-02T03:04:05.006Z".to_owned(),
            content: None,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        };
        for content in ["👋".repeat(4096), "\"".repeat(16_384), "\u{1}".repeat(16_384), "a👋".repeat(3000)] {
            let told = told.clone().saying(&content);
            assert!(content.starts_with(told.content.as_deref().unwrap()));
            assert!(told.to_json().len() <= encrypt::LARGEST);
        }
        let said = told.clone().saying("Grüße").content;
        assert_eq!(said.as_deref(), Some("Grüße"));
        assert!(!serde_json::to_string(&told).unwrap().contains("content"));
    }
}
