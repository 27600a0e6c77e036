//! Loopback ports that stay the same from one start to the next.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::secrets::random;

/// Below those that the kernel gives to outgoing connections: a port kept for the next start is not lost to one.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const TRIES: usize = 100;

/// A port in a file of its own.
#[derive(Debug, Clone)]
pub(super) struct KeptPort {
    file: PathBuf,
}

impl KeptPort {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { file: folder.join(name) }
    }

    /// The port, once one was chosen.
    pub(super) fn get(&self) -> Option<u16> {
        fs::read_to_string(&self.file).ok()?.trim().parse().ok()
    }

    /// The same port as before where nobody took it meanwhile, else another that is free.
    pub(super) fn choose(&self) -> Result<u16> {
        if let Some(port) = self.get().filter(|port| is_free(*port)) {
            return Ok(port);
        }
        let port = free()?;
        fs::write(&self.file, format!("{port}\n"))?;
        Ok(port)
    }

    /// Whether there is none yet, or it can be had.
    pub(super) fn is_to_be_had(&self) -> bool {
        self.get().is_none_or(is_free)
    }

    /// Forgets it: somebody took it just when it was needed.
    pub(super) fn forget(&self) -> Result<()> {
        Ok(fs::remove_file(&self.file)?)
    }
}

/// Some port that is free right now.
pub(crate) fn free() -> Result<u16> {
    for _ in 0..TRIES {
        let [low, high] = random()?;
        let port = FIRST + u16::from_le_bytes([low, high]) % COUNT;
        if is_free(port) {
            return Ok(port);
        }
    }
    None.context("no loopback port is free")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stays_as_long_as_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptPort::new(folder.path(), "port");
        assert_eq!(kept.get(), None);
        let first = kept.choose().unwrap();
        assert_eq!((kept.get(), kept.choose().unwrap()), (Some(first), first));
        let _taken = TcpListener::bind(("127.0.0.1", first)).unwrap();
        assert_ne!(kept.choose().unwrap(), first);
        kept.forget().unwrap();
        assert_eq!(kept.get(), None);
    }
}
