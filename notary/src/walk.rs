//! All places where statements are kept, read side by side.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Finding, Sources};
use crate::key::PublicKey;
use crate::ledger::LedgerError;
use crate::statement::{Broken, Statement};

/// What the database is called.
const DATABASE: &str = "the database";
/// What may be behind the others, as when a process was killed between writing to one and to the other.
const LAG: u64 = 1;
/// The pause between looks at what is late.
const LOOK: Duration = Duration::from_millis(50);

/// One place on the way.
struct At {
    name: String,
    /// Whether it is written with every statement.
    strict: bool,
    /// How many statements it has that are true.
    count: u64,
    /// Where the statement begins that it has not.
    lacks: Option<String>,
    finding: Option<Finding>,
}

/// The way through all statements.
pub(crate) struct Walk<'a> {
    sources: &'a mut Sources,
    keys: &'a [PublicKey],
    /// The database first, which is written first: no other may be ahead of it.
    places: Vec<At>,
    /// The last number that the database had before.
    known: u64,
}

impl<'a> Walk<'a> {
    pub(crate) async fn begin(sources: &'a mut Sources, keys: &'a [PublicKey]) -> Result<Self, LedgerError> {
        sources.table.rewind();
        let known = sources.table.last().await?;
        let mut names = vec![(DATABASE.to_owned(), true)];
        for (ledger, strict) in &mut sources.others {
            ledger.rewind().await?;
            names.push((ledger.name(), *strict));
        }
        let at = |(name, strict)| At { name, strict, count: 0, lacks: None, finding: None };
        Ok(Self { sources, keys, places: names.into_iter().map(at).collect(), known })
    }

    /// The true statement that follows, if any place has it.
    pub(crate) async fn next(&mut self, before: Option<&Statement>) -> Result<Option<Statement>, LedgerError> {
        let lines = self.lines().await?;
        let read = |line: &String| {
            let statement = Statement::read(line, self.keys)?;
            statement.follows(before).map(|()| statement)
        };
        // Mostly all places have the same, and reading it once is enough.
        let mut tried: Vec<(&String, Result<Statement, Broken>)> = Vec::new();
        for line in lines.iter().flatten() {
            if tried.iter().all(|(other, _)| *other != line) {
                tried.push((line, read(line)));
            }
        }
        let number = before.map_or(0, |before| before.number) + 1;
        let truth = tried.iter().find_map(|(line, tried)| Some((*line, tried.as_ref().ok()?)));
        let begins = truth.map(|(_, statement)| statement.begins());
        for (at, line) in self.places.iter_mut().zip(&lines) {
            if at.finding.is_some() {
                continue;
            }
            match (line, truth) {
                (Some(line), Some((truth, _))) if line == truth => at.count += 1,
                (Some(line), _) => {
                    let broken =
                        tried.iter().find(|(other, _)| *other == line).and_then(|(_, tried)| tried.as_ref().err());
                    let why = broken.map_or_else(|| "another was signed".to_owned(), Broken::to_string);
                    let detail = format!("begins what statement {number} says, which {} does not have: {why}", at.name);
                    let key_unknown = broken == Some(&Broken::Unknown);
                    at.finding = Some(Finding { position: begins.clone(), detail, key_unknown });
                }
                (None, Some(_)) if at.lacks.is_none() => at.lacks.clone_from(&begins),
                (None, _) => {}
            }
        }
        Ok(tried.into_iter().find_map(|(_, tried)| tried.ok()))
    }

    /// The next line of each place that was true so far.
    async fn lines(&mut self) -> Result<Vec<Option<String>>, LedgerError> {
        let mut lines = Vec::with_capacity(self.places.len());
        for (index, at) in self.places.iter().enumerate() {
            let over = at.finding.is_some() || at.lacks.is_some();
            lines.push(match index.checked_sub(1) {
                _ if over => None,
                None => self.sources.table.next().await?,
                Some(other) => self.sources.others[other].0.next().await?,
            });
        }
        // What a server added meanwhile: it is in the table before it is anywhere else.
        let database = &self.places[0];
        if lines[0].is_none()
            && lines.iter().any(Option::is_some)
            && database.finding.is_none()
            && database.lacks.is_none()
        {
            lines[0] = self.sources.table.next().await?;
        }
        Ok(lines)
    }

    /// How many statements each place has, and what is wrong with which.
    pub(crate) async fn finish(
        mut self,
        last: Option<&Statement>,
    ) -> Result<(Vec<(String, u64)>, Vec<Finding>), LedgerError> {
        let number = last.map_or(0, |last| last.number);
        // What a server added meanwhile may be on its way to the others.
        let due = number.min(self.known).saturating_sub(LAG);
        self.await_late(due).await?;
        let mut findings = Vec::new();
        for (index, at) in self.places.iter().enumerate() {
            if let Some(finding) = &at.finding {
                findings.push(finding.clone());
            } else if at.strict && at.count < if index == 0 { number } else { due } {
                let first = at.count + 1;
                let detail =
                    format!("begins what statement {first} says, which {} does not have: it ends before it", at.name);
                findings.push(Finding::new(at.lacks.clone(), detail));
            }
        }
        Ok((self.places.into_iter().map(|at| (at.name, at.count)).collect(), findings))
    }

    /// Reads on for a while where a place ended too early: it may be brought up to date just now.
    async fn await_late(&mut self, due: u64) -> Result<(), LedgerError> {
        let until = Instant::now() + self.sources.patience;
        let Some((database, others)) = self.places.split_first_mut() else { return Ok(()) };
        // What is compared with has to be whole up to there.
        if database.count < due {
            return Ok(());
        }
        let table = &self.sources.table;
        for (at, (ledger, _)) in others.iter_mut().zip(&mut self.sources.others) {
            while at.strict && at.finding.is_none() && at.count < due {
                let number = at.count + 1;
                let true_line = table.line(number).await?.unwrap_or_default();
                let begins = || Statement::read(&true_line, self.keys).ok().map(|statement| statement.begins());
                match ledger.next().await? {
                    Some(line) if line == true_line => at.count += 1,
                    Some(_) => {
                        let detail = format!("begins what statement {number} says, which {} does not have", at.name);
                        at.finding = Some(Finding::new(begins(), format!("{detail}: it has something else")));
                    }
                    None if Instant::now() < until => sleep(LOOK).await,
                    None => {
                        at.lacks = begins();
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
