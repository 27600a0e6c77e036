//! Where a browser is reached by push: what it subscribed with, as it is kept.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::Uri;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::is_public;
use crate::auth::Keyring;

/// Endpoints are some 200 characters long.
const LONGEST_ENDPOINT: usize = 2048;
/// Browsers leave the padding out, libraries may not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A push service's resource, and what its messages are encrypted with (RFC 8030, RFC 8291).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushTarget {
    endpoint: String,
    /// The browser's public key: an uncompressed point of P-256.
    p256dh: Vec<u8>,
    /// Its authentication secret, of 16 bytes.
    auth: Vec<u8>,
}

/// What is wrong with a subscription, by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No address that may be called.
    #[error("an https address of a public push service, of at most 2048 characters, is wanted")]
    Endpoint,
    /// No public key.
    #[error("a point of P-256 in base64url, uncompressed, is wanted")]
    Key,
    /// No secret.
    #[error("16 bytes in base64url are wanted")]
    Secret,
}

impl fmt::Debug for PushTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushTarget").field("service", &self.service()).finish_non_exhaustive()
    }
}

impl PushTarget {
    /// One of what a browser gives. Where `anywhere` is set, it may be reached by http, and in private networks.
    pub fn new(endpoint: &str, p256dh: &str, auth: &str, anywhere: bool) -> Result<Self, Vec<TargetError>> {
        let mut errors = Vec::new();
        if endpoint.len() > LONGEST_ENDPOINT || origin(endpoint, anywhere).is_none() {
            errors.push(TargetError::Endpoint);
        }
        let key = BASE64.decode(p256dh).ok().filter(|key| is_point(key));
        let secret = BASE64.decode(auth).ok().filter(|secret| secret.len() == 16);
        match (key, secret) {
            (Some(p256dh), Some(auth)) if errors.is_empty() => {
                return Ok(Self { endpoint: endpoint.to_owned(), p256dh, auth });
            }
            (key, secret) => {
                errors.extend(key.is_none().then_some(TargetError::Key));
                errors.extend(secret.is_none().then_some(TargetError::Secret));
            }
        }
        Err(errors)
    }

    /// Where messages are posted to; whoever has it may push.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The browser's public key.
    pub fn key(&self) -> &[u8] {
        &self.p256dh
    }

    /// The browser's authentication secret.
    pub fn secret(&self) -> &[u8] {
        &self.auth
    }

    /// The origin of the push service.
    pub fn service(&self) -> String {
        origin(&self.endpoint, true).unwrap_or_default()
    }

    /// What tells one endpoint from another, and nothing else.
    pub fn endpoint_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.endpoint).into()
    }

    /// As it is kept: sealed, and good for this subscription alone.
    pub fn seal(&self, keyring: &Keyring, user_id: Uuid, subscription_id: Uuid) -> Vec<u8> {
        let plain = serde_json::to_vec(self).expect("text and bytes are JSON");
        keyring.seal(&plain, &belongs_to(user_id, subscription_id))
    }

    /// What was kept, if it is this subscription's.
    pub fn open(keyring: &Keyring, sealed: &[u8], user_id: Uuid, subscription_id: Uuid) -> Option<Self> {
        serde_json::from_slice(&keyring.unseal(sealed, &belongs_to(user_id, subscription_id))?).ok()
    }
}

fn belongs_to(user_id: Uuid, subscription_id: Uuid) -> Vec<u8> {
    [b"push subscription" as &[u8], user_id.as_bytes(), subscription_id.as_bytes()].concat()
}

/// The origin of an address that may be called. What its name stands for is looked at when it is called.
fn origin(endpoint: &str, anywhere: bool) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let host = authority.host().trim_matches(['[', ']']);
    let secure = scheme == "https" || (anywhere && scheme == "http");
    let named = anywhere || host.parse().map_or(host.contains('.'), |address: IpAddr| is_public(address));
    let plain = !host.is_empty() && !authority.as_str().contains('@');
    (secure && named && plain).then(|| format!("{scheme}://{authority}"))
}

/// Whether a secret can be agreed on with it.
fn is_point(key: &[u8]) -> bool {
    let Ok(own) = PrivateKey::generate(&ECDH_P256) else { return false };
    key.len() == 65 && agree(&own, UnparsedPublicKey::new(&ECDH_P256, key), (), |_| Ok(())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8291, section 5.
    const KEY: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const SECRET: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const ENDPOINT: &str = "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV";

    #[test]
    fn what_a_browser_gives_is_taken() {
        let target = PushTarget::new(ENDPOINT, KEY, &format!("{SECRET}=="), false).unwrap();
        assert_eq!((target.endpoint(), target.service().as_str()), (ENDPOINT, "https://push.example.net"));
        assert!(!format!("{target:?}").contains("JzLQ3raZ"));
        for endpoint in ["http://127.0.0.1:9000/push/1", "https://localhost/push/1"] {
            assert!(PushTarget::new(endpoint, KEY, SECRET, true).is_ok(), "{endpoint}");
        }
    }

    #[test]
    fn what_cannot_be_pushed_to_is_refused_by_where_it_stands() {
        for endpoint in [
            "",
            "push.example.net",
            "http://push.example.net/1",
            "ftp://push.example.net/1",
            "https://user:password@push.example.net/1",
            "https://127.0.0.1/1",
            "https://[::1]/1",
            "https://169.254.169.254/latest",
            "https://localhost/1",
            "https:///1",
            &format!("https://push.example.net/{}", "x".repeat(2048)),
        ] {
            let refused = PushTarget::new(endpoint, KEY, SECRET, false);
            assert_eq!(refused, Err(vec![TargetError::Endpoint]), "{endpoint}");
        }
        let no_point = BASE64.encode([4; 65]);
        for key in ["", "nonsense!", &KEY[..40], &no_point] {
            assert_eq!(PushTarget::new(ENDPOINT, key, SECRET, false), Err(vec![TargetError::Key]), "{key}");
        }
        assert_eq!(
            PushTarget::new("", "", "AAAA", false),
            Err(vec![TargetError::Endpoint, TargetError::Key, TargetError::Secret])
        );
    }
}
