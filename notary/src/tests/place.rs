//! A place outside the database that is kept in memory, and answers as a test lets it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::repeats::Repeats;
use crate::{Ledger, LedgerError, Statements};

/// How a place answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// As it should.
    Well,
    /// With an error.
    Away,
    /// Not at all, until it answers otherwise.
    Late,
    /// As it should, but takes nothing until it answers otherwise.
    Full,
}

/// One way to a place.
pub(super) struct Place {
    pub(super) lines: Arc<Mutex<Vec<String>>>,
    pub(super) answers: Arc<watch::Sender<Answers>>,
    /// Whether somebody waits for an answer, or for more.
    pub(super) asked: Arc<AtomicBool>,
    next: usize,
    repeats: Repeats,
}

impl Place {
    /// A place with these lines.
    pub(super) fn of(lines: Vec<String>) -> Self {
        Self::with(Arc::new(Mutex::new(lines)))
    }

    /// The same place, which answers to this one as it likes.
    pub(super) fn beside(&self) -> Self {
        Self::with(self.lines.clone())
    }

    fn with(lines: Arc<Mutex<Vec<String>>>) -> Self {
        let answers = Arc::new(watch::Sender::new(Answers::Well));
        Self { lines, answers, asked: Arc::default(), next: 0, repeats: Repeats::default() }
    }

    /// The same way to it.
    pub(super) fn handle(&self) -> Self {
        let (answers, asked) = (self.answers.clone(), self.asked.clone());
        Self { answers, asked, ..self.beside() }
    }

    async fn answer(&self, until: &[Answers]) -> Result<(), LedgerError> {
        let mut answers = self.answers.subscribe();
        if until.contains(&answers.borrow()) {
            self.asked.store(true, Ordering::SeqCst);
        }
        let answer = answers.wait_for(|answer| !until.contains(answer)).await;
        if *answer.expect("it is kept") == Answers::Away {
            return Err(LedgerError::Other("a place", Box::new(io::Error::from(io::ErrorKind::TimedOut))));
        }
        Ok(())
    }
}

#[async_trait]
impl Statements for Place {
    fn name(&self) -> String {
        "a place".to_owned()
    }

    async fn rewind(&mut self) -> Result<(), LedgerError> {
        self.next = 0;
        self.repeats.clear();
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, LedgerError> {
        self.answer(&[Answers::Late]).await?;
        while let Some(line) = self.lines.lock().get(self.next) {
            self.next += 1;
            if self.repeats.is_new(line) {
                return Ok(Some(line.clone()));
            }
        }
        self.asked.store(true, Ordering::SeqCst);
        Ok(None)
    }
}

#[async_trait]
impl Ledger for Place {
    async fn tail(&mut self) -> Result<Vec<String>, LedgerError> {
        self.answer(&[Answers::Late]).await?;
        Ok(self.lines.lock().clone())
    }

    async fn append(&mut self, lines: &[String]) -> Result<(), LedgerError> {
        self.answer(&[Answers::Late, Answers::Full]).await?;
        self.lines.lock().extend_from_slice(lines);
        Ok(())
    }
}
