//! Whoever leads signs what was added, if it follows from what was signed before; the others keep their files up to date.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_store::{Extension, Hash, Log, ShardChain, genesis};
use parking_lot::Mutex;
use platform::leases::{Held, Part};
use schemas::Topic;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::key::{PublicKey, SigningKey};
use crate::ledger::{Ledger, LedgerError};
use crate::statement::{Broken, Place, Statement, position};
use crate::table::Table;

/// What the one who signs holds.
pub(crate) const SEAT: Part = (Topic::Users, 0);
/// How long what stands outside the database may take to be written before it is left for later.
const OUTSIDE: Duration = Duration::from_secs(10);
/// How long signing what is left may take at the end.
const LEAVE: Duration = Duration::from_secs(1);
/// When is signed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Once so many events were added,
    pub events: u64,
    /// or so long after the last time, if any was.
    pub age: Duration,
    /// How often somebody looks.
    pub look: Duration,
    /// How many events a statement signs at most.
    pub most: u64,
    /// The pause after something failed or was found wrong.
    pub rest: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: 1_000,
            age: Duration::from_secs(10),
            look: Duration::from_millis(250),
            most: 10_000,
            rest: Duration::from_secs(10),
        }
    }
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Something does not answer: tried again.
    #[error("the log cannot be read")]
    Log(#[from] sqlx::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Another one signed meanwhile, or may.
    #[error("another one signed meanwhile")]
    Overtaken,
    /// The log, or what was signed, is not what it was.
    #[error(transparent)]
    Alarm(#[from] Alarm),
}

/// What a signature would cover up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Alarm {
    #[error("{0} does not follow from what was signed before it: something up to it was changed or taken out")]
    Broken(String),
    #[error("{0} was signed, and is gone")]
    Cut(String),
    #[error("{0} is not what the shard says of its head")]
    Head(String),
    #[error("statement {0} of the database cannot be trusted: {1}")]
    Statement(u64, #[source] Broken),
    #[error("the last line of {0} cannot be trusted: {1}")]
    Line(String, #[source] Broken),
    #[error("the database lacks statement {0}, which {1} has")]
    Lacks(u64, String),
    #[error("statement {0} is another in {1} than in the database")]
    Differs(u64, String),
}

/// How signing goes, for health; cheap to clone.
#[derive(Clone, Default)]
pub struct Status(Arc<Mutex<Option<Result<String, String>>>>);

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Status").field(&*self.0.lock()).finish()
    }
}

impl Status {
    /// What is well, or what is not.
    pub fn check(&self) -> Result<String, String> {
        self.0.lock().clone().unwrap_or_else(|| Ok("has not looked yet".to_owned()))
    }

    fn set(&self, status: Result<String, String>) {
        *self.0.lock() = Some(status);
    }
}

/// One that signs when it leads.
pub struct Notary {
    log: Log,
    table: Table,
    key: SigningKey,
    /// By which keys earlier statements may be signed, ours among them.
    trusted: Vec<PublicKey>,
    outside: Vec<Outside>,
    options: Options,
    status: Status,
    /// The last statement, if there is one and it is known.
    last: Option<Statement>,
    /// Whether it was looked at what was signed before, so that `last` says whether there is one.
    is_caught_up: bool,
    /// When this process signed last; what waited before it looked is not kept waiting.
    signed_at: Option<Instant>,
}

/// A ledger, and how far it is known to go.
struct Outside {
    ledger: Box<dyn Ledger>,
    /// Whether only the one who leads writes it.
    shared: bool,
    reached: Option<u64>,
    /// Not before then is it tried again, after it failed.
    rests: Option<Instant>,
}

impl Notary {
    /// One with this key; what others signed is trusted if it was by one of these.
    pub fn new(log: Log, pool: PgPool, key: SigningKey, trusted: &[PublicKey], options: Options) -> Self {
        metrics::describe_counter!("parlance_audit_statements_total", "Signed statements on the heads of the log.");
        metrics::describe_counter!("parlance_audit_signed_events_total", "Events that were signed.");
        metrics::describe_gauge!("parlance_audit_alarm", "1 while the log contradicts what was signed.");
        let trusted = [key.public()].into_iter().chain(trusted.iter().copied()).collect();
        Self {
            log,
            table: Table::new(pool),
            key,
            trusted,
            outside: Vec::new(),
            options,
            status: Status::default(),
            last: None,
            is_caught_up: false,
            signed_at: None,
        }
    }

