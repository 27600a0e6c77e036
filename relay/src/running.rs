//! The relay at work: a loop that decides, and tasks that wait for the bus and the log.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use schemas::{Position, Topic};
use time::OffsetDateTime;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::feed::{Aside, Batch, Feed, Heard};
use crate::leadership::{Leadership, Place, places};
use crate::options::Options;
use crate::relay::heads;
use crate::schedule::Schedule;
use crate::shard::{Reached, Shard, Ticket};
use crate::status::{RelayStatus, Stall, Standing};
use crate::stored::public;
use crate::translate::translate;
use crate::work::{Answer, Done, Failure, Work};

/// Questions to the bus at the same time.
const QUESTIONS: usize = 4;
/// Events put aside, in pages.
const PAGES_ASIDE: usize = 4;
/// How long what is under way may take once the end has come.
const LAST_PAGE: Duration = Duration::from_secs(1);

/// What the loop knows.
pub(crate) struct Running {
    work: Arc<Work>,
    options: Options,
    leadership: Leadership,
    /// Nobody will ever say again what is led.
    leaderless: bool,
    lapses: u64,
    feed: Feed,
    aside: Aside,
    page: usize,
    schedule: Schedule,
    /// Those that are led.
    shards: HashMap<Place, Shard>,
    /// Shards gained so far.
    gained: u64,
    tasks: JoinSet<Done>,
    asking: usize,
    catching_up: usize,
    /// The shard that comes first next time, so that none waits behind busier ones.
    turn: usize,
    lag: u64,
    bus_failing_since: Option<OffsetDateTime>,
    status: RelayStatus,
}

