//! The master key: whatever an operator's secret store gives, brought to the size that ciphers want.

use std::{fmt, str::FromStr};

use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};

const SHORTEST: usize = 32;
/// Keeps a key made here apart from any other hash of the same text.
const DOMAIN: &[u8] = b"parlance master key v1\0";

/// 256 bits that seal what processes share in the database.
pub struct MasterKey(SecretBox<[u8; 32]>);

impl MasterKey {
    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl FromStr for MasterKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() < SHORTEST {
            return Err(format!(
                "at least {SHORTEST} characters are wanted, such as the output of `openssl rand -base64 32`"
            ));
        }
        let mut digest = Sha256::new_with_prefix(DOMAIN);
        digest.update(text);
        Ok(Self(SecretBox::new(Box::new(digest.finalize().into()))))
    }
}

impl Clone for MasterKey {
    fn clone(&self) -> Self {
        Self(SecretBox::new(Box::new(*self.expose())))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MasterKey(hidden)")
    }
}
