//! How far projections are behind the bus, in the shards that this process applies.

use std::time::Duration;

use parking_lot::Mutex;
use platform::bus::Bus;
use schemas::Topic;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};

use super::apply::Running;
use crate::checkpoints::Places;

/// The heads are asked of the bus for it, by each consumer of each topic.
const PACE: Duration = Duration::from_secs(5);

/// What the runner tells, and what is measured by it.
pub(super) struct Lag(Mutex<State>);

struct State {
    projections: Vec<(&'static str, Places)>,
    /// How old the oldest is that waits, as far as is known; `None` if nothing did when it was last measured.
    oldest: Option<OffsetDateTime>,
}

impl Lag {
    pub(super) fn new(projections: impl Iterator<Item = &'static str>) -> Self {
        let projections = projections.map(|name| (name, Places::new())).collect();
        Self(Mutex::new(State { projections, oldest: None }))
    }

    /// A batch is about to be applied, of which the first is so old.
    pub(super) fn begins(&self, oldest: OffsetDateTime) {
        self.0.lock().oldest = Some(oldest);
    }

    /// How far each has got; no word of one means that it holds nothing.
    pub(super) fn stands(&self, running: &[Running]) {
        for (name, places) in &mut self.0.lock().projections {
            let applied = running.iter().find(|one| one.name == *name).map(|one| &one.applied);
            match applied {
                Some(applied) => places.clone_from(applied),
                None => places.clear(),
            }
        }
    }

    /// Measures every few seconds, for as long as it is polled.
    pub(super) async fn measure(&self, bus: &dyn Bus, topic: Topic) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heads = Vec::new();
        loop {
            pace.tick().await;
            let holds = self.0.lock().projections.iter().any(|(_, places)| !places.is_empty());
            if holds && let Ok(now) = bus.heads(topic).await {
                heads = now;
            }
            for (name, positions, seconds) in self.behind(&heads, OffsetDateTime::now_utc()) {
                #[expect(clippy::cast_precision_loss, reason = "a gauge")]
                metrics::gauge!("parlance_projection_lag_positions", "projection" => name, "topic" => topic.name())
                    .set(positions as f64);
                metrics::gauge!("parlance_projection_lag_seconds", "projection" => name, "topic" => topic.name())
                    .set(seconds);
            }
        }
    }

    /// How many positions, and seconds, each projection is behind these heads.
    fn behind(&self, heads: &[(u16, u64)], now: OffsetDateTime) -> Vec<(&'static str, u64, f64)> {
        let mut state = self.0.lock();
        let count = |places: &Places| -> u64 {
            let of = |(shard, head): &(u16, u64)| places.get(shard).map_or(0, |applied| head.saturating_sub(*applied));
            heads.iter().map(of).sum()
        };
        let behind: Vec<_> = state.projections.iter().map(|(name, places)| (*name, count(places))).collect();
        if behind.iter().all(|(_, positions)| *positions == 0) {
            state.oldest = None;
        }
        // What nobody has begun to apply waits since now at the latest.
        let is_behind = behind.iter().any(|(_, positions)| *positions > 0);
        let age = is_behind.then(|| now - *state.oldest.get_or_insert(now));
        let age = age.map_or(0.0, |age| age.as_seconds_f64().max(0.0));
        behind.into_iter().map(|(name, positions)| (name, positions, if positions == 0 { 0.0 } else { age })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_waits_in_the_shards_that_are_held() {
        let lag = Lag::new(["quick", "slow"].into_iter());
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1000);
        let later = now + Duration::from_secs(7);
        let heads = [(0, 10), (1, 20)];
        assert_eq!(lag.behind(&heads, now), [("quick", 0, 0.0), ("slow", 0, 0.0)]);
        lag.0.lock().projections = vec![("quick", Places::from([(1, 20)])), ("slow", Places::from([(1, 15)]))];
        // Nothing was ever read: it waits from now on.
        assert_eq!(lag.behind(&heads, now), [("quick", 0, 0.0), ("slow", 5, 0.0)]);
        assert_eq!(lag.behind(&heads, later)[1], ("slow", 5, 7.0));
        lag.begins(now - Duration::from_mins(1));
        assert_eq!(lag.behind(&heads, now)[1], ("slow", 5, 60.0));
        // Nothing is left of it once the shard is another's.
        lag.stands(&[]);
        assert_eq!(lag.behind(&heads, later)[1], ("slow", 0, 0.0));
        lag.0.lock().projections[1].1 = Places::from([(1, 19)]);
        assert_eq!(lag.behind(&heads, later)[1], ("slow", 1, 0.0));
    }
}
