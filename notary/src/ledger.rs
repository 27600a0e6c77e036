//! A place where statements are kept, in their order.

use std::io;

use async_trait::async_trait;

/// Why a ledger does not answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database.
    #[error("the table of signed heads cannot be used")]
    Table(#[from] sqlx::Error),
    /// The file.
    #[error("the file of signed heads cannot be used")]
    File(#[from] io::Error),
    /// Whatever else keeps statements.
    #[error("{0} cannot be used")]
    Other(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LedgerError {
    /// Whether another process has it, and keeps it up to date.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::File(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Statements in their order, from somewhere outside the database.
#[async_trait]
pub trait Statements: Send {
    /// Where they are, in words.
    fn name(&self) -> String;

    /// Goes back to its beginning.
    async fn rewind(&mut self) -> Result<(), LedgerError>;

    /// The next line; `None` at the end, behind which more may come.
    async fn next(&mut self) -> Result<Option<String>, LedgerError>;
}

/// Somewhere outside the database where statements are kept too.
#[async_trait]
pub trait Ledger: Statements {
    /// The last lines that it has, in their order: one, or as many as others may have come in between with.
    async fn tail(&mut self) -> Result<Vec<String>, LedgerError>;

    /// Adds lines behind the last, for good once this is done.
    async fn append(&mut self, lines: &[String]) -> Result<(), LedgerError>;
}
