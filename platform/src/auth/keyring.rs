//! The installation's own keys: they stand in the database, so that every process has the same ones.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::push_key::PushKey;
use super::seal::Seal;
use crate::config::MasterKey;

/// Held while a process looks for keys and makes those that are missing.
const LOCK: i64 = 0x7061_726c_6b65_7973;
/// Signs access tokens: Ed25519, PKCS#8.
const SIGNING: &str = "access-tokens";
/// Authenticates refresh tokens: HMAC-SHA-256.
const TAGGING: &str = "refresh-tokens";
/// Proves that a call comes from a process of this installation: HMAC-SHA-256.
const INTERNAL: &str = "internal";
/// Seals secrets that stand in the database: AES-256-GCM.
const SEALING: &str = "secrets";
/// Says to push services who we are: ECDSA on P-256, PKCS#8.
const PUSHING: &str = "web-push";
/// What the proof is made for; another text would be another proof.
const INTERNAL_LABEL: &[u8] = b"parlance internal calls, version 1";

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The database did not answer, or is not migrated.
    #[error("the server's keys cannot be read from the database")]
    Database(#[from] sqlx::Error),
    /// The keys are sealed and no master key was given.
    #[error(
        "the server's keys are sealed by a master key: set PARLANCE_MASTER_KEY to the one it was started with first"
    )]
    MasterKeyMissing,
    /// The keys are sealed by another master key.
    #[error(
        "PARLANCE_MASTER_KEY is not the one that sealed the server's keys: set it to the one it was started with first"
    )]
    MasterKeyWrong,
    /// A key is not what it should be.
    #[error("the server key {0} in the database is damaged")]
    Damaged(Uuid),
    /// The key of a purpose is not.
    #[error("the server key of {0} in the database is damaged")]
    DamagedOf(&'static str),
}

/// The keys; cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<Keys>,
}

struct Keys {
    signing_id: String,
    signing: EncodingKey,
    verifying: HashMap<String, DecodingKey>,
    tagging: hmac::Key,
    internal: hmac::Key,
    sealing: Seal,
    push: PushKey,
    jwks: Value,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("signing_id", &self.keys.signing_id).finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    key_id: Uuid,
    purpose: String,
    sealed: bool,
    secret: Vec<u8>,
}

impl Keyring {
    /// Reads the keys, and makes those that are missing: processes that start at once agree on the same ones.
    ///
    /// Keys made without a master key are sealed as soon as one is given.
    pub async fn open(pool: &PgPool, master_key: Option<&MasterKey>) -> Result<Self, KeyringError> {
        let seal = master_key.map(Seal::derive);
        let mut transaction = pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
        let rows: Vec<Row> =
            sqlx::query_as("SELECT key_id, purpose, sealed, secret FROM state.server_keys ORDER BY created_at, key_id")
                .fetch_all(&mut *transaction)
                .await?;
        let mut signing = Vec::new();
        let (mut tagging, mut internal, mut sealing, mut pushing) = (None, None, None, None);
        for row in rows {
            let secret = unseal(&mut transaction, &row, seal.as_ref()).await?;
            match row.purpose.as_str() {
                SIGNING => signing.push((row.key_id, secret)),
                TAGGING => tagging = Some(secret),
                INTERNAL => internal = Some(secret),
                SEALING => sealing = Some(secret),
                // It has to stay: browsers subscribe to what this one key sends.
                PUSHING => pushing = Some((row.key_id, secret)),
                _ => {}
            }
        }
        if signing.is_empty() {
            let pair = Ed25519KeyPair::generate().expect("the system gives random bytes");
            let secret = pair.to_pkcs8().expect("a fresh key can be written down").as_ref().to_vec();
            let public = pair.public_key().as_ref().to_vec();
            let id = insert(&mut transaction, SIGNING, &secret, Some(public), seal.as_ref()).await?;
            signing.push((id, secret));
        }
        let tagging = given_or_made(&mut transaction, TAGGING, tagging, seal.as_ref()).await?;
        let internal = given_or_made(&mut transaction, INTERNAL, internal, seal.as_ref()).await?;
        let sealing = given_or_made(&mut transaction, SEALING, sealing, seal.as_ref()).await?;
        let sealing: [u8; 32] = sealing.try_into().map_err(|_| KeyringError::DamagedOf(SEALING))?;
        let (push_id, pushing) = if let Some(given) = pushing {
            given
        } else {
            let (secret, public) = PushKey::generate();
            (insert(&mut transaction, PUSHING, &secret, Some(public), seal.as_ref()).await?, secret)
        };
        transaction.commit().await?;
        let push = PushKey::from_pkcs8(&pushing).ok_or(KeyringError::Damaged(push_id))?;
        Self::assemble(&signing, &tagging, &internal, Seal::by(&sealing), push)
    }

