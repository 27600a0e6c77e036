//! Access tokens: EdDSA-signed JWTs, issued at log-in and refresh, verified at every request.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, Header, Validation};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::keyring::Keyring;
use super::revocations::Revocations;
use crate::http::Problem;

/// The header's `typ` (RFC 9068).
const TOKEN_TYPE: &str = "at+jwt";
/// Longer than any token of ours.
const LONGEST_TOKEN: usize = 2048;
/// Verified tokens that are remembered: a signature is checked once, not with each request.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32_768).expect("not zero");

/// What access tokens say beside who it is.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// `iss`: the installation, the same in all its processes.
    pub issuer: String,
    /// `aud`
    pub audience: String,
    /// How long an access token is good.
    pub access_ttl: std::time::Duration,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            issuer: "https://parlance.invalid".to_owned(),
            audience: "parlance".to_owned(),
            access_ttl: std::time::Duration::from_mins(15),
        }
    }
}

/// Who is asking, by a token that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user.
    pub user_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// Its device.
    pub device_id: Uuid,
    /// When the token expires.
    #[serde(with = "time::serde::timestamp")]
    pub expires_at: OffsetDateTime,
}

/// Why a token is refused. Clients are not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// None was given.
    #[error("no access token")]
    Missing,
    /// Not one of ours.
    #[error("not an access token of this server")]
    Bad,
    /// Its time is over.
    #[error("the access token has expired")]
    Expired,
    /// Its session was revoked.
    #[error("the session was revoked")]
    Revoked,
}

impl From<AuthError> for Problem {
    fn from(_: AuthError) -> Self {
        Self::unauthorized()
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    sid: Uuid,
    did: Uuid,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

/// Issues and verifies access tokens; cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    keyring: Keyring,
    revocations: Revocations,
    settings: AuthSettings,
    validation: Validation,
    /// By the token's SHA-256: memory holds no tokens.
    verified: Mutex<LruCache<[u8; 32], Caller>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// One that signs by these keys and heeds these revocations.
    pub fn new(keyring: Keyring, revocations: Revocations, settings: AuthSettings) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        let verified = Mutex::new(LruCache::new(REMEMBERED));
        Self { inner: Arc::new(Inner { keyring, revocations, settings, validation, verified }) }
    }

    /// A token for a session, and when it expires.
    pub fn issue(&self, user_id: Uuid, session_id: Uuid, device_id: Uuid) -> (String, OffsetDateTime) {
        let settings = &self.inner.settings;
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).expect("zero is a nanosecond");
        let expires_at = now + settings.access_ttl;
        let (key_id, key) = self.inner.keyring.signing();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some(key_id.to_owned());
        let claims = Claims {
            iss: settings.issuer.clone(),
            aud: settings.audience.clone(),
            sub: user_id,
            sid: session_id,
            did: device_id,
            iat: now.unix_timestamp(),
            exp: expires_at.unix_timestamp(),
            jti: Uuid::now_v7(),
        };
        let token = jsonwebtoken::encode(&header, &claims, key).expect("the key was read from the keyring");
        (token, expires_at)
    }

    /// Who this token stands for.
    pub fn verify(&self, token: &str) -> Result<Caller, AuthError> {
        if token.len() > LONGEST_TOKEN {
            return Err(AuthError::Bad);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let remembered = self.inner.verified.lock().get(&digest).copied();
        let caller = if let Some(caller) = remembered {
            caller
        } else {
            let caller = self.inner.decode(token)?;
            self.inner.verified.lock().put(digest, caller);
            caller
        };
        self.still_good(&caller).map(|()| caller)
    }

    /// Whether a caller who was verified before still may: not expired, not revoked.
    pub fn still_good(&self, caller: &Caller) -> Result<(), AuthError> {
        if caller.expires_at <= OffsetDateTime::now_utc() {
            return Err(AuthError::Expired);
        }
        if self.inner.revocations.is_revoked(caller.session_id) {
            return Err(AuthError::Revoked);
        }
        Ok(())
    }

    /// Who sent these headers, by `Authorization: Bearer`.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let value = headers.get(header::AUTHORIZATION).ok_or(AuthError::Missing)?;
        let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        self.verify(token.trim())
    }

    /// The public keys, as a JSON Web Key Set.
    pub fn jwks(&self) -> &Value {
        self.inner.keyring.jwks()
    }

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    /// The sessions that are refused.
    pub fn revocations(&self) -> &Revocations {
        &self.inner.revocations
    }
}

