//! Who we are, to push services: a token for each of them, signed by the installation's key (VAPID, RFC 8292).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use platform::auth::PushKey;
use serde::Serialize;
use time::OffsetDateTime;

/// How long a token is good; 24 hours are the most that there may be.
const GOOD: Duration = Duration::from_hours(12);
/// `{"typ":"JWT","alg":"ES256"}`
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9";

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
}

/// The header `Authorization` for the push service of this origin.
pub(super) fn authorization(key: &PushKey, service: &str, contact: Option<&str>, now: OffsetDateTime) -> String {
    let claims = Claims { aud: service, exp: (now + GOOD).unix_timestamp(), sub: contact };
    let claims = serde_json::to_vec(&claims).expect("text and numbers are JSON");
    let text = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()));
    format!("vapid t={text}.{signature}, k={}", key.public())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use platform::auth::Keyring;
    use serde_json::{Value, json};
    use testkit::Database;

    use super::*;

    fn json_of(text: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn says_whom_it_is_for_and_until_when_by_a_signature_that_its_key_made() {
        let database = Database::new().await;
        let keyring = Keyring::open(database.pool(), None).await.unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let made = authorization(keyring.push(), "https://push.example.net", Some("mailto:a@b"), now);
        let (token, key) = made.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = text.split_once('.').unwrap();
        assert_eq!(json_of(header), json!({"typ": "JWT", "alg": "ES256"}));
        let expected = json!({"aud": "https://push.example.net", "exp": 1_700_043_200, "sub": "mailto:a@b"});
        assert_eq!(json_of(claims), expected);
        let key = URL_SAFE_NO_PAD.decode(key).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(text.as_bytes(), &signature).unwrap();
    }
}
