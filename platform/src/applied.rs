//! How far the live read models have applied the log, for those who wait until they have.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use schemas::{Position, PositionToken, Topic};
use tokio::sync::Notify;

/// The positions that this process knows to be applied; cheap to clone.
///
/// They only grow, and lag behind the truth at most: the projectors' runner posts them after its commits; a process
/// without projectors posts what it reads from the checkpoints.
#[derive(Clone, Default)]
pub struct AppliedPositions {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    positions: RwLock<HashMap<(Topic, u16), u64>>,
    moved: Notify,
}

impl AppliedPositions {
    /// The last position applied in a shard; 0 before the first.
    pub fn get(&self, topic: Topic, shard: u16) -> u64 {
        self.shared.positions.read().get(&(topic, shard)).copied().unwrap_or(0)
    }

    /// The last positions applied in all shards of a topic, by shard, without those where nothing was applied yet.
    pub fn all(&self, topic: Topic) -> PositionToken {
        let known = self.shared.positions.read();
        let mut places: Vec<_> = known
            .iter()
            .filter(|((of, _), position)| *of == topic && **position > 0)
            .map(|(&(topic, shard), &position)| Position { topic, shard, position })
            .collect();
        places.sort_unstable();
        places.into_iter().collect()
    }

    /// Makes known that all up to these positions is applied.
    pub fn post(&self, positions: impl IntoIterator<Item = Position>) {
        {
            let mut known = self.shared.positions.write();
            for place in positions {
                let position = known.entry((place.topic, place.shard)).or_default();
                *position = place.position.max(*position);
            }
        }
        self.shared.moved.notify_waiters();
    }

    /// Waits until all of `places` are applied; `false` if they are not within `bound`.
    pub async fn reached(&self, places: &[Position], bound: Duration) -> bool {
        let reached = async {
            loop {
                // Listening begins before the look, so that no move between the two is missed.
                let moved = self.shared.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if places.iter().all(|place| self.get(place.topic, place.shard) >= place.position) {
                    return;
                }
                moved.await;
            }
        };
        tokio::time::timeout(bound, reached).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Position {
        Position { topic: Topic::Conversations, shard: 3, position }
    }

    #[tokio::test]
    async fn waits_until_it_is_applied_and_never_goes_back() {
        let applied = AppliedPositions::default();
        assert!(!applied.reached(&[at(2)], Duration::ZERO).await);
        let waiting = tokio::spawn({
            let applied = applied.clone();
            async move { applied.reached(&[at(2)], Duration::from_secs(10)).await }
        });
        applied.post([at(1)]);
        applied.post([at(2)]);
        assert!(waiting.await.unwrap());
        applied.post([at(1)]);
        assert_eq!(applied.get(Topic::Conversations, 3), 2);
        assert_eq!(applied.all(Topic::Conversations).places(), [at(2)]);
        assert!(applied.all(Topic::Users).places().is_empty());
    }
}
