//! The file of signed heads: one statement a line, only ever added to.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::task::block_in_place;

use crate::ledger::{Ledger, LedgerError, Statements};

/// Longer than any statement.
const LONGEST_LINE: u64 = 8 << 20;

/// Statements in a file. Of the processes that were told of one file, one keeps it, for as long as it lives.
#[derive(Debug)]
pub struct FileLedger {
    path: PathBuf,
    /// To be added to; locked, so that there is one such.
    file: Option<File>,
    reading: Option<BufReader<File>>,
}

impl FileLedger {
    /// The file, to be added to; made where it is not there.
    ///
    /// # Errors
    /// A file that cannot be made or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut ledger = Self { path: path.to_owned(), file: None, reading: None };
        match ledger.keep() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(ledger),
        }
    }

    /// The file as ours to add to, unless another process has it. What a crash left of a line at its end is taken off.
    fn keep(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o644).open(&self.path)?;
            file.try_lock().map_err(|refused| match refused {
                TryLockError::WouldBlock => io::Error::from(ErrorKind::WouldBlock),
                TryLockError::Error(error) => error,
            })?;
            let (length, whole) = (file.metadata()?.len(), last_line(&mut file)?.1);
            if whole < length {
                file.set_len(whole)?;
                file.sync_all()?;
            }
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("it was just opened"))
    }

    /// The file, to be read alone.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: None, reading: Some(BufReader::new(File::open(path)?)) })
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        if self.reading.is_none() {
            self.reading = Some(BufReader::new(File::open(&self.path)?));
        }
        let Some(reader) = &mut self.reading else { return Ok(None) };
        let mut line = Vec::new();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            if line.len() as u64 == LONGEST_LINE {
                return Err(ErrorKind::InvalidData.into());
            }
            // Not whole yet: read again next time.
            reader.seek_relative(-i64::try_from(read).unwrap_or(0))?;
            return Ok(None);
        }
        line.pop();
        // What is no text is no statement, and shown to be none by whoever reads it.
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

/// The last whole line, and where it ends.
fn last_line(file: &mut File) -> io::Result<(Option<String>, u64)> {
    let length = file.metadata()?.len();
    let begin = length.saturating_sub(2 * LONGEST_LINE);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    Read::by_ref(file).take(2 * LONGEST_LINE).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok((None, begin)) };
    let first = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    Ok((Some(String::from_utf8_lossy(&tail[first..end]).into_owned()), begin + end as u64 + 1))
}

#[async_trait]
impl Statements for FileLedger {
    fn name(&self) -> String {
        format!("the file {}", self.path.display())
    }

    async fn rewind(&mut self) -> Result<(), LedgerError> {
        self.reading = None;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, LedgerError> {
        Ok(block_in_place(|| self.line())?)
    }
}

#[async_trait]
impl Ledger for FileLedger {
    async fn tail(&mut self) -> Result<Vec<String>, LedgerError> {
        Ok(block_in_place(|| last_line(self.keep()?))?.0.into_iter().collect())
    }

    async fn append(&mut self, lines: &[String]) -> Result<(), LedgerError> {
        let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        Ok(block_in_place(|| {
            let file = self.keep()?;
            let before = file.metadata()?.len();
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
            if written.is_err() {
                // A part of a line must not stand before the next one: if it cannot go now, then as the file is opened again.
                let cut = file.set_len(before);
                self.file = None;
                cut?;
            }
            written
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_takes_nothing_is_opened_again() {
        let mut ledger = FileLedger::open(Path::new("/dev/full")).unwrap();
        assert!(ledger.file.is_some());
        ledger.append(&["one".to_owned()]).await.unwrap_err();
        assert!(ledger.file.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lines_stay_and_what_a_crash_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/heads.jsonl");
        let mut ledger = FileLedger::open(&path).unwrap();
        assert_eq!((ledger.tail().await.unwrap(), ledger.next().await.unwrap()), (vec![], None));
        ledger.append(&["one".to_owned(), "two".to_owned()]).await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"thr").unwrap();
        let mut reading = FileLedger::read(&path).unwrap();
        for expected in [Some("one"), Some("two"), None, None] {
            assert_eq!(reading.next().await.unwrap().as_deref(), expected);
        }
        // Another one would not come in between.
        assert!(FileLedger::open(&path).unwrap().tail().await.unwrap_err().is_held());
        drop(ledger);
        let mut again = FileLedger::open(&path).unwrap();
        assert_eq!(again.tail().await.unwrap(), ["two"]);
        again.append(&["three".to_owned()]).await.unwrap();
        assert_eq!(reading.next().await.unwrap().as_deref(), Some("three"));
        reading.rewind().await.unwrap();
        assert_eq!(reading.next().await.unwrap().as_deref(), Some("one"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    }
}
