//! Refresh tokens: opaque to clients, and made so that the server can make the same successor again.
//!
//! base64url(user ‖ session ‖ generation ‖ HMAC-SHA-256 of these by a server key). The log holds their SHA-256 alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use platform::auth::Keyring;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const LABEL: &[u8] = b"parlance refresh token 1";
const CLAIMS: usize = 16 + 16 + 4;

/// What a refresh token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    pub(crate) user_id: Uuid,
    pub(crate) session_id: Uuid,
    /// 0 at the log-in, one more with each exchange.
    pub(crate) generation: u32,
}

impl RefreshToken {
    /// The one that follows.
    pub(crate) fn successor(self) -> Self {
        Self { generation: self.generation.saturating_add(1), ..self }
    }

    /// As clients carry it.
    pub(crate) fn text(self, keyring: &Keyring) -> String {
        let claims = self.claims();
        let tag = keyring.tag(&labelled(&claims));
        URL_SAFE_NO_PAD.encode([&claims[..], &tag].concat())
    }

    /// What the text says, if these keys made it.
    pub(crate) fn parse(text: &str, keyring: &Keyring) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (claims, tag) = bytes.split_at_checked(CLAIMS)?;
        if !keyring.is_tag(&labelled(claims), tag) {
            return None;
        }
        Some(Self {
            user_id: Uuid::from_slice(&claims[..16]).ok()?,
            session_id: Uuid::from_slice(&claims[16..32]).ok()?,
            generation: u32::from_be_bytes(claims[32..].try_into().ok()?),
        })
    }

    fn claims(self) -> [u8; CLAIMS] {
        let mut claims = [0; CLAIMS];
        claims[..16].copy_from_slice(self.user_id.as_bytes());
        claims[16..32].copy_from_slice(self.session_id.as_bytes());
        claims[32..].copy_from_slice(&self.generation.to_be_bytes());
        claims
    }
}

/// SHA-256 of a token's text, in hex, as the log has it.
pub(crate) fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn labelled(claims: &[u8]) -> Vec<u8> {
    [LABEL, claims].concat()
}

#[cfg(test)]
mod tests {
    use testkit::Database;

    use super::*;

    #[tokio::test]
    async fn only_our_own_are_read_and_each_is_made_again_the_same() {
        let (database, elsewhere) = (Database::new().await, Database::new().await);
        let keyring = Keyring::open(database.pool(), None).await.unwrap();
        let others = Keyring::open(elsewhere.pool(), None).await.unwrap();
        let token = RefreshToken { user_id: Uuid::from_u128(1), session_id: Uuid::from_u128(2), generation: 3 };
        let text = token.text(&keyring);
        assert_eq!(text, token.text(&keyring));
        assert_eq!(RefreshToken::parse(&text, &keyring), Some(token));
        assert_eq!(RefreshToken::parse(&token.text(&others), &keyring), None);
        assert_ne!(token.successor().text(&keyring), text);
        for bad in ["", "x", &text[1..], &format!("{text}="), &format!("B{}", &text[1..])] {
            assert_eq!(RefreshToken::parse(bad, &keyring), None, "{bad}");
        }
    }
}