impl Running {
    pub(crate) fn new(work: Work, feed: Feed, status: RelayStatus) -> Self {
        let options = work.options;
        let page = usize::try_from(options.page).unwrap_or(usize::MAX);
        Self {
            leadership: work.leadership.clone(),
            work: Arc::new(work),
            options,
            leaderless: false,
            lapses: 0,
            feed,
            aside: Aside::new(page.saturating_mul(PAGES_ASIDE)),
            page,
            schedule: Schedule::new(&options),
            shards: HashMap::new(),
            gained: 0,
            tasks: JoinSet::new(),
            asking: 0,
            catching_up: 0,
            turn: 0,
            lag: 0,
            bus_failing_since: None,
            status,
        }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.regroup();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                more = self.leadership.changed(), if !self.leaderless => {
                    self.leaderless = !more;
                    self.regroup();
                }
                Some(done) = self.tasks.join_next() => self.finished(done),
                heard = self.feed.next(self.page) => self.heard(heard),
                () = sleep_until(self.schedule.next) => self.look().await,
            }
        }
        // What is published now need not be published again by the next one.
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(LAST_PAGE, finished).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.status.set(Standing::default());
    }

    /// Takes up the shards that are led now, and drops those that are not.
    fn regroup(&mut self) {
        let lapses = self.leadership.lapses();
        if self.leaderless || lapses != self.lapses {
            self.shards.clear();
            self.lapses = lapses;
        }
        self.shards.retain(|place, _| self.leadership.leads(*place));
        for place in places(&self.work.log).filter(|place| !self.leaderless && self.leadership.leads(*place)) {
            self.shards.entry(place).or_insert_with(|| {
                self.gained += 1;
                Shard::new(self.gained)
            });
        }
        self.schedule.now();
        self.report();
    }

    fn heard(&mut self, heard: Heard) {
        if heard.missed > 0 {
            tracing::debug!(batches = heard.missed, "the relay missed {} batches and reads the log", heard.missed);
            self.schedule.now();
        }
        self.hand_on(heard.batches);
    }

    /// Publishes what follows what was published; puts aside what does not yet, or belongs to shards that are being worked
    /// on.
    fn hand_on(&mut self, batches: Vec<Batch>) {
        let mut records = Vec::with_capacity(batches.iter().map(|batch| batch.len()).sum());
        let mut touched: Vec<Place> = Vec::new();
        for batch in batches {
            let mut aside = false;
            for event in batch.iter() {
                let place = (public(event.topic), event.shard);
                let Some(shard) = self.shards.get_mut(&place) else { continue };
                if event.position <= shard.reached() {
                    continue;
                }
                aside |= shard.busy();
                if !shard.flows() {
                    continue;
                }
                if event.position != shard.reached() + 1 {
                    // What comes before it another process may be about to tell; the log has it in any case.
                    aside = true;
                    self.schedule.now();
                    continue;
                }
                if !touched.contains(&place) {
                    if !self.leadership.leads(place) {
                        continue;
                    }
                    touched.push(place);
                }
                match translate(event, self.work.log.upcasters()) {
                    Ok(record) => {
                        shard.advance(Reached { position: event.position, event_id: Some(event.event_id) });
                        records.push(Arc::new(record));
                    }
                    Err(error) => stand_still(place, shard, Stall::Untranslatable, &error, &self.options),
                }
            }
            if aside {
                self.aside.put(batch);
            }
        }
        if records.is_empty() {
            return;
        }
        let (shards, leadership) = (&mut self.shards, &self.leadership);
        let begin = |place| shards.get_mut(&place).expect("touched above").begin(place, leadership.begin(place));
        let tickets = touched.into_iter().map(begin).collect();
        let mut publishing = Box::pin(Arc::clone(&self.work).hand_on(tickets, records));
        // Within one process it is done at once, and needs no task.
        match (&mut publishing).now_or_never() {
            Some(done) => self.settle(done),
            None => drop(self.tasks.spawn(publishing)),
        }
    }

    fn finished(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => self.settle(done),
            // They are only aborted after the loop.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        let aside = self.aside.take();
        if !aside.is_empty() {
            self.hand_on(aside);
        }
    }

    /// Draws the conclusions of a piece of work.
    fn settle(&mut self, done: Done) {
        match done {
            Done::Asked { tickets, answer } => {
                self.asking -= 1;
                self.schedule.now();
                match answer {
                    Ok(answers) => tickets.iter().zip(answers).for_each(|(ticket, answer)| self.go_on(ticket, answer)),
                    Err(failure) => tickets.iter().for_each(|ticket| self.failed(ticket, &failure)),
                }
                self.report();
            }
            Done::Compared { topic, lacking } => {
                self.asking -= 1;
                for shard in lacking {
                    self.shards.entry((topic, shard)).and_modify(Shard::doubt);
                }
                self.schedule.now();
            }
            Done::CaughtUp { ticket, reached, head, end } => {
                if self.catching_up == self.options.at_once || reached.is_some_and(|reached| reached.position < head) {
                    self.schedule.now();
                }
                self.catching_up -= 1;
                let shard = self.shards.get_mut(&ticket.place).filter(|shard| shard.is_of(&ticket));
                if let Some((shard, reached)) = shard.zip(reached) {
                    shard.advance(reached);
                }
                self.ended(&[ticket], end);
            }
            Done::HandedOn { tickets, outcome } => self.ended(&tickets, outcome),
        }
    }

    fn ended(&mut self, tickets: &[Ticket], outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                for ticket in tickets {
                    finish(&mut self.shards, ticket);
                }
            }
            Err(failure) => {
                for ticket in tickets {
                    self.failed(ticket, &failure);
                }
                self.report();
            }
        }
    }

    /// The bus said how a shard ends.
    fn go_on(&mut self, ticket: &Ticket, answer: Answer) {
        let Some(shard) = finish(&mut self.shards, ticket) else { return };
        let (topic, shard_number) = (ticket.place.0.name(), ticket.place.1);
        match answer {
            Answer::After(reached) => {
                let stood = shard.stall();
                if let Some(before) = shard.resume(reached, self.options.check) {
                    let after = reached.position;
                    tracing::warn!(
                        topic,
                        shard = shard_number,
                        before,
                        after,
                        "the bus ends {topic}/{shard_number} at {after} where {before} was published: the relay goes on from there"
                    );
                }
                if stood == Some(Stall::Foreign) {
                    tracing::info!(topic, shard = shard_number, "{topic}/{shard_number} goes on");
                }
            }
            Answer::Foreign => stand_still(ticket.place, shard, Stall::Foreign, &Stall::Foreign, &self.options),
        }
    }

    fn failed(&mut self, ticket: &Ticket, failure: &Failure) {
        let Some(shard) = finish(&mut self.shards, ticket) else { return };
        if let Some(stall) = failure.stall() {
            return stand_still(ticket.place, shard, stall, failure, &self.options);
        }
        let error: &dyn Error = failure;
        let of_bus = failure.of_bus();
        if of_bus && self.bus_failing_since.is_none() {
            self.bus_failing_since = Some(OffsetDateTime::now_utc());
            tracing::warn!(error, "the relay cannot publish, and tries again");
        } else if !of_bus && shard.failures() == 0 {
            let (topic, number) = (ticket.place.0.name(), ticket.place.1);
            tracing::warn!(error, topic, shard = number, "the relay cannot read {topic}/{number}, and tries again");
        }
        shard.fail(of_bus);
    }

    /// Asks the bus what is to be asked, compares with the heads, and catches up where it is behind.
    async fn look(&mut self) {
        if self.shards.is_empty() {
            return self.schedule.looked(false);
        }
        let heads = match timeout(self.options.patience, heads(&self.work.log)).await {
            Ok(Ok(heads)) => heads,
            Ok(Err(error)) => return self.schedule.failed(&error),
            Err(late) => return self.schedule.failed(&late),
        };
        self.wait_for_our_own(&heads).await;
        let now = Instant::now();
        self.ask(now);
        let found = self.catch_up(&heads, now);
        self.schedule.looked(found);
        self.lag = heads.iter().map(|head| self.behind(head)).sum();
        self.report();
    }

    /// What lies between a commit and our hands comes by itself in a moment, where anybody tells: no need to read it.
    async fn wait_for_our_own(&mut self, heads: &[Position]) {
        let deadline = Instant::now() + self.options.grace;
        let flows = |shard: &Shard| shard.flows();
        while self.feed.is_open()
            && heads.iter().any(|head| self.shards.get(&place(head)).is_some_and(flows) && self.behind(head) > 0)
        {
            let Ok(heard) = timeout_at(deadline, self.feed.next(self.page)).await else { return };
            let missed = heard.missed > 0;
            self.heard(heard);
            if missed {
                return;
            }
        }
    }

    /// How many events of a shard that we lead are not published.
    fn behind(&self, head: &Position) -> u64 {
        self.shards.get(&place(head)).map_or(0, |shard| head.position.saturating_sub(shard.reached()))
    }

    fn ask(&mut self, now: Instant) {
        for topic in Topic::ALL {
            let shards = self.shards.iter_mut().filter(|((of, _), shard)| *of == topic && shard.to_be_compared(now));
            if self.asking < QUESTIONS {
                let shards: Vec<_> = shards.map(|((_, n), shard)| (*n, shard.compare(self.options.check))).collect();
                if !shards.is_empty() {
                    self.tasks.spawn(Arc::clone(&self.work).compare(topic, shards));
                    self.asking += 1;
                }
            }
            let due = self.shards.iter().filter(|((of, _), shard)| *of == topic && shard.to_be_asked(now));
            let (alone, together): (Vec<_>, Vec<_>) =
                due.map(|(place, shard)| (*place, shard.asks_alone())).partition(|(_, alone)| *alone);
            let mut questions: Vec<Vec<Place>> = alone.into_iter().map(|(place, _)| vec![place]).collect();
            if !together.is_empty() {
                questions.insert(0, together.into_iter().map(|(place, _)| place).collect());
            }
            for question in questions.into_iter().take(QUESTIONS.saturating_sub(self.asking)) {
                let (shards, leadership) = (&mut self.shards, &self.leadership);
                let begin = |place| shards.get_mut(&place).expect("found above").begin(place, leadership.begin(place));
                let tickets = question.into_iter().map(begin).collect();
                self.tasks.spawn(Arc::clone(&self.work).ask(topic, tickets));
                self.asking += 1;
            }
        }
    }

    /// Begins to catch up with shards that are behind, as many as may be at once; whether there were any.
    fn catch_up(&mut self, heads: &[Position], now: Instant) -> bool {
        let mut found = false;
        let (before, after) = heads.split_at(self.turn.min(heads.len()));
        for (index, head) in (self.turn..).zip(after).chain((0..).zip(before)) {
            let place = place(head);
            let Some(shard) = self.shards.get_mut(&place) else { continue };
            if self.catching_up >= self.options.at_once || !shard.ready(now) || shard.reached() >= head.position {
                continue;
            }
            let after = shard.reached();
            let ticket = shard.begin(place, self.leadership.begin(place));
            self.tasks.spawn(Arc::clone(&self.work).catch_up(ticket, after, head.position));
            self.catching_up += 1;
            self.turn = index + 1;
            found = true;
        }
        found
    }

    /// Tells how we stand.
    fn report(&mut self) {
        if self.bus_failing_since.is_some() && !self.shards.values().any(Shard::bus_fails) {
            self.bus_failing_since = None;
            tracing::info!("the relay publishes again");
        }
        let stalled = self.shards.iter().filter_map(|((topic, shard), state)| {
            Some((Position { topic: *topic, shard: *shard, position: state.reached() }, state.stall()?))
        });
        let mut stalled: Vec<_> = stalled.collect();
        stalled.sort_unstable_by_key(|(place, _)| *place);
        self.status.set(Standing {
            led: self.shards.len(),
            lag: self.lag,
            stalled,
            bus_failing_since: self.bus_failing_since,
        });
    }
}

fn place(head: &Position) -> Place {
    (head.topic, head.shard)
}

/// The shard whose piece of work is over, if it is ours since before that.
fn finish<'a>(shards: &'a mut HashMap<Place, Shard>, ticket: &Ticket) -> Option<&'a mut Shard> {
    shards.get_mut(&ticket.place).and_then(|shard| shard.finish(ticket).then_some(shard))
}

/// A shard cannot go on: said loudly, once.
fn stand_still(place: Place, shard: &mut Shard, stall: Stall, error: &(dyn Error + 'static), options: &Options) {
    let (topic, number, after) = (place.0.name(), place.1, shard.reached());
    if shard.stand_still(stall, options.stall) {
        tracing::error!(error, topic, shard = number, after, "the shard {topic}/{number} stands still after {after}");
    }
}
