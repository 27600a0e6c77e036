//! A browser that subscribed to push: it alone can read what comes.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A subscription with its private key.
#[derive(Debug)]
pub struct Browser {
    pub(super) endpoint: String,
    /// What it takes messages from alone.
    pub(super) server_key: String,
    key: PrivateKey,
    secret: [u8; 16],
}

impl Browser {
    pub(super) fn new(endpoint: String, server_key: &str) -> Self {
        let key = PrivateKey::generate(&ECDH_P256).expect("the system gives random bytes");
        Self { endpoint, server_key: server_key.to_owned(), key, secret: rand::random() }
    }

    /// `PushSubscription.toJSON()`
    pub fn subscription(&self) -> Value {
        let (p256dh, auth) = (URL_SAFE_NO_PAD.encode(self.public()), URL_SAFE_NO_PAD.encode(self.secret));
        json!({"endpoint": self.endpoint, "expirationTime": null, "keys": {"p256dh": p256dh, "auth": auth}})
    }

    fn public(&self) -> Vec<u8> {
        self.key.compute_public_key().expect("a key has a public half").as_ref().to_vec()
    }

    /// What a message says, by RFC 8188 and RFC 8291.
    pub(super) fn read(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = message.split_at_checked(16)?;
        let (record, rest) = rest.split_at_checked(4)?;
        let (length, rest) = rest.split_first()?;
        let (sender, sealed) = rest.split_at_checked(usize::from(*length))?;
        let record = u32::from_be_bytes(record.try_into().ok()?);
        if sealed.len() > usize::try_from(record).ok()? {
            return None;
        }
        let about = [b"WebPush: info\0", &self.public()[..], sender].concat();
        let shared = agree(&self.key, UnparsedPublicKey::new(&ECDH_P256, sender), (), |shared| Ok(shared.to_vec()));
        let material = derived(&self.secret, &shared.ok()?, &about, 32);
        let key = derived(salt, &material, b"Content-Encoding: aes128gcm\0", 16);
        let nonce = derived(salt, &material, b"Content-Encoding: nonce\0", 12);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
        let mut opened = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let plain = key.open_in_place(nonce, Aad::empty(), &mut opened).ok()?;
        // The delimiter of the last record, and padding behind it.
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        (plain[end] == 2).then(|| plain[..end].to_vec())
    }
}

/// One block of HKDF with SHA-256, as the standards spell it out.
fn derived(salt: &[u8], material: &[u8], about: &[u8], length: usize) -> Vec<u8> {
    let tag = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec();
    let extracted = tag(salt, material);
    let mut expanded = tag(&extracted, &[about, &[1]].concat());
    expanded.truncate(length);
    expanded
}
