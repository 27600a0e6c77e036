//! Whether what was signed is still so: of the statements, wherever they are kept, and of the log by them.
//!
//! All places are read side by side, statement by statement, in memory that does not grow with them, but for some bytes of
//! each that was read in the topic. The statement that one of our keys signed, and that follows the one before it, is the
//! true one, whoever has it; a place that has another is named. Beside that the log is read once and verified by itself;
//! then it is compared with the last of the statements, which vouches for all: a chain that agrees at its end agrees
//! everywhere. Where it does not, the statements tell the first event that is another.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use event_store::{Log, Verification};
use schemas::rfc3339_ms::Display;
use sqlx::PgPool;
use tokio_util::task::AbortOnDropHandle;

use crate::key::PublicKey;
use crate::ledger::{LedgerError, Statements};
use crate::statement::{Head, Place, Statement, position};
use crate::table::Table;
use crate::walk::Walk;

/// How long a place may take to be brought up to what the database had before: longer than it rests after it failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where statements are.
pub struct Sources {
    pub(crate) table: Table,
    /// Whether each is written with every statement, or is a copy that may be older.
    pub(crate) others: Vec<(Box<dyn Statements>, bool)>,
    /// How long is waited for what is written with every statement and ends too early.
    pub(crate) patience: Duration,
}

impl Sources {
    /// Those of the database.
    pub fn new(pool: PgPool) -> Self {
        Self { table: Table::new(pool), others: Vec::new(), patience: PATIENCE }
    }

    /// Also those of a place that is written with each statement.
    pub fn add(&mut self, ledger: impl Statements + 'static) {
        self.others.push((Box::new(ledger), true));
    }

    /// A place that should have them, and is not there.
    pub fn add_missing(&mut self, name: String) {
        self.others.push((Box::new(Missing(name)), true));
    }

    /// Also those of a copy, which may be older.
    pub fn add_copy(&mut self, ledger: impl Statements + 'static) {
        self.others.push((Box::new(ledger), false));
    }
}

/// A place without anything.
struct Missing(String);

#[async_trait]
impl Statements for Missing {
    fn name(&self) -> String {
        self.0.clone()
    }

    async fn rewind(&mut self) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, LedgerError> {
        Ok(None)
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The first wrong position, `TOPIC/SHARD:POSITION`, where there is one.
    pub position: Option<String>,
    /// What is wrong with it.
    pub detail: String,
    /// Whether nothing is known to be wrong, but that it was signed by a key that is not known here.
    pub key_unknown: bool,
}

impl Finding {
    pub(crate) fn new(position: Option<String>, detail: String) -> Self {
        Self { position, detail, key_unknown: false }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The log by itself.
    pub log: Verification,
    /// How many statements there are.
    pub statements: u64,
    /// Each place and how many of them it has.
    pub places: Vec<(String, u64)>,
    /// What is wrong, the first thing in each shard and in each place.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.log.is_sound()
    }
}

/// Checks the log, and what was signed of it by these keys.
///
/// # Errors
/// A database, or another place, that does not answer.
pub async fn check(log: &Log, sources: Sources, keys: &[PublicKey]) -> Result<Checked, LedgerError> {
    // A task, to be at work while rows are read; given up with this one.
    let walking = AbortOnDropHandle::new(tokio::spawn(walk(sources, keys.to_vec())));
    let verification = log.verify().await?;
    let walked = walking.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    let Walked { mut sources, last, places, mut findings } = walked?;
    // The log has by now what was signed before it was read, and after.
    let signed = last.as_ref().map(Statement::chains).unwrap_or_default();
    let others = log.contradictions(&signed).await?;
    let mut wrong: BTreeMap<Place, Option<(u64, Finding)>> =
        others.into_iter().map(|chain| ((chain.topic, chain.shard), None)).collect();
    if !wrong.is_empty() {
        name_first(log, &mut sources, keys, &mut wrong).await?;
    }
    for shard in &verification.shards {
        let place = (shard.topic, shard.shard);
        let signed = wrong.remove(&place).flatten();
        let fault = shard.fault.map(|fault| {
            let at = fault.position();
            (at, Finding::new(Some(position(place, at.max(1))), fault.to_string()))
        });
        let first = [signed, fault].into_iter().flatten().min_by_key(|(at, _)| *at);
        findings.extend(first.map(|(_, finding)| finding));
    }
    findings.extend(wrong.into_values().flatten().map(|(_, finding)| finding));
    if verification.strays > 0 {
        let detail = format!("{} rows belong to no shard of this log", verification.strays);
        findings.push(Finding::new(None, detail));
    }
    let statements = last.map_or(0, |last| last.number);
    Ok(Checked { log: verification, statements, places, findings })
}

/// What was found on the way through the statements.
struct Walked {
    sources: Sources,
    last: Option<Statement>,
    places: Vec<(String, u64)>,
    findings: Vec<Finding>,
}

async fn walk(mut sources: Sources, keys: Vec<PublicKey>) -> Result<Walked, LedgerError> {
    let mut walk = Walk::begin(&mut sources, &keys).await?;
    let mut last: Option<Statement> = None;
    while let Some(statement) = walk.next(last.as_ref()).await? {
        last = Some(statement);
    }
    let (places, findings) = walk.finish(last.as_ref()).await?;
    Ok(Walked { sources, last, places, findings })
}

/// Finds the first event of each of these shards that is not the one that was signed.
async fn name_first(
    log: &Log,
    sources: &mut Sources,
    keys: &[PublicKey],
    wrong: &mut BTreeMap<Place, Option<(u64, Finding)>>,
) -> Result<(), LedgerError> {
    let mut walk = Walk::begin(sources, keys).await?;
    let mut last: Option<Statement> = None;
    while let Some(statement) = walk.next(last.as_ref()).await? {
        for (place, first) in wrong.iter_mut().filter(|(_, first)| first.is_none()) {
            let Some(head) = statement.heads.get(place).filter(|head| head.upto > head.after) else { continue };
            let Some((at, gone)) = first_other(log, *place, head).await? else { continue };
            let what = if gone { "is gone, and was signed" } else { "is not what was signed" };
            let detail = format!("{what} in statement {} of {}", statement.number, Display(statement.at));
            *first = Some((at, Finding::new(Some(position(*place, at)), detail)));
        }
        if wrong.values().all(Option::is_some) {
            return Ok(());
        }
        last = Some(statement);
    }
    Ok(())
}

/// The first event of a head that is another in the log, and whether it is gone.
async fn first_other(log: &Log, place: Place, head: &Head) -> Result<Option<(u64, bool)>, LedgerError> {
    let (topic, shard) = place;
    let end = log.stored_hashes(topic, shard, head.upto - 1, head.upto).await?;
    if end.first().is_some_and(|(_, hash)| hash[..] == head.chain) {
        return Ok(None);
    }
    let stored: BTreeMap<u64, Vec<u8>> =
        log.stored_hashes(topic, shard, head.after, head.upto).await?.into_iter().collect();
    for (at, signed) in (head.after + 1..).zip(&head.links) {
        match stored.get(&at) {
            None => return Ok(Some((at, true))),
            Some(hash) if !hash.starts_with(signed) => return Ok(Some((at, false))),
            Some(_) => {}
        }
    }
    // Somebody took the trouble to find an event whose hash begins the same.
    Ok(Some((head.upto, false)))
}
