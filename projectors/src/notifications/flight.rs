//! Deliveries under way in this process, and how many more may be begun: in all, for one owner and for one service.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};
use uuid::Uuid;

/// How many may be under way.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) all: usize,
    /// To one webhook, or to one user's browsers.
    pub(super) owner: usize,
}

/// See the module.
pub(super) struct Flight {
    bounds: Bounds,
    tasks: JoinSet<()>,
    places: HashMap<Id, (Uuid, Option<String>)>,
}

impl Flight {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, tasks: JoinSet::new(), places: HashMap::new() }
    }

    /// Begins to send to a place: the owner of a delivery, and its service.
    pub(super) fn begin(&mut self, place: (Uuid, Option<String>), sending: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(sending);
        self.places.insert(handle.id(), place);
    }

    pub(super) fn room(&self) -> usize {
        self.bounds.all.saturating_sub(self.tasks.len())
    }

    pub(super) fn room_for(&self, owner: Uuid) -> usize {
        let to_one = self.places.values().filter(|(other, _)| *other == owner).count();
        self.bounds.owner.saturating_sub(to_one).min(self.room())
    }

    /// How many each owner has under way.
    pub(super) fn owners(&self) -> HashMap<Uuid, usize> {
        let mut counts = HashMap::new();
        for (owner, _) in self.places.values() {
            *counts.entry(*owner).or_default() += 1;
        }
        counts
    }

    /// How many are under way to each service.
    pub(super) fn services(&self) -> HashMap<&str, usize> {
        let mut counts = HashMap::new();
        for service in self.places.values().filter_map(|(_, service)| service.as_deref()) {
            *counts.entry(service).or_default() += 1;
        }
        counts
    }

    /// Waits until one has ended, and takes note of all that have; for ever while none is under way.
    pub(super) async fn landed(&mut self) {
        let Some(first) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let mut ended = Some(first);
        while let Some(result) = ended {
            let id = result.map_or_else(|error| error.id(), |(id, ())| id);
            self.places.remove(&id);
            ended = self.tasks.try_join_next_with_id();
        }
    }

    pub(super) async fn land(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