    /// Keeps statements in a place of this process's own too, which it brings up to date whoever signs.
    #[must_use]
    pub fn keeping(mut self, ledger: impl Ledger + 'static) -> Self {
        self.outside.push(Outside { ledger: Box::new(ledger), shared: false, reached: None, rests: None });
        self
    }

    /// Keeps statements in a place that all processes have in common too.
    #[must_use]
    pub fn publishing(mut self, ledger: impl Ledger + 'static) -> Self {
        self.outside.push(Outside { ledger: Box::new(ledger), shared: true, reached: None, rests: None });
        self
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// What the lease is for.
    pub fn seat() -> Part {
        SEAT
    }

    /// Signs while it leads, until `stop`; then what is left.
    pub async fn run(mut self, held: watch::Receiver<Held>, stop: CancellationToken) {
        let mut ticks = interval(self.options.look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let work = async { if leads(&held) { self.sign(false, &held).await } else { self.stand_by().await } };
            // What is shared may keep it waiting for longer than it may take to leave.
            let Some(worked) = stop.run_until_cancelled(work).await else { break };
            let Err(trouble) = worked else {
                if told.take().is_some() {
                    tracing::info!("the heads of the log are signed again");
                }
                continue;
            };
            // Whatever it was: it begins again by looking at what is there.
            self.is_caught_up = false;
            let text = trouble.to_string();
            match &trouble {
                Trouble::Overtaken => continue,
                Trouble::Alarm(alarm) => {
                    metrics::gauge!("parlance_audit_alarm").set(1);
                    self.status.set(Err(text.clone()));
                    if told.as_ref() != Some(&text) {
                        let error: &dyn std::error::Error = alarm;
                        tracing::error!(
                            error,
                            "the log is not what was signed, and nothing is signed any more: {text}"
                        );
                    }
                }
                Trouble::Log(_) | Trouble::Ledger(_) => {
                    if told.as_ref() != Some(&text) {
                        let error: &dyn std::error::Error = &trouble;
                        tracing::warn!(error, "the heads of the log are not signed for now: {text}");
                    }
                }
            }
            told = Some(text);
            stop.run_until_cancelled(sleep(self.options.rest)).await;
        }
        if leads(&held) && timeout(LEAVE, self.sign(true, &held)).await.is_err() {
            tracing::info!("the last events are signed at the next start");
        }
    }

    /// Signs what was added, if it is time.
    async fn sign(&mut self, at_once: bool, held: &watch::Receiver<Held>) -> Result<(), Trouble> {
        if !self.is_caught_up {
            self.recover().await?;
        }
        // What does not go into one statement goes into the next.
        let mut due = at_once;
        while self.advance(due).await? {
            due = true;
        }
        let number = self.last.as_ref().map_or(0, |last| last.number);
        self.write_outside(Some(held)).await?;
        metrics::gauge!("parlance_audit_alarm").set(0);
        let away = self.outside.iter().find(|outside| outside.rests.is_some());
        self.status.set(match away {
            None => Ok(format!("signs; {number} statements")),
            Some(outside) => Err(format!("{number} statements are signed, and not kept in {}", outside.ledger.name())),
        });
        Ok(())
    }

    /// Takes up what was signed before, by whomever, and lets no place outside contradict it.
    async fn recover(&mut self) -> Result<(), Trouble> {
        let number = self.table.last().await?;
        let mut last = None;
        if number > 0 {
            let line = self.table.line(number).await?.unwrap_or_default();
            let read = Statement::read(&line, &self.trusted);
            // One that stands under another's number would be followed by what is there already.
            let read = read.and_then(|read| if read.number == number { Ok(read) } else { Err(Broken::Order) });
            last = Some(read.map_err(|broken| Alarm::Statement(number, broken))?);
        }
        let rest = self.options.rest;
        for outside in &mut self.outside {
            outside.reached = None;
            match timeout(OUTSIDE, outside.find(&self.table, &self.trusted)).await {
                Ok(Ok(())) => {}
                Ok(Err(Trouble::Ledger(error))) if error.is_held() => {}
                Ok(Err(Trouble::Ledger(error))) if outside.shared => outside.fails(Some(&error), rest),
                Ok(Err(trouble)) => return Err(trouble),
                Err(_) => outside.fails(None, rest),
            }
        }
        self.last = last;
        self.is_caught_up = true;
        self.signed_at = None;
        Ok(())
    }

    /// Signs the next statement; whether more is left at once.
    async fn advance(&mut self, at_once: bool) -> Result<bool, Trouble> {
        let before = self.last.as_ref();
        let claims = self.log.claims().await?;
        let known = |place: Place| match before.and_then(|before| before.heads.get(&place)) {
            Some(head) => (head.upto, head.chain),
            None => (0, genesis(place.0, place.1)),
        };
        let mut ranges: Vec<(ShardChain, u64)> = Vec::new();
        let mut added = 0;
        for claim in &claims {
            let (head, chain): (u64, Hash) = known((claim.topic, claim.shard));
            if claim.position < head {
                return Err(Alarm::Cut(position((claim.topic, claim.shard), claim.position + 1)).into());
            }
            added += claim.position - head;
            if claim.position > head {
                ranges.push((ShardChain { position: head, chain, ..*claim }, claim.position));
            }
        }
        for place in before.iter().flat_map(|before| before.heads.keys()) {
            if !claims.iter().any(|claim| (claim.topic, claim.shard) == *place) {
                return Err(Alarm::Cut(position(*place, 1)).into());
            }
        }
        let due =
            at_once || added >= self.options.events || self.signed_at.is_none_or(|at| at.elapsed() >= self.options.age);
        if added == 0 || !due {
            return Ok(false);
        }
        bound(&mut ranges, self.options.most);
        let extensions = self.log.extend(&ranges).await?;
        for extension in &extensions {
            follows(extension, &claims)?;
        }
        let (statement, line) = Statement::following(before, &extensions, OffsetDateTime::now_utc(), &self.key);
        if !self.table.add(&statement, &self.key.public().id(), &line).await? {
            return Err(Trouble::Overtaken);
        }
        let signed: u64 = extensions.iter().map(|extension| extension.hashes.len() as u64).sum();
        metrics::counter!("parlance_audit_statements_total").increment(1);
        metrics::counter!("parlance_audit_signed_events_total").increment(signed);
        self.last = Some(statement);
        self.signed_at = Some(Instant::now());
        self.write_outside(None).await?;
        Ok(signed < added)
    }

    /// Keeps this process's own file up to date while another one signs.
    async fn stand_by(&mut self) -> Result<(), Trouble> {
        self.is_caught_up = false;
        for outside in self.outside.iter_mut().filter(|outside| !outside.shared && outside.reached.is_none()) {
            match outside.find(&self.table, &self.trusted).await {
                Err(Trouble::Ledger(error)) if error.is_held() => {}
                found => found?,
            }
        }
        self.write_outside(None).await?;
        metrics::gauge!("parlance_audit_alarm").set(0);
        self.status.set(Ok("another process signs".to_owned()));
        Ok(())
    }

    /// Adds what places outside lack, shared ones only for one who leads. One that does not answer gets it later; one that contradicts is no such.
    async fn write_outside(&mut self, held: Option<&watch::Receiver<Held>>) -> Result<(), Trouble> {
        let (now, rest) = (Instant::now(), self.options.rest);
        for outside in &mut self.outside {
            if (outside.shared && held.is_none()) || outside.rests.is_some_and(|until| now < until) {
                continue;
            }
            match timeout(OUTSIDE, outside.catch_up(&self.table, &self.trusted, held)).await {
                Ok(Ok(())) => outside.works(),
                Ok(Err(Trouble::Ledger(error))) if error.is_held() => outside.works(),
                Ok(Err(trouble @ (Trouble::Alarm(_) | Trouble::Overtaken))) => return Err(trouble),
                Ok(Err(error)) => outside.fails(Some(&error), rest),
                Err(_) => outside.fails(None, rest),
            }
        }
        Ok(())
    }
}

impl Outside {
    /// Finds out how far it goes, and that it goes no further than the table, nor by another way.
    async fn find(&mut self, table: &Table, trusted: &[PublicKey]) -> Result<(), Trouble> {
        let tail = self.ledger.tail().await?;
        let mut reached = 0;
        for (index, line) in tail.iter().enumerate() {
            let number = match Statement::read(line, trusted) {
                Ok(statement) => statement.number,
                // A line that nobody signed is not ours to build on.
                Err(broken) if index + 1 == tail.len() => return Err(Alarm::Line(self.ledger.name(), broken).into()),
                Err(_) => continue,
            };
            match table.line(number).await? {
                None => return Err(Alarm::Lacks(number, self.ledger.name()).into()),
                Some(ours) if ours != *line => return Err(Alarm::Differs(number, self.ledger.name()).into()),
                // The last is not the newest where one who led before came late.
                Some(_) => reached = reached.max(number),
            }
        }
        self.reached = Some(reached);
        Ok(())
    }