    fn assemble(
        signing: &[(Uuid, Vec<u8>)],
        tagging: &[u8],
        internal: &[u8],
        sealing: Seal,
        push: PushKey,
    ) -> Result<Self, KeyringError> {
        let mut verifying = HashMap::new();
        let mut published = Vec::new();
        for (id, secret) in signing {
            let pair = Ed25519KeyPair::from_pkcs8(secret).map_err(|_| KeyringError::Damaged(*id))?;
            let public = pair.public_key().as_ref();
            verifying.insert(id.to_string(), DecodingKey::from_ed_der(public));
            published.push(json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                "kid": id.to_string(), "x": URL_SAFE_NO_PAD.encode(public),
            }));
        }
        let (newest, secret) = signing.last().expect("one was made where none was");
        Ok(Self {
            keys: Arc::new(Keys {
                signing_id: newest.to_string(),
                signing: EncodingKey::from_ed_der(secret),
                verifying,
                tagging: hmac::Key::new(hmac::HMAC_SHA256, tagging),
                internal: hmac::Key::new(hmac::HMAC_SHA256, internal),
                sealing,
                push,
                jwks: json!({ "keys": published }),
            }),
        })
    }

    /// The public keys that verify access tokens, as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> &Value {
        &self.keys.jwks
    }

    /// A tag that only the holders of these keys can make for `text`.
    pub fn tag(&self, text: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.keys.tagging, text);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Whether `tag` is that of `text`; takes the same time whichever it is.
    pub fn is_tag(&self, text: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.keys.tagging, text, tag).is_ok()
    }

    /// What a process of this installation shows to another as its `Bearer` token; the same in all of them.
    pub fn internal_token(&self) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.keys.internal, INTERNAL_LABEL))
    }

    /// Whether a token is [`Self::internal_token`]; takes the same time for all that could be.
    pub fn is_internal_token(&self, token: &[u8]) -> bool {
        let tag = URL_SAFE_NO_PAD.decode(token);
        tag.is_ok_and(|tag| hmac::verify(&self.keys.internal, INTERNAL_LABEL, &tag).is_ok())
    }

    /// A secret as it may stand in the database, bound to what it belongs to.
    pub fn seal(&self, secret: &[u8], belongs_to: &[u8]) -> Vec<u8> {
        self.keys.sealing.seal(secret, belongs_to)
    }

    /// What [`Self::seal`] sealed, if it belongs there.
    pub fn unseal(&self, sealed: &[u8], belongs_to: &[u8]) -> Option<Vec<u8>> {
        self.keys.sealing.open(sealed, belongs_to)
    }

    /// What says to push services who we are.
    pub fn push(&self) -> &PushKey {
        &self.keys.push
    }

    /// The key that signs now, and its id.
    pub(super) fn signing(&self) -> (&str, &EncodingKey) {
        (&self.keys.signing_id, &self.keys.signing)
    }

    /// The key of an id.
    pub(super) fn verifying(&self, id: &str) -> Option<&DecodingKey> {
        self.keys.verifying.get(id)
    }
}

/// What a sealed secret is bound to, so that one cannot be put in another's place.
fn belongs_to(id: Uuid, purpose: &str) -> Vec<u8> {
    [id.as_bytes(), purpose.as_bytes()].concat()
}

async fn unseal(connection: &mut PgConnection, row: &Row, seal: Option<&Seal>) -> Result<Vec<u8>, KeyringError> {
    let bound = belongs_to(row.key_id, &row.purpose);
    match (row.sealed, seal) {
        (true, None) => Err(KeyringError::MasterKeyMissing),
        (true, Some(seal)) => seal.open(&row.secret, &bound).ok_or(KeyringError::MasterKeyWrong),
        (false, None) => Ok(row.secret.clone()),
        (false, Some(seal)) => {
            sqlx::query("UPDATE state.server_keys SET sealed = true, secret = $2 WHERE key_id = $1")
                .bind(row.key_id)
                .bind(seal.seal(&row.secret, &bound))
                .execute(connection)
                .await?;
            Ok(row.secret.clone())
        }
    }
}

