//! One holder a folder: an advisory lock that the kernel lets go of, however its holder ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
    process,
};

const FILE: &str = "parlance.lock";

/// Holds a folder for this process until dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

/// The outcome of asking for a folder.
#[derive(Debug)]
pub(super) enum Asked {
    Got(FolderLock),
    /// By the process of this id, where it wrote it down.
    Held(Option<u32>),
}

impl FolderLock {
    /// Takes the folder, or says who has it.
    pub(super) fn ask(folder: &Path) -> io::Result<Asked> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(FILE))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", process::id())?;
                Ok(Asked::Got(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                Ok(Asked::Held(holder.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_and_says_who() {
        let folder = tempfile::tempdir().unwrap();
        let Asked::Got(lock) = FolderLock::ask(folder.path()).unwrap() else {
            panic!("a new folder is free");
        };
        let Asked::Held(holder) = FolderLock::ask(folder.path()).unwrap() else {
            panic!("a held folder is not free");
        };
        assert_eq!(holder, Some(process::id()));
        drop(lock);
        assert!(matches!(FolderLock::ask(folder.path()).unwrap(), Asked::Got(_)));
    }
}