    /// Adds what it lacks, what is shared only as long as the seat is held.
    async fn catch_up(
        &mut self,
        table: &Table,
        trusted: &[PublicKey],
        held: Option<&watch::Receiver<Held>>,
    ) -> Result<(), Trouble> {
        if self.reached.is_none() {
            self.find(table, trusted).await?;
        }
        while let Some(reached) = self.reached {
            let page = table.page(reached).await?;
            let Some((last, _)) = page.last() else { break };
            let last = *last;
            let mut lines = Vec::with_capacity(page.len());
            for (number, line) in page {
                let statement = Statement::read(&line, trusted).map_err(|broken| Alarm::Statement(number, broken))?;
                if number != reached + 1 + lines.len() as u64 || statement.number != number {
                    return Err(Alarm::Statement(number, Broken::Order).into());
                }
                lines.push(line);
            }
            self.reached = None;
            // Reading may have taken so long that another one leads by now.
            if self.shared && !held.is_some_and(leads) {
                return Err(Trouble::Overtaken);
            }
            self.ledger.append(&lines).await?;
            self.reached = Some(last);
        }
        Ok(())
    }

    fn works(&mut self) {
        if self.rests.take().is_some() {
            tracing::info!("signed heads are kept in {} again", self.ledger.name());
        }
    }

