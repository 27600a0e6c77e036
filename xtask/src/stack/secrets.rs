//! Passwords and keys of a stack: made once, readable by their owner alone.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};

/// The secret in this file, made where there is none.
pub(super) fn kept(file: &Path) -> Result<String> {
    match fs::read_to_string(file) {
        Ok(secret) => return Ok(secret.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    }
    let secret = token::<32>()?;
    let draft = file.with_extension("new");
    let mut written = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(written, "{secret}")?;
    written.sync_all()?;
    fs::rename(draft, file)?;
    Ok(secret)
}

/// Random bytes in hexadecimal.
pub(super) fn token<const BYTES: usize>() -> Result<String> {
    Ok(random::<BYTES>()?.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

pub(super) fn random<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_stays_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let secret = kept(&file).unwrap();
        assert_eq!((secret.len(), kept(&file).unwrap()), (64, secret));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
