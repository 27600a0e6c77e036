//! Where an outbox keeps its messages over a restart of the application.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::outbox::Draft;

/// Keeps messages that the server has not answered yet.
///
/// A message is put before it is first written to a connection, and removed once the server has answered for good. A
/// removal that is lost does no harm: the message is sent again under its id, and answered as before.
pub trait OutboxStore: Send + 'static {
    /// All messages that were put and not removed, oldest first.
    fn load(&mut self) -> io::Result<Vec<Draft>>;
    /// Keeps a message; it has to be safe when this returns.
    fn put(&mut self, draft: &Draft) -> io::Result<()>;
    /// Lets a message go.
    fn remove(&mut self, message_id: Uuid) -> io::Result<()>;
}

/// Keeps messages in memory: they survive a lost connection, and no restart.
#[derive(Debug, Default)]
pub struct MemoryStore {
    drafts: VecDeque<Draft>,
}

impl OutboxStore for MemoryStore {
    fn load(&mut self) -> io::Result<Vec<Draft>> {
        Ok(self.drafts.iter().cloned().collect())
    }

    fn put(&mut self, draft: &Draft) -> io::Result<()> {
        self.drafts.push_back(draft.clone());
        Ok(())
    }

    fn remove(&mut self, message_id: Uuid) -> io::Result<()> {
        self.drafts.retain(|draft| draft.message.message_id != message_id);
        Ok(())
    }
}

/// How many lines of settled messages a file may gather before it is written anew.
const COMPACT_AFTER: usize = 1024;

/// Keeps messages in a file: a line for each that was put or removed, synced when put.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    file: File,
    live: VecDeque<Draft>,
    settled: usize,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Put(Draft),
    Removed(Uuid),
}

impl FileStore {
    /// Opens the file, making it if it is not there. A torn last line, left by a crash, is dropped.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut live = VecDeque::new();
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    match serde_json::from_slice(&line?) {
                        Ok(Line::Put(draft)) => live.push_back(draft),
                        Ok(Line::Removed(id)) => live.retain(|draft: &Draft| draft.message.message_id != id),
                        // Never acknowledged to anyone: the put that wrote it did not return.
                        Err(_) => break,
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = Self::rewrite(&path, &live)?;
        Ok(Self { path, file, live, settled: 0 })
    }

    /// Writes the live messages to a new file that then takes the old one's place.
    fn rewrite(path: &Path, live: &VecDeque<Draft>) -> io::Result<File> {
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&fresh)?;
        let mut text = Vec::new();
        for draft in live {
            append(&mut text, &Line::Put(draft.clone()))?;
        }
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&fresh, path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(file)
    }
}

fn append(text: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

impl OutboxStore for FileStore {
    fn load(&mut self) -> io::Result<Vec<Draft>> {
        Ok(self.live.iter().cloned().collect())
    }

    fn put(&mut self, draft: &Draft) -> io::Result<()> {
        let mut text = Vec::new();
        append(&mut text, &Line::Put(draft.clone()))?;
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.live.push_back(draft.clone());
        Ok(())
    }

    fn remove(&mut self, message_id: Uuid) -> io::Result<()> {
        let mut text = Vec::new();
        append(&mut text, &Line::Removed(message_id))?;
        self.file.write_all(&text)?;
        self.live.retain(|draft| draft.message.message_id != message_id);
        self.settled += 1;
        if self.settled > COMPACT_AFTER {
            self.file = Self::rewrite(&self.path, &self.live)?;
            self.settled = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(content: &str) -> Draft {
        Draft { conversation_id: Uuid::now_v7(), message: crate::text_message(content) }
    }

    #[test]
    fn a_file_gives_back_what_was_not_removed() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("outbox");
        let drafts = [draft("one"), draft("two"), draft("three")];
        let mut store = FileStore::open(&path)?;
        for draft in &drafts {
            store.put(draft)?;
        }
        store.remove(drafts[1].message.message_id)?;
        drop(store);
        // A crash in the middle of a put.
        OpenOptions::new().append(true).open(&path)?.write_all(b"{\"put\":{\"conversation_id\":\"")?;
        for _ in 0..2 {
            let mut store = FileStore::open(&path)?;
            assert_eq!(store.load()?, [drafts[0].clone(), drafts[2].clone()]);
        }
        Ok(())
    }

    #[test]
    fn a_file_does_not_grow_with_what_was_settled() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("outbox");
        let mut store = FileStore::open(&path)?;
        let kept = draft("kept");
        store.put(&kept)?;
        for _ in 0..=COMPACT_AFTER {
            let draft = draft("settled");
            let mut text = Vec::new();
            append(&mut text, &Line::Put(draft.clone()))?;
            store.file.write_all(&text)?; // as `put`, without a sync each
            store.live.push_back(draft.clone());
            store.remove(draft.message.message_id)?;
        }
        assert!(std::fs::metadata(&path)?.len() < 1000);
        assert_eq!(store.load()?, [kept]);
        Ok(())
    }
}