    fn fails(&mut self, error: Option<&(dyn std::error::Error + 'static)>, rest: Duration) {
        self.reached = None;
        if self.rests.replace(Instant::now() + rest).is_none() {
            tracing::warn!(error, "signed heads are not kept in {} for now", self.ledger.name());
        }
    }
}

/// Whether it is us who sign.
fn leads(held: &watch::Receiver<Held>) -> bool {
    held.borrow().has(SEAT.0, SEAT.1)
}

/// Takes so much of the ranges that a statement does not grow beyond `most` events.
fn bound(ranges: &mut Vec<(ShardChain, u64)>, most: u64) {
    let mut left = most;
    for (from, to) in ranges.iter_mut() {
        *to = (*to).min(from.position + left);
        left -= *to - from.position;
    }
    ranges.retain(|(from, to)| *to > from.position);
}

/// Whether what was recomputed follows, and ends where the shard says that it does.
fn follows(extension: &Extension, claims: &[ShardChain]) -> Result<(), Alarm> {
    let end = extension.end();
    let place = (end.topic, end.shard);
    if let Some(broken) = extension.broken {
        return Err(Alarm::Broken(position(place, broken)));
    }
    let claim = claims.iter().find(|claim| (claim.topic, claim.shard) == place);
    if claim.is_some_and(|claim| claim.position == end.position && claim.chain != end.chain) {
        return Err(Alarm::Head(position(place, end.position)));
    }
    Ok(())
}
