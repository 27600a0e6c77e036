//! Fan-out: tells the gateways at once what happened to whom, and marks what moved for those who keep answers.
//!
//! It keeps no checkpoint, and loses what it holds when it ends: a hint only tells a gateway sooner what it would find
//! out anyway, and a mark proves to others that they need not ask. Of a shard that it takes over it tells again what the
//! one before may not have told: gateways drop what they have.

mod members;
mod route;

use std::sync::Arc;
use std::time::SystemTime;

use platform::bus::{Bus, BusError, Subscription};
use platform::cache::Marks;
use platform::leases::Held;
use platform::live::LiveBus;
use platform::traces::{Kind, Traced};
use schemas::{Record, Topic};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::checkpoints::{self, Places};
use crate::runner::Shared;
use members::Members;
use route::route;

const MAX: usize = 1000;
/// How much of what is applied already is told again of a shard that was taken over: projections and hints of one
/// process are never far apart.
const REPEATED: u64 = 500;
/// How far behind the bus a hint may be; who was not told of what is older has found out by now.
const RECENT: u64 = 2000;

/// Fan-out of one topic.
pub(crate) struct FanOut {
    pool: PgPool,
    bus: Arc<dyn Bus>,
    live: Arc<dyn LiveBus>,
    /// Where it marks what moved, for those who keep answers.
    marks: Option<Marks>,
    topic: Topic,
    /// The shards to tell of, as they change; `None` for all.
    held: Option<watch::Receiver<Held>>,
    /// How many there are.
    shards: u16,
    members: Members,
    /// Up to where each shard was told.
    told: Places,
}

impl FanOut {
    pub(crate) fn new(shared: &Shared, live: Arc<dyn LiveBus>, marks: Option<Marks>, topic: Topic) -> Self {
        // Where members are addressed, hints reach all processes, and one has to tell. Else they reach this one alone.
        let everywhere = live.addresses_members();
        Self {
            pool: shared.pool.clone(),
            bus: Arc::clone(&shared.bus),
            members: Members::new(shared.pool.clone(), everywhere),
            held: everywhere.then(|| shared.held.clone()),
            shards: shared.shards,
            live,
            marks,
            topic,
            told: Places::new(),
        }
    }

    /// Tells what is published, until `shutdown`, or until nobody gives out shards any more.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep_on() => {}
        }
    }

    async fn keep_on(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let followed = match self.subscribe().await {
                Ok(Some(subscription)) => self.follow(subscription, &mut backoff).await,
                Ok(None) => Ok(self.moved().await),
                Err(error) => Err(error),
            };
            match followed {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let topic = self.topic.name();
                    tracing::warn!(topic, error = &error as &dyn std::error::Error, "fan-out waits, and tries again");
                    sleep(backoff.failed()).await;
                }
            }
        }
    }

    /// Of the shards that are held, from where each was told last; of none, if none is held.
    async fn subscribe(&mut self) -> Result<Option<Box<dyn Subscription>>, BusError> {
        let (shards, repeated): (Vec<u16>, u64) = match &mut self.held {
            Some(held) => (held.borrow_and_update().shards(self.topic).collect(), REPEATED),
            // Nobody has listened to this process yet.
            None => ((0..self.shards).collect(), 0),
        };
        if shards.is_empty() {
            self.told.clear();
            return Ok(None);
        }
        let heads: Places = self.bus.heads(self.topic).await?.into_iter().collect();
        let is_new = |shard| !self.told.contains_key(shard);
        let applied = if shards.iter().any(is_new) { self.applied().await } else { Places::new() };
        let position = |places: &Places, shard| places.get(&shard).copied().unwrap_or(0);
        let begin = |shard| {
            let told = self.told.get(&shard).copied();
            let told = told.unwrap_or_else(|| position(&applied, shard).saturating_sub(repeated));
            position(&heads, shard).saturating_sub(RECENT).max(told)
        };
        self.told = shards.into_iter().map(|shard| (shard, begin(shard))).collect();
        let after: Vec<(u16, u64)> = self.told.iter().map(|(shard, position)| (*shard, *position)).collect();
        self.bus.subscribe(self.topic, &after).await.map(Some)
    }

    /// How far the projections have got.
    async fn applied(&self) -> Places {
        match checkpoints::least(&self.pool, self.topic).await {
            Ok(places) => places,
            Err(error) => {
                let (topic, error): (_, &dyn std::error::Error) = (self.topic.name(), &error);
                tracing::warn!(topic, error, "the checkpoints cannot be read: fan-out tells all that is recent");
                Places::new()
            }
        }
    }

    /// Tells what comes; `true` once other shards are held, `false` at the end.
    async fn follow(
        &mut self,
        mut subscription: Box<dyn Subscription>,
        backoff: &mut Backoff,
    ) -> Result<bool, BusError> {
        loop {
            let mut records = tokio::select! {
                goes_on = self.moved() => return Ok(goes_on),
                records = subscription.next(MAX) => records?,
            };
            backoff.succeeded();
            records.retain(|record| {
                let told = self.told.get_mut(&record.shard).filter(|told| record.position > **told);
                told.map(|told| *told = record.position).is_some()
            });
            let (traced, began) = (Traced::all(&records), SystemTime::now());
            self.members.prepare(&records).await;
            let mut hints = Vec::with_capacity(records.len());
            for record in &records {
                route(record, &mut self.members, &mut hints);
            }
            metrics::counter!("parlance_fan_out_hints_total").increment(hints.len() as u64);
            // Side by side, marks first: whoever is told, and asks at once, finds them.
            tokio::join!(biased; self.mark(&records), self.live.publish(hints));
            for record in traced {
                record.done(Kind::Producer, "fan-out", "", began, Vec::new());
            }
        }
    }

    async fn mark(&self, records: &[Arc<Record>]) {
        if let Some(marks) = &self.marks {
            marks.set(records).await;
        }
    }

    /// Waits until other shards are held; `false` once nobody gives them out.
    async fn moved(&mut self) -> bool {
        let Some(held) = &mut self.held else { return std::future::pending().await };
        loop {
            if held.changed().await.is_err() {
                return false;
            }
            if !held.borrow_and_update().shards(self.topic).eq(self.told.keys().copied()) {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
