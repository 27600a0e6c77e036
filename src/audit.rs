//! Where this installation's key and its signed heads stand.

use std::path::PathBuf;

use anyhow::Context;
use notary::{PublicKey, SigningKey};
use platform::config::Config;

/// The key and the file, as settings say, else under the data directory.
pub(crate) struct AuditPaths {
    pub(crate) key: PathBuf,
    pub(crate) file: PathBuf,
    /// Whether the key is to be there or to be made: it is named, or the database is this directory's own.
    pub(crate) key_is_ours: bool,
    /// Whether the file is to be there.
    pub(crate) file_is_ours: bool,
}

impl AuditPaths {
    pub(crate) fn of(config: &Config) -> Self {
        let folder = config.data_dir.join("audit");
        let own = config.database_url.is_none();
        Self {
            key: config.audit_key_file.clone().unwrap_or_else(|| folder.join("key")),
            file: config.audit_file.clone().unwrap_or_else(|| folder.join("heads.jsonl")),
            key_is_ours: own || config.audit_key_file.is_some(),
            file_is_ours: own || config.audit_file.is_some(),
        }
    }

    /// The key that signs, if there is to be one: a named one has to be there, one of our own is made.
    pub(crate) fn signing_key(&self, config: &Config) -> anyhow::Result<Option<SigningKey>> {
        if config.audit_key_file.is_some() {
            return Ok(Some(SigningKey::read(&self.key)?));
        }
        Ok(if self.key_is_ours { Some(SigningKey::read_or_make(&self.key)?) } else { None })
    }

    /// The key that is there already, if any.
    pub(crate) fn known_key(&self) -> anyhow::Result<Option<SigningKey>> {
        Ok(if self.key.exists() { Some(SigningKey::read(&self.key)?) } else { None })
    }
}

/// The keys that settings trust.
pub(crate) fn trusted(config: &Config) -> anyhow::Result<Vec<PublicKey>> {
    let key = |text: &String| text.parse().map_err(anyhow::Error::msg);
    let keys: anyhow::Result<Vec<PublicKey>> = config.audit_trusted_keys.iter().map(key).collect();
    keys.context("PARLANCE_AUDIT_TRUSTED_KEYS")
}
