//! Sealing the installation's secrets by its master key: AES-256-GCM, under a key derived by HKDF-SHA-256.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use crate::config::MasterKey;

const SALT: &[u8] = b"parlance server keys, version 1";

/// A key that seals: server keys, derived from the master key for this alone; or other secrets, one of the server keys.
pub(super) struct Seal(RandomizedNonceKey);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    pub(super) fn derive(master: &MasterKey) -> Self {
        let material = Salt::new(HKDF_SHA256, SALT).extract(master.expose());
        let mut key = [0; 32];
        material
            .expand(&[b"seal"], HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .expect("32 bytes are one block of SHA-256");
        Self::by(&key)
    }

    /// By a key that seals nothing else.
    pub(super) fn by(key: &[u8; 32]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256"))
    }

    /// The secret, sealed together with what it belongs to.
    pub(super) fn seal(&self, secret: &[u8], belongs_to: &[u8]) -> Vec<u8> {
        let mut text = secret.to_vec();
        let nonce =
            self.0.seal_in_place_append_tag(Aad::from(belongs_to), &mut text).expect("a few bytes are not too many");
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        sealed
    }

    /// The secret, unless key or bytes are not those that sealed it.
    pub(super) fn open(&self, sealed: &[u8], belongs_to: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let secret = self.0.open_in_place(nonce, Aad::from(belongs_to), &mut text).ok()?;
        Some(secret.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_opens_and_only_what_belongs_together() {
        let key = |text: &str| Seal::derive(&text.repeat(4).parse().unwrap());
        let sealed = key("correct horse").seal(b"secret", b"here");
        assert_eq!(key("correct horse").open(&sealed, b"here").as_deref(), Some(&b"secret"[..]));
        assert_eq!(key("battery staple").open(&sealed, b"here"), None);
        assert_eq!(key("correct horse").open(&sealed, b"there"), None);
        assert_eq!(key("correct horse").open(&sealed[..8], b"here"), None);
        assert_ne!(key("correct horse").seal(b"secret", b"here"), sealed);
    }
}
