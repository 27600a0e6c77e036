//! How the relay stands, for those who ask after its health.

use std::sync::Arc;

use parking_lot::RwLock;
use schemas::Position;
use time::OffsetDateTime;

/// Why a shard stands still, until somebody sees to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stall {
    /// Its next event is not known to this version of the program.
    #[error("its next event cannot be translated")]
    Untranslatable,
    /// The log lacks its next event.
    #[error("the log lacks its next event")]
    Incomplete,
    /// It ends on the bus with a record that is not the log's.
    #[error("its last record is not the log's")]
    Foreign,
}

impl Stall {
    pub(crate) const ALL: [Self; 3] = [Self::Untranslatable, Self::Incomplete, Self::Foreign];

    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Untranslatable => "untranslatable",
            Self::Incomplete => "incomplete",
            Self::Foreign => "foreign",
        }
    }
}

/// How the relay stands at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Shards that this process leads.
    pub led: usize,
    /// Events of those that are committed and not published.
    pub lag: u64,
    /// Shards of those that stand still, each with the last position published, and why.
    pub stalled: Vec<(Position, Stall)>,
    /// Since when the bus has failed for some of them; `None` while it does not.
    pub bus_failing_since: Option<OffsetDateTime>,
}

/// Tells how a relay stands, as long as it runs.
#[derive(Clone, Debug, Default)]
pub struct RelayStatus(Arc<RwLock<Standing>>);

impl RelayStatus {
    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.0.read().clone()
    }

    /// The same in words: well, or what is wrong.
    pub fn check(&self) -> Result<String, String> {
        let standing = self.standing();
        let mut wrong = Vec::new();
        if let Some((place, stall)) = standing.stalled.first() {
            let (topic, shard, after) = (place.topic.name(), place.shard, place.position);
            let more = match standing.stalled.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            wrong.push(format!("shard {topic}/{shard} stands still after {after}: {stall}{more}"));
        }
        if let Some(since) = standing.bus_failing_since {
            let seconds = (OffsetDateTime::now_utc() - since).whole_seconds().max(0);
            wrong.push(format!("nothing can be published for {seconds} s, {} events wait", standing.lag));
        }
        if wrong.is_empty() {
            Ok(format!("relays {} shards, {} events behind", standing.led, standing.lag))
        } else {
            Err(wrong.join("; "))
        }
    }

    pub(crate) fn set(&self, standing: Standing) {
        let mut old = self.0.write();
        if *old == standing {
            return;
        }
        metrics::gauge!("parlance_relay_led_shards").set(float(standing.led as u64));
        metrics::gauge!("parlance_relay_lag_positions").set(float(standing.lag));
        for stall in Stall::ALL {
            let count = standing.stalled.iter().filter(|(_, why)| *why == stall).count();
            metrics::gauge!("parlance_relay_stalled_shards", "reason" => stall.label()).set(float(count as u64));
        }
        *old = standing;
    }
}

/// As Prometheus counts.
fn float(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
mod tests {
    use schemas::Topic;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let status = RelayStatus::default();
        status.set(Standing { led: 8, lag: 3, ..Standing::default() });
        assert_eq!(status.check().unwrap(), "relays 8 shards, 3 events behind");
        let place = |shard| Position { topic: Topic::Users, shard, position: 7 };
        status.set(Standing {
            stalled: vec![(place(1), Stall::Foreign), (place(2), Stall::Incomplete)],
            ..Standing::default()
        });
        assert_eq!(
            status.check().unwrap_err(),
            "shard parlance.users.v1/1 stands still after 7: its last record is not the log's, and 1 more"
        );
        let now = OffsetDateTime::now_utc();
        status.set(Standing { lag: 5, bus_failing_since: Some(now), ..Standing::default() });
        assert!(status.check().unwrap_err().ends_with("s, 5 events wait"));
    }
}
