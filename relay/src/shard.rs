//! What the relay knows of one shard that it leads.

use platform::leases::Use;
use tokio::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::leadership::Place;
use crate::schedule::back_off;
use crate::status::Stall;

/// How long nothing was published where nothing much goes on.
const QUIET: Duration = Duration::from_secs(1);

/// The last record of a shard on the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Its position; 0 before the first.
    pub(crate) position: u64,
    /// Its event, where the bus or we know it.
    pub(crate) event_id: Option<Uuid>,
}

/// The right to work on a shard, for one piece of work.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) place: Place,
    pub(crate) known: Option<Reached>,
    /// Cancelled once the shard is not ours any more.
    pub(crate) lost: CancellationToken,
    generation: u64,
    _in_use: Option<Use>,
}

/// One shard that is led.
pub(crate) struct Shard {
    reached: Reached,
    /// Whether the bus ends there for all that we know; else it has to be asked.
    certain: bool,
    /// Whether a piece of work is under way: there is only ever one.
    busy: bool,
    failures: u32,
    bus_fails: bool,
    /// Nothing is tried before.
    rest_until: Instant,
    /// When the bus is asked even so.
    check_at: Instant,
    /// When something was published last.
    advanced_at: Instant,
    stall: Option<Stall>,
    generation: u64,
    lost: CancellationToken,
    _lost_when_dropped: DropGuard,
}

impl Shard {
    /// One that has just been gained. `generation` is given only once.
    pub(crate) fn new(generation: u64) -> Self {
        let (now, lost) = (Instant::now(), CancellationToken::new());
        Self {
            reached: Reached::default(),
            certain: false,
            busy: false,
            failures: 0,
            bus_fails: false,
            rest_until: now,
            check_at: now,
            advanced_at: now,
            stall: None,
            generation,
            _lost_when_dropped: lost.clone().drop_guard(),
            lost,
        }
    }

    pub(crate) fn reached(&self) -> u64 {
        self.reached.position
    }

    pub(crate) fn stall(&self) -> Option<Stall> {
        self.stall
    }

