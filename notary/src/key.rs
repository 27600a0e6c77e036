//! The key that signs, which stands in a file of its own, and those that signatures are checked by.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Characters of a line, as PEM has them.
const LINE: usize = 64;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("the key file {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no Ed25519 key as PKCS#8 in PEM, such as `openssl genpkey -algorithm ed25519` makes", .0.display())]
    NoKey(PathBuf),
    /// The system has no random bytes.
    #[error("no key could be made")]
    Random,
}

/// The key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// The key of a file.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
        Self::parse(&text).ok_or_else(|| KeyError::NoKey(path.to_owned()))
    }

    /// The key of a file, made where there is none yet, for its owner alone.
    ///
    /// # Errors
    /// A file that cannot be read or made, or holds no key.
    pub fn read_or_make(path: &Path) -> Result<Self, KeyError> {
        match Self::make(path) {
            Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            made => made,
        }
    }

    fn make(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Random)?;
        let body = STANDARD.encode(document.as_ref());
        let mut pem = format!("{BEGIN}\n");
        for line in body.as_bytes().chunks(LINE) {
            pem.push_str(str::from_utf8(line).unwrap_or_default());
            pem.push('\n');
        }
        pem.push_str(END);
        pem.push('\n');
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Self::parse(&pem).ok_or_else(|| KeyError::NoKey(path.to_owned()))
    }

    fn parse(pem: &str) -> Option<Self> {
        let body: String = pem.split_once(BEGIN)?.1.split_once(END)?.0.split_whitespace().collect();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&STANDARD.decode(body).ok()?).ok()?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// What its signatures are checked by.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// A key that signatures are checked by; as text 44 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// What statements call it: the beginning of its SHA-256 hash, in hexadecimal.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.0)[..8])
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a public key as `parlance verify --public-key` prints it is wanted")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/key");
        let made = SigningKey::read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = SigningKey::read_or_make(&path).unwrap();
        assert_eq!(again.public(), made.public());
        assert_eq!(made.public().to_string().parse(), Ok(made.public()));
        let signature = again.sign(b"words");
        assert!(made.public().verifies(b"words", &signature) && !made.public().verifies(b"word", &signature));
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(SigningKey::read(&path), Err(KeyError::File { .. })));
        fs::write(&path, format!("{BEGIN}\nAAAA\n{END}\n")).unwrap();
        assert!(matches!(SigningKey::read_or_make(&path), Err(KeyError::NoKey(_))));
        assert!("AAAA".parse::<PublicKey>().is_err());
    }
}
