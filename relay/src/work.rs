//! The pieces of work on shards, each a task of its own beside the relay's loop, so that one that hangs holds no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use event_store::{Log, StoredEvent};
use platform::bus::{Bus, BusError, Tail};
use platform::traces::{Kind, Traced};
use schemas::{Record, Topic};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::leadership::{Leadership, Place};
use crate::options::Options;
use crate::shard::{Reached, Ticket};
use crate::status::Stall;
use crate::stored::private;
use crate::translate::{Untranslatable, translate};

/// Pages read from the log at the same time: the pool is others' too.
const READERS: usize = 2;

/// What a piece of work came to.
pub(crate) enum Done {
    /// The bus was asked how shards end.
    Asked { tickets: Vec<Ticket>, answer: Result<Vec<Answer>, Failure> },
    /// The heads on the bus were compared with what was published; the shards that lack something.
    Compared { topic: Topic, lacking: Vec<u16> },
    /// A shard was caught up with, for a while or up to its head.
    CaughtUp { ticket: Ticket, reached: Option<Reached>, head: u64, end: Result<(), Failure> },
    /// What came by itself was published.
    HandedOn { tickets: Vec<Ticket>, outcome: Result<(), Failure> },
}

/// Where a shard is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    After(Reached),
    /// Nowhere: it ends with what is not the log's.
    Foreign,
}