impl Inner {
    fn decode(&self, token: &str) -> Result<Caller, AuthError> {
        use jsonwebtoken::errors::ErrorKind;

        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Bad)?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) {
            return Err(AuthError::Bad);
        }
        let key = header.kid.and_then(|id| self.keyring.verifying(&id)).ok_or(AuthError::Bad)?;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|error| {
            if matches!(error.kind(), ErrorKind::ExpiredSignature) { AuthError::Expired } else { AuthError::Bad }
        })?;
        let claims = decoded.claims;
        let expires_at = OffsetDateTime::UNIX_EPOCH + Duration::seconds(claims.exp);
        Ok(Caller { user_id: claims.sub, session_id: claims.sid, device_id: claims.did, expires_at })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Authenticator: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Authenticator::from_ref(state).caller(&parts.headers)?;
        // For whoever is taken from the request after it: its context says by which session it came.
        parts.extensions.insert(caller);
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use testkit::Database;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const SESSION: Uuid = Uuid::from_u128(2);
    const DEVICE: Uuid = Uuid::from_u128(3);

    async fn with(settings: AuthSettings, database: &Database) -> Authenticator {
        let keyring = Keyring::open(database.pool(), None).await.unwrap();
        let revocations =
            Revocations::open(database.pool().clone(), settings.access_ttl, CancellationToken::new()).await.unwrap();
        Authenticator::new(keyring, revocations, settings)
    }

    #[tokio::test]
    async fn a_token_says_who_and_is_what_the_contract_says() {
        let database = Database::new().await;
        let auth = with(AuthSettings::default(), &database).await;
        let (token, expires_at) = auth.issue(ANN, SESSION, DEVICE);
        let caller = Caller { user_id: ANN, session_id: SESSION, device_id: DEVICE, expires_at };
        assert_eq!(auth.verify(&token), Ok(caller));
        assert_eq!(auth.verify(&token), Ok(caller));

        let part = |index| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
        };
        assert_eq!(part(0)["typ"], "at+jwt");
        assert_eq!(part(0)["alg"], "EdDSA");
        assert_eq!(part(0)["kid"], auth.jwks()["keys"][0]["kid"]);
        for claim in ["iss", "aud", "sub", "sid", "did", "iat", "exp", "jti"] {
            assert!(!part(1)[claim].is_null(), "{claim}");
        }
    }

    #[tokio::test]
    async fn what_is_not_ours_is_refused() {
        let database = Database::new().await;
        let auth = with(AuthSettings::default(), &database).await;
        let (token, _) = auth.issue(ANN, SESSION, DEVICE);
        let (body, _) = token.rsplit_once('.').unwrap();
        let (head, _) = token.split_once('.').unwrap();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"00000000-0000-0000-0000-000000000009"}"#);
        let signature = token.rsplit('.').next().unwrap();
        let elsewhere = with(AuthSettings::default(), &Database::new().await).await.issue(ANN, SESSION, DEVICE).0;
        let settings = AuthSettings { audience: "others".into(), ..AuthSettings::default() };
        let other_audience = with(settings, &database).await.issue(ANN, SESSION, DEVICE).0;
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#), claims);
        for bad in [
            "",
            "x",
            "a.b.c",
            body,
            &format!("{head}.{claims}.{signature}"),
            &elsewhere,
            &other_audience,
            &unsigned,
            &"x".repeat(5000),
        ] {
            assert_eq!(auth.verify(bad), Err(AuthError::Bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_expired_or_revoked_token_is_refused_though_it_was_verified_before() {
        let database = Database::new().await;
        let settings = AuthSettings { access_ttl: std::time::Duration::ZERO, ..AuthSettings::default() };
        let past = with(settings, &database).await.issue(ANN, SESSION, DEVICE).0;
        let auth = with(AuthSettings::default(), &database).await;
        assert_eq!(auth.verify(&past), Err(AuthError::Expired));
        let (token, _) = auth.issue(ANN, SESSION, DEVICE);
        auth.verify(&token).unwrap();
        auth.revocations().revoke(&[SESSION]).await.unwrap();
        assert_eq!(auth.verify(&token), Err(AuthError::Revoked));
    }

    #[tokio::test]
    async fn the_header_is_a_bearer_token() {
        let database = Database::new().await;
        let auth = with(AuthSettings::default(), &database).await;
        let (token, _) = auth.issue(ANN, SESSION, DEVICE);
        let by = |value: &str| {
            auth.caller(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])).map(|who| who.user_id)
        };
        assert_eq!(by(&format!("Bearer {token}")), Ok(ANN));
        assert_eq!(by(&format!("bearer {token}")), Ok(ANN));
        assert_eq!(by(&token), Err(AuthError::Missing));
        assert_eq!(by(&format!("Basic {token}")), Err(AuthError::Missing));
        assert_eq!(auth.caller(&HeaderMap::new()), Err(AuthError::Missing));
    }
}