    /// Whether the bus fails for it.
    pub(crate) fn bus_fails(&self) -> bool {
        self.bus_fails
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn busy(&self) -> bool {
        self.busy
    }

    /// Whether the bus has to be asked now how the shard ends. Meanwhile nothing is published, so that one where much
    /// goes on is only asked when need be.
    pub(crate) fn to_be_asked(&self, now: Instant) -> bool {
        let due = !self.certain || (now >= self.check_at && now >= self.advanced_at + QUIET);
        !self.busy && now >= self.rest_until && due
    }

    /// Whether it is time to compare it with the bus, while all goes on.
    pub(crate) fn to_be_compared(&self, now: Instant) -> bool {
        !self.busy && self.certain && now >= self.check_at && now < self.advanced_at + QUIET
    }

    /// It is being compared; where it stood before that.
    pub(crate) fn compare(&mut self, check: Duration) -> u64 {
        self.check_at = Instant::now() + check;
        self.reached.position
    }

    /// The bus may lack what was published, and has to be asked.
    pub(crate) fn doubt(&mut self) {
        self.certain = false;
    }

    /// Whether it failed so often that it may be what spoils the question for others.
    pub(crate) fn asks_alone(&self) -> bool {
        self.failures > 1
    }

    /// Whether what follows may be tried now, also after it failed or stood still for a while.
    pub(crate) fn ready(&self, now: Instant) -> bool {
        !self.busy && self.certain && now >= self.rest_until
    }

    /// Whether what follows may be published as it comes.
    pub(crate) fn flows(&self) -> bool {
        !self.busy && self.certain && self.stall.is_none() && self.failures == 0
    }

    /// A piece of work begins.
    pub(crate) fn begin(&mut self, place: Place, in_use: Option<Use>) -> Ticket {
        self.busy = true;
        let known = self.certain.then_some(self.reached);
        Ticket { place, known, lost: self.lost.clone(), generation: self.generation, _in_use: in_use }
    }

    /// Whether this piece of work began since the shard was gained.
    pub(crate) fn is_of(&self, ticket: &Ticket) -> bool {
        ticket.generation == self.generation
    }

    /// A piece of work is over; `false` if it began before the shard was lost and gained again.
    pub(crate) fn finish(&mut self, ticket: &Ticket) -> bool {
        let ours = self.is_of(ticket);
        self.busy &= !ours;
        ours
    }

    /// Published so far.
    pub(crate) fn advance(&mut self, reached: Reached) {
        self.reached = reached;
        self.advanced_at = Instant::now();
        self.well();
        self.stall = None;
    }

    fn well(&mut self) {
        self.failures = 0;
        self.bus_fails = false;
    }

    /// The bus said how it ends; what we took it to end with before, if that was something else.
    pub(crate) fn resume(&mut self, reached: Reached, check: Duration) -> Option<u64> {
        let before = (self.certain && self.reached.position != reached.position).then_some(self.reached.position);
        // One that waits for a better program or a mended log goes on waiting, unless it is to begin elsewhere.
        if self.stall == Some(Stall::Foreign) || self.reached.position != reached.position {
            self.stall = None;
        }
        self.reached = reached;
        self.certain = true;
        self.well();
        self.check_at = Instant::now() + check;
        before
    }

    /// It cannot go on; `true` if that is new.
    pub(crate) fn stand_still(&mut self, stall: Stall, pause: Duration) -> bool {
        let new = self.stall != Some(stall);
        self.stall = Some(stall);
        self.well();
        self.certain &= stall != Stall::Foreign;
        self.rest_until = Instant::now() + pause;
        new
    }

    /// A piece of work failed. What was published and what was not is the bus's to say, if it was the bus.
    pub(crate) fn fail(&mut self, bus: bool) {
        self.certain &= !bus;
        self.bus_fails |= bus;
        self.rest_until = Instant::now() + back_off(self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use schemas::Topic;

    use super::*;

    const PLACE: Place = (Topic::Users, 3);
    const PAUSE: Duration = Duration::from_secs(5);

    fn at(position: u64) -> Reached {
        Reached { position, event_id: None }
    }

    /// The next piece of work, over at once.
    fn done(shard: &mut Shard) {
        let ticket = shard.begin(PLACE, None);
        assert!(!shard.ready(Instant::now()) && !shard.to_be_asked(Instant::now()));
        assert!(shard.finish(&ticket));
    }

    #[tokio::test(start_paused = true)]
    async fn the_bus_is_asked_first_and_from_time_to_time() {
        let mut shard = Shard::new(1);
        assert!(shard.to_be_asked(Instant::now()) && !shard.ready(Instant::now()));
        done(&mut shard);
        assert_eq!(shard.resume(at(7), PAUSE), None);
        assert!(shard.ready(Instant::now()) && !shard.to_be_asked(Instant::now()));
        tokio::time::advance(PAUSE).await;
        shard.advance(at(9));
        assert!(shard.to_be_compared(Instant::now()) && !shard.to_be_asked(Instant::now()));
        assert_eq!(shard.compare(PAUSE), 9);
        assert!(!shard.to_be_compared(Instant::now()));
        tokio::time::advance(PAUSE).await;
        assert!(!shard.to_be_compared(Instant::now()) && shard.to_be_asked(Instant::now()));
        assert_eq!(shard.resume(at(4), PAUSE), Some(9));
        assert_eq!(shard.reached(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_bus_failed_it_is_asked_and_after_the_log_did_not() {
        let mut shard = Shard::new(1);
        shard.resume(at(7), PAUSE);
        shard.fail(false);
        assert!(!shard.ready(Instant::now()) && !shard.bus_fails());
        tokio::time::advance(PAUSE).await;
        assert!(shard.ready(Instant::now()) && !shard.flows());
        shard.fail(true);
        tokio::time::advance(PAUSE).await;
        assert!(!shard.ready(Instant::now()) && shard.to_be_asked(Instant::now()) && shard.bus_fails());
        assert!(shard.asks_alone());
        shard.resume(at(7), PAUSE);
        assert!(shard.flows() && !shard.bus_fails());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_is_tried_again_and_said_once() {
        let mut shard = Shard::new(1);
        shard.resume(at(7), PAUSE);
        assert!(shard.stand_still(Stall::Untranslatable, PAUSE));
        assert!(!shard.flows() && !shard.ready(Instant::now()));
        tokio::time::advance(PAUSE).await;
        assert!(shard.ready(Instant::now()));
        // That the bus still ends there changes nothing; that it ends elsewhere does.
        shard.resume(at(7), PAUSE);
        assert!(!shard.stand_still(Stall::Untranslatable, PAUSE));
        shard.resume(at(3), PAUSE);
        assert_eq!(shard.stall(), None);
        assert!(shard.stand_still(Stall::Foreign, PAUSE) && !shard.stand_still(Stall::Foreign, PAUSE));
        tokio::time::advance(PAUSE).await;
        assert!(shard.to_be_asked(Instant::now()) && !shard.ready(Instant::now()));
        shard.resume(at(3), PAUSE);
        assert_eq!(shard.stall(), None);
    }

    #[test]
    fn what_began_before_the_shard_was_lost_counts_no_more() {
        let mut shard = Shard::new(1);
        let ticket = shard.begin(PLACE, None);
        drop(shard);
        assert!(ticket.lost.is_cancelled());
        let mut again = Shard::new(2);
        let _work = again.begin(PLACE, None);
        assert!(!again.finish(&ticket) && again.busy());
    }
}