/// Why a piece of work came to no good end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the bus failed")]
    Bus(#[source] BusError),
    #[error("the log cannot be read")]
    Log(#[source] sqlx::Error),
    #[error("the requests to publish again cannot be read")]
    Requests(#[source] sqlx::Error),
    #[error("the {0} did not answer in time")]
    Late(&'static str),
    #[error("a shard cannot go on")]
    Untranslatable(#[from] Untranslatable),
    #[error("the log does not have the position {0}")]
    Incomplete(u64),
}

impl Failure {
    /// Why the shard stands still until somebody sees to it, if it does.
    pub(crate) fn stall(&self) -> Option<Stall> {
        match self {
            Self::Untranslatable(_) => Some(Stall::Untranslatable),
            Self::Incomplete(_) => Some(Stall::Incomplete),
            Self::Bus(_) | Self::Log(_) | Self::Requests(_) | Self::Late(_) => None,
        }
    }

    /// Whether it is not known what was published.
    pub(crate) fn of_bus(&self) -> bool {
        matches!(self, Self::Bus(_) | Self::Late(BUS))
    }
}

const BUS: &str = "bus";
const LOG: &str = "log";

/// Some events that follow one another, as records; and what stops those after them.
pub(crate) struct Page {
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) hurdle: Option<Failure>,
}

impl Page {
    fn reached(&self) -> Option<Reached> {
        self.records.last().map(|last| reached(last))
    }
}

/// Where a shard stands once this record is published.
fn reached(record: &Record) -> Reached {
    Reached { position: record.position, event_id: Some(record.event_id) }
}

/// What all pieces of work need.
pub(crate) struct Work {
    pub(crate) log: Log,
    bus: Arc<dyn Bus>,
    pub(crate) leadership: Leadership,
    pub(crate) options: Options,
    reading: Semaphore,
    /// No new page is begun once this is cancelled.
    stop: CancellationToken,
}

impl Work {
    pub(crate) fn new(
        log: Log,
        bus: Arc<dyn Bus>,
        leadership: Leadership,
        options: Options,
        stop: CancellationToken,
    ) -> Self {
        Self { log, bus, leadership, options, reading: Semaphore::new(READERS), stop }
    }

    /// Asks the bus how these shards of a topic end.
    pub(crate) async fn ask(self: Arc<Self>, topic: Topic, tickets: Vec<Ticket>) -> Done {
        let answer = self.answers(topic, &tickets).await;
        Done::Asked { tickets, answer }
    }

    async fn answers(&self, topic: Topic, tickets: &[Ticket]) -> Result<Vec<Answer>, Failure> {
        let shards: Vec<u16> = tickets.iter().map(|ticket| ticket.place.1).collect();
        let tails = timeout(self.options.patience, self.bus.tails(topic, &shards));
        let tails = tails.await.map_err(|_| Failure::Late(BUS))?.map_err(Failure::Bus)?;
        let mut answers = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            let tail = tails.iter().find(|(shard, _)| *shard == ticket.place.1).map(|(_, tail)| *tail);
            answers.push(match tail {
                None => return Err(Failure::Bus(BusError("a shard was left out".into()))),
                Some(Tail::Empty) => Answer::After(Reached::default()),
                Some(Tail::Foreign) => Answer::Foreign,
                Some(Tail::Record { position, event_id }) => {
                    self.compared(ticket, Reached { position, event_id }).await?
                }
            });
        }
        Ok(answers)
    }

    /// Whether the bus ends with the log's own event.
    async fn compared(&self, ticket: &Ticket, tail: Reached) -> Result<Answer, Failure> {
        if tail.event_id.is_none() || ticket.known == Some(tail) {
            return Ok(Answer::After(tail));
        }
        let Some(before) = tail.position.checked_sub(1) else { return Ok(Answer::Foreign) };
        let events = self.read(ticket.place, before, 1).await?;
        let ours = events
            .first()
            .is_some_and(|event| (event.position, Some(event.event_id)) == (tail.position, tail.event_id));
        Ok(if ours { Answer::After(tail) } else { Answer::Foreign })
    }

    /// Which of these shards, that had got at least so far, the bus does not have to there.
    pub(crate) async fn compare(self: Arc<Self>, topic: Topic, shards: Vec<(u16, u64)>) -> Done {
        let heads = timeout(self.options.patience, self.bus.heads(topic)).await;
        // Without an answer all of them are to be asked for.
        let heads: HashMap<u16, u64> = heads.ok().and_then(Result::ok).unwrap_or_default().into_iter().collect();
        let lacking = shards.into_iter().filter(|(shard, reached)| heads.get(shard).is_none_or(|head| head < reached));
        Done::Compared { topic, lacking: lacking.map(|(shard, _)| shard).collect() }
    }

    /// Publishes what follows a position, up to the shard's head or until others should have their turn.
    pub(crate) async fn catch_up(self: Arc<Self>, ticket: Ticket, after: u64, head: u64) -> Done {
        let mut reached = None;
        let end = self.pages(&ticket, after, head, &mut reached).await;
        Done::CaughtUp { ticket, reached, head, end }
    }

    async fn pages(
        &self,
        ticket: &Ticket,
        after: u64,
        head: u64,
        reached: &mut Option<Reached>,
    ) -> Result<(), Failure> {
        let place = ticket.place;
        let Some(first) = ticket.lost.run_until_cancelled(self.page(place, after)).await else { return Ok(()) };
        let mut page = first?;
        for turn in 1..=self.options.turn {
            let Some(last) = page.reached() else { break };
            if self.stop.is_cancelled() || ticket.lost.is_cancelled() || !self.leadership.leads(place) {
                return Ok(());
            }
            // The next page is read while this one is published. A lost shard ends the reading alone: what is being published
            // may land though nobody waits for it, behind what the next one publishes.
            let more = page.hurdle.is_none() && turn < self.options.turn && last.position < head;
            let ahead = async {
                if more { ticket.lost.run_until_cancelled(self.page(place, last.position)).await } else { None }
            };
            let (published, ahead) = tokio::join!(self.publish(&page.records, "log"), ahead);
            published?;
            *reached = Some(last);
            match ahead {
                Some(next) => page = next?,
                None => break,
            }
        }
        page.hurdle.map_or(Ok(()), Err)
    }

    pub(crate) async fn page(&self, place: Place, after: u64) -> Result<Page, Failure> {
        let events = self.read(place, after, self.options.page).await?;
        let mut page = Page { records: Vec::with_capacity(events.len()), hurdle: None };
        if events.is_empty() {
            page.hurdle = Some(Failure::Incomplete(after + 1));
        }
        for (event, expected) in events.iter().zip(after + 1..) {
            let record = if event.position == expected {
                translate(event, self.log.upcasters()).map_err(Failure::from)
            } else {
                Err(Failure::Incomplete(expected))
            };
            match record {
                Ok(record) => page.records.push(Arc::new(record)),
                Err(hurdle) => {
                    page.hurdle = Some(hurdle);
                    break;
                }
            }
        }
        Ok(page)
    }

    async fn read(&self, (topic, shard): Place, after: u64, limit: u32) -> Result<Vec<StoredEvent>, Failure> {
        let reading = async {
            let _permit = self.reading.acquire().await.expect("never closed");
            self.log.read(private(topic), shard, after, limit).await
        };
        timeout(self.options.patience, reading).await.map_err(|_| Failure::Late(LOG))?.map_err(Failure::Log)
    }

    /// Publishes these records of one shard again.
    pub(crate) async fn republish(&self, replay: Uuid, records: &[Arc<Record>]) -> Result<(), Failure> {
        let published = timeout(self.options.patience, self.bus.republish(replay, records));
        published.await.map_err(|_| Failure::Late(BUS))?.map_err(Failure::Bus)
    }

    /// Publishes what came by itself: records of these shards.
    pub(crate) async fn hand_on(self: Arc<Self>, tickets: Vec<Ticket>, records: Vec<Arc<Record>>) -> Done {
        let outcome = self.publish(&records, "committed").await;
        Done::HandedOn { tickets, outcome }
    }

    async fn publish(&self, records: &[Arc<Record>], source: &'static str) -> Result<(), Failure> {
        let Some(oldest) = records.iter().map(|record| record.at).min() else { return Ok(()) };
        let (traced, began) = (Traced::all(records), SystemTime::now());
        let published = timeout(self.options.patience, self.bus.publish(records));
        published.await.map_err(|_| Failure::Late(BUS))?.map_err(Failure::Bus)?;
        for record in traced {
            record.done(Kind::Producer, "publish", record.place().topic.name(), began, Vec::new());
        }
        let latency = (OffsetDateTime::now_utc() - oldest).as_seconds_f64().max(0.0);
        metrics::histogram!("parlance_relay_latency_seconds").record(latency);
        metrics::counter!("parlance_relay_records_total", "source" => source).increment(records.len() as u64);
        Ok(())
    }
}