/// The secret of a purpose that has one; a random one where it is missing.
async fn given_or_made(
    connection: &mut PgConnection,
    purpose: &str,
    given: Option<Vec<u8>>,
    seal: Option<&Seal>,
) -> Result<Vec<u8>, KeyringError> {
    if let Some(secret) = given {
        return Ok(secret);
    }
    let mut secret = vec![0; 32];
    SystemRandom::new().fill(&mut secret).expect("the system gives random bytes");
    insert(connection, purpose, &secret, None, seal).await?;
    Ok(secret)
}

async fn insert(
    connection: &mut PgConnection,
    purpose: &str,
    secret: &[u8],
    public: Option<Vec<u8>>,
    seal: Option<&Seal>,
) -> Result<Uuid, KeyringError> {
    let id = Uuid::now_v7();
    let stored = seal.map_or_else(|| secret.to_vec(), |seal| seal.seal(secret, &belongs_to(id, purpose)));
    sqlx::query("INSERT INTO state.server_keys (key_id, purpose, sealed, secret, public) VALUES ($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(purpose)
        .bind(seal.is_some())
        .bind(stored)
        .bind(public)
        .execute(connection)
        .await?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use testkit::Database;

    use super::*;

    async fn stored(database: &Database) -> Vec<(bool, Vec<u8>)> {
        sqlx::query_as("SELECT sealed, secret FROM state.server_keys").fetch_all(database.pool()).await.unwrap()
    }

    #[tokio::test]
    async fn processes_that_start_at_once_agree() {
        let database = Database::new().await;
        let (one, other) = tokio::join!(Keyring::open(database.pool(), None), Keyring::open(database.pool(), None));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.jwks(), other.jwks());
        assert_eq!(one.tag(b"text"), other.tag(b"text"));
        assert!(one.is_tag(b"text", &other.tag(b"text")));
        assert!(!one.is_tag(b"other", &other.tag(b"text")));
        assert_eq!(one.internal_token(), other.internal_token());
        assert!(one.is_internal_token(other.internal_token().as_bytes()));
        for wrong in ["", "nonsense", &one.internal_token()[1..], &URL_SAFE_NO_PAD.encode(one.tag(INTERNAL_LABEL))] {
            assert!(!one.is_internal_token(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(stored(&database).await.len(), 5);
        assert_eq!(one.push().public(), other.push().public());
        let sealed = one.seal(b"secret", b"here");
        assert_eq!(other.unseal(&sealed, b"here").as_deref(), Some(&b"secret"[..]));
        assert_eq!(other.unseal(&sealed, b"there"), None);
    }

    #[tokio::test]
    async fn a_wrong_or_missing_master_key_is_a_clear_error() {
        let database = Database::new().await;
        let (right, wrong): (MasterKey, MasterKey) =
            (["right"; 8].concat().parse().unwrap(), ["wrong"; 8].concat().parse().unwrap());
        let made = Keyring::open(database.pool(), Some(&right)).await.unwrap();
        let again = Keyring::open(database.pool(), Some(&right)).await.unwrap();
        assert_eq!(made.jwks(), again.jwks());
        let refused = Keyring::open(database.pool(), Some(&wrong)).await.unwrap_err();
        assert!(matches!(refused, KeyringError::MasterKeyWrong));
        assert!(refused.to_string().contains("PARLANCE_MASTER_KEY"));
        assert!(matches!(Keyring::open(database.pool(), None).await, Err(KeyringError::MasterKeyMissing)));
    }

    #[tokio::test]
    async fn keys_are_sealed_once_a_master_key_is_there() {
        let database = Database::new().await;
        let plain = Keyring::open(database.pool(), None).await.unwrap();
        let before = stored(&database).await;
        assert!(before.iter().all(|(sealed, _)| !sealed));
        let sealed = Keyring::open(database.pool(), Some(&["key"; 16].concat().parse().unwrap())).await.unwrap();
        assert_eq!(plain.jwks(), sealed.jwks());
        let after = stored(&database).await;
        assert!(after.iter().all(|(sealed, secret)| *sealed && before.iter().all(|(_, plain)| plain != secret)));
    }
}
