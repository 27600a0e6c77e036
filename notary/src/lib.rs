//! Signs the heads of the log's hash chains with a key that the database does not have, and checks what was signed.
//!
//! Whoever has the database can change an event and link all that follow it anew; the chain alone does not show that. So
//! what the chains are is signed now and then (`signer`), and kept outside too: in a file, and in Kafka. A `statement` says
//! of each shard how far it goes and by which hash, and of each event since the one before the beginning of its hash, so that
//! `check` names the first event that is another. Where statements are kept is a `ledger`.

mod check;
mod file;
mod key;
mod ledger;
mod repeats;
mod signer;
mod statement;
mod table;
#[cfg(test)]
mod tests;
mod topic;
mod walk;

pub use check::{Checked, Finding, Sources, check};
pub use file::FileLedger;
pub use key::{KeyError, PublicKey, SigningKey};
pub use ledger::{Ledger, LedgerError, Statements};
pub use signer::{Notary, Options, Status};
pub use statement::{Broken, Statement};
pub use topic::{HEADS_TOPIC, TopicLedger};
