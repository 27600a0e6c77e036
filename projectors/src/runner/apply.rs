//! One batch: all projections of a topic and their checkpoints, in one transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use platform::traces::{KeyValue, Kind, Traced};
use schemas::{Record, Topic};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Interruption, Runner};
use crate::careful::{self, Parked};
use crate::checkpoints::{self, Move, Places};
use crate::projection::{ApplyError, Consumer, Projection};

/// One projection in a runner.
pub(super) struct Running {
    projection: &'static dyn Projection,
    pub(super) name: &'static str,
    /// How far it has applied each shard.
    pub(super) applied: Places,
    /// The keys it has put aside.
    parked: HashSet<Uuid>,
}

enum Outcome {
    Applied,
    /// Some record cannot be applied, and nothing was.
    Poisoned,
}

impl Runner {
    /// Applies a batch, and what cannot be applied is put aside.
    pub(super) async fn apply(
        &self,
        connection: &mut PgConnection,
        running: &mut [Running],
        batch: &[Arc<Record>],
    ) -> Result<(), Interruption> {
        match self.transact(connection, running, batch, false).await {
            // Found only by looking closer, in a transaction that has not failed yet.
            Ok(Outcome::Poisoned) => self.transact(connection, running, batch, true).await.map(|_| ()),
            outcome => outcome.map(|_| ()),
        }
    }

    async fn transact(
        &self,
        connection: &mut PgConnection,
        running: &mut [Running],
        batch: &[Arc<Record>],
        closely: bool,
    ) -> Result<Outcome, Interruption> {
        let reached: Places = batch.iter().map(|record| (record.shard, record.position)).collect();
        if !self.holds(&reached) {
            return Err(Interruption::Lost);
        }
        let mut transaction = connection.begin().await?;
        // The checkpoints first: whoever rebuilds holds them, and nothing else may be held while waiting for them.
        let moves: Vec<Move> = running.iter().flat_map(|one| one.moves(&reached)).collect();
        if !checkpoints::advance(&mut transaction, self.topic, &moves).await? {
            transaction.rollback().await?;
            return Err(Interruption::Fenced);
        }
        let traced = Traced::all(batch);
        let mut times = Vec::new();
        for one in running.iter_mut() {
            let from = SystemTime::now();
            let parked = match one.apply(&mut transaction, batch, closely).await {
                Ok(parked) => parked,
                Err(ApplyError::Poison(_)) if !closely => {
                    transaction.rollback().await?;
                    return Ok(Outcome::Poisoned);
                }
                Err(error) => return Err(error.into()),
            };
            careful::save(&mut transaction, one.name, &parked).await?;
            if !traced.is_empty() {
                times.push((from, SystemTime::now()));
            }
        }
        // Fenced it would be in any case; but whoever follows should not have to wait.
        if !self.holds(&reached) {
            transaction.rollback().await?;
            return Err(Interruption::Lost);
        }
        transaction.commit().await?;
        for (one, times) in running.iter().zip(times) {
            one.tell(self.consumer, &traced, times);
        }
        for one in running {
            for (shard, applied) in &mut one.applied {
                *applied = reached.get(shard).copied().unwrap_or(0).max(*applied);
            }
        }
        Ok(Outcome::Applied)
    }

    fn holds(&self, reached: &Places) -> bool {
        let held = self.shared.held.borrow();
        reached.keys().all(|shard| held.has(self.topic, *shard))
    }
}

impl Running {
    /// The projections of a consumer and a topic, where they stand in these shards.
    pub(super) async fn load(
        connection: &mut PgConnection,
        consumer: Consumer,
        projections: &[&'static dyn Projection],
        topic: Topic,
        shards: &[u16],
    ) -> Result<Vec<Self>, sqlx::Error> {
        let names: Vec<_> = projections.iter().map(|projection| projection.describe().name).collect();
        let mut places = checkpoints::load(connection, consumer, &names, topic, shards).await?;
        let mut running = Vec::with_capacity(names.len());
        for (&projection, name) in projections.iter().zip(names) {
            let applied = places.remove(name).unwrap_or_default();
            let parked = careful::load(connection, name).await?;
            running.push(Self { projection, name, applied, parked });
        }
        Ok(running)
    }

    /// Tells those who look that it applied these, before it notes how far it is.
    fn tell(&self, consumer: Consumer, traced: &[Traced], times: (SystemTime, SystemTime)) {
        for record in traced.iter().filter(|record| self.is_new(record.place().shard, record.place().position)) {
            let group = KeyValue::new("messaging.consumer.group.name", consumer.name());
            record.passed(Kind::Consumer, "apply", self.name, times, vec![group]);
        }
    }

    fn is_new(&self, shard: u16, position: u64) -> bool {
        self.applied.get(&shard).is_some_and(|at| position > *at)
    }

    fn moves(&self, reached: &Places) -> impl Iterator<Item = Move> {
        let ahead = self.applied.iter().filter_map(|(shard, from)| {
            let to = *reached.get(shard)?;
            (to > *from).then_some((*shard, *from, to))
        });
        ahead.map(|(shard, from, to)| Move { projection: self.name, shard, from, to })
    }

    async fn apply(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Arc<Record>],
        closely: bool,
    ) -> Result<Vec<Parked>, ApplyError> {
        if !closely && self.parked.is_empty() && batch.iter().all(|record| self.is_new(record.shard, record.position)) {
            careful::apply(connection, self.projection, batch).await?;
            return Ok(Vec::new());
        }
        if !self.parked.is_empty() {
            // A rebuild may have found a place for some of them, and left the checkpoints where they were.
            self.parked = careful::load(connection, self.name).await?;
        }
        let new: Vec<_> = batch.iter().filter(|record| self.is_new(record.shard, record.position)).cloned().collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        careful::apply_rest(connection, self.projection, new, &mut self.parked).await
    }
}

/// What all of them have applied of each shard.
pub(super) fn least(running: &[Running]) -> Places {
    let mut least = Places::new();
    for (&shard, &applied) in running.iter().flat_map(|one| &one.applied) {
        least.entry(shard).and_modify(|position| *position = applied.min(*position)).or_insert(applied);
    }
    least
}
