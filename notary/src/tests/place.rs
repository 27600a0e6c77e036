//! A place outside the database that is kept in memory, and answers as a test lets it.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Ledger, LedgerError, Statements};

/// How a place answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// As it should.
    Well,
    /// With an error.
    Away,
}

/// One way to a place.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) lines: Arc<Mutex<Vec<String>>>,
    pub(super) answers: Arc<watch::Sender<Answers>>,
    next: usize,
}

impl Place {
    /// A new place.
    pub(super) fn of(lines: Vec<String>) -> Self {
        Self { lines: Arc::new(Mutex::new(lines)), answers: Arc::new(watch::Sender::new(Answers::Well)), next: 0 }
    }

    fn answer(&self) -> Result<(), LedgerError> {
        match *self.answers.borrow() {
            Answers::Well => Ok(()),
            Answers::Away => Err(LedgerError::Other("a place", Box::new(io::Error::from(io::ErrorKind::TimedOut)))),
        }
    }
}

#[async_trait]
impl Statements for Place {
    fn name(&self) -> String {
        "a place".to_owned()
    }

    async fn rewind(&mut self) -> Result<(), LedgerError> {
        self.next = 0;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, LedgerError> {
        self.answer()?;
        let line = self.lines.lock().get(self.next).cloned();
        self.next += usize::from(line.is_some());
        Ok(line)
    }
}

#[async_trait]
impl Ledger for Place {
    async fn last(&mut self) -> Result<Option<String>, LedgerError> {
        self.answer()?;
        Ok(self.lines.lock().last().cloned())
    }

    async fn append(&mut self, lines: &[String]) -> Result<(), LedgerError> {
        self.answer()?;
        self.lines.lock().extend_from_slice(lines);
        Ok(())
    }
}
