//! The key by which push services know us (VAPID, RFC 8292): browsers take messages of this one alone.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// ECDSA on P-256.
pub struct PushKey(EcdsaKeyPair);

impl fmt::Debug for PushKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PushKey").field(&self.public()).finish()
    }
}

impl PushKey {
    /// A new one as PKCS#8, and its public half.
    pub(super) fn generate() -> (Vec<u8>, Vec<u8>) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the system gives random bytes");
        let secret = pair.to_pkcs8v1().expect("a fresh key can be written down").as_ref().to_vec();
        (secret, pair.public_key().as_ref().to_vec())
    }

    pub(super) fn from_pkcs8(secret: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, secret).ok().map(Self)
    }

    /// The public half as browsers want it: the uncompressed point in base64url.
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.public_key())
    }

    /// The signature that a JSON Web Token of the algorithm ES256 bears (RFC 7518, section 3.4).
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        // It fails for want of memory alone.
        self.0.sign(&SystemRandom::new(), text).expect("a key that was read can sign").as_ref().to_vec()
    }
}
