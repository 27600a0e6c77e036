//! The live bus of several processes: sharded channels of Redis, one for each user and one for each wide conversation.

mod devices;
mod interest;
mod link;
mod names;
mod publish;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use lru::LruCache;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::devices::Devices;
use self::interest::Interest;
use self::link::Link;
use self::names::Names;
use self::wire::{Identity, Said};
use super::{Channel, Connected, Device, Hint, LiveBus, LiveSink};
use crate::redis::{Nodes, Redis};

/// What came in and waits to be handed on, at most.
const INBOX: usize = 16_384;
/// So much of it is handed on at once.
const BATCH: usize = 512;
/// The hints that are remembered, so that one that comes by several channels is handed on once.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).expect("more than none");
/// How long is waited until Redis confirms that it listens for us.
const CONFIRM: Duration = Duration::from_secs(1);

/// Tells and hears hints by Redis.
pub struct RedisLive {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    redis: Redis,
    names: Names,
    devices: Devices,
    interest: Interest,
    links: RwLock<Arc<[Arc<Link>]>>,
    /// What came in and is to be handed on.
    inbox: mpsc::Sender<Vec<u8>>,
    sinks: RwLock<Vec<Arc<dyn LiveSink>>>,
    /// How often hints were lost.
    outages: AtomicU64,
    epoch: Instant,
}

impl Shared {
    /// Since this began; never 0.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Hints come through again.
    fn resumed(&self) {
        self.outages.fetch_add(1, Ordering::AcqRel);
    }

    fn lost(&self, reason: &'static str) {
        metrics::counter!("parlance_live_lost_total", "reason" => reason).increment(1);
        self.outages.fetch_add(1, Ordering::AcqRel);
    }

    fn link(&self, nodes: &Nodes, channel: Channel) -> Option<Arc<Link>> {
        let node = nodes.of(self.names.name(channel).as_bytes())?;
        self.links.read().iter().find(|link| Arc::ptr_eq(&link.node, node)).cloned()
    }

    /// Something is to be ordered of a channel; answers whether there is anybody to order it of just now.
    fn stir(&self, channel: Channel) -> bool {
        let Some(link) = self.link(&self.redis.nodes(), channel) else { return false };
        link.stir(channel);
        link.is_connected()
    }

    fn is_up(&self) -> bool {
        let now_ms = self.now_ms();
        let links = self.links.read();
        !links.is_empty() && links.iter().all(|link| link.is_up(now_ms))
    }
}

impl RedisLive {
    /// Listens and tells from now on, until it is dropped.
    pub fn start(redis: Redis) -> Self {
        metrics::describe_counter!("parlance_live_published_total", "Messages given to Redis for gateways.");
        metrics::describe_counter!(
            "parlance_live_dropped_total",
            "Messages for gateways that Redis did not take in time."
        );
        metrics::describe_counter!("parlance_live_received_total", "Messages that came from Redis.");
        metrics::describe_counter!("parlance_live_lost_total", "Messages that came from Redis and were not handed on.");
        let process = Uuid::now_v7();
        let (inbox, received) = mpsc::channel(INBOX);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            names: Names::new(&redis),
            devices: Devices::new(process),
            redis,
            interest: Interest::default(),
            links: RwLock::new(Arc::new([])),
            inbox,
            sinks: RwLock::default(),
            outages: AtomicU64::new(0),
            epoch: Instant::now(),
        });
        spawn(&stop, hand_on(shared.clone(), received));
        let (links, following) = (Links::new(&shared, process), shared.clone());
        spawn(&stop, links.follow(following));
        Self { shared, _stop: stop.drop_guard() }
    }
}

fn spawn(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// The links to the nodes there are.
struct Links {
    process: Uuid,
    changes: watch::Receiver<()>,
    /// Those that run; they end with this.
    running: JoinSet<()>,
}

impl Links {
    fn new(shared: &Arc<Shared>, process: Uuid) -> Self {
        let mut links = Self { process, changes: shared.redis.changes(), running: JoinSet::new() };
        links.begin(shared);
        links
    }

    fn begin(&mut self, shared: &Arc<Shared>) {
        let nodes = shared.redis.nodes();
        let stem = shared.redis.key(&format!("live:beat:{}:", self.process));
        let links: Arc<[Arc<Link>]> = nodes
            .all
            .iter()
            .filter_map(|node| Some(Arc::new(Link::new(node.clone(), nodes.key_on(node, &stem)?))))
            .collect();
        // Whoever wanted something before is found by the new links when they begin.
        *shared.links.write() = links.clone();
        for link in links.iter() {
            self.running.spawn(link.clone().run(shared.clone()));
        }
    }

    /// Makes them anew whenever slots move.
    async fn follow(mut self, shared: Arc<Shared>) {
        while self.changes.changed().await.is_ok() {
            // The old ones end first: what was ordered is known once for all.
            self.running.shutdown().await;
            self.begin(&shared);
            shared.resumed();
        }
    }
}

/// Hands on what came in.
async fn hand_on(shared: Arc<Shared>, mut received: mpsc::Receiver<Vec<u8>>) {
    let mut seen: LruCache<Identity, ()> = LruCache::new(REMEMBERED);
    let mut batch = Vec::with_capacity(BATCH);
    while received.recv_many(&mut batch, BATCH).await > 0 {
        metrics::counter!("parlance_live_received_total").increment(batch.len() as u64);
        let mut hints: Vec<Hint> = Vec::with_capacity(batch.len());
        let sinks = shared.sinks.read().clone();
        for payload in batch.drain(..) {
            match wire::read(&payload) {
                Some(Said::Hint(identity, unread)) if seen.put(identity, ()).is_none() => {
                    hints.extend(unread.read(identity));
                }
                Some(Said::Connected(connected)) => sinks.iter().for_each(|sink| sink.connected(connected)),
                // It came before, or cannot be read here.
                Some(Said::Hint(..)) | None => {}
            }
        }
        for sink in sinks.iter().filter(|_| !hints.is_empty()) {
            sink.deliver(&hints);
        }
    }
}

#[async_trait]
impl LiveBus for RedisLive {
    async fn publish(&self, hints: Vec<Hint>) {
        publish::hints(&self.shared.redis, &self.shared.names, &hints).await;
    }

    async fn connected(&self, connected: Connected) -> bool {
        let Shared { redis, names, devices, .. } = &*self.shared;
        devices.connected(redis, names, connected).await
    }

    async fn disconnected(&self, gone: Connected) {
        self.shared.devices.disconnected(&self.shared.redis, gone).await;
    }

    async fn connected_of(&self, devices: &[Device]) -> Option<HashSet<Device>> {
        self.shared.devices.connected_of(&self.shared.redis, devices).await
    }

    async fn still_connected(&self, devices: &[Connected]) {
        let newer = self.shared.devices.still_connected(&self.shared.redis, devices).await;
        let sinks = self.shared.sinks.read().clone();
        for sink in sinks {
            for connected in &newer {
                sink.connected(*connected);
            }
        }
    }

    fn attach(&self, sink: Arc<dyn LiveSink>) {
        self.shared.sinks.write().push(sink);
    }

    fn listen(&self, channel: Channel) -> BoxFuture<'static, ()> {
        let Some(confirmed) = self.shared.interest.want(channel) else { return ready(()).boxed() };
        if !self.shared.stir(channel) {
            // Nobody would confirm it; the log is looked at once somebody can.
            return ready(()).boxed();
        }
        async move {
            let _ = timeout(CONFIRM, confirmed).await;
        }
        .boxed()
    }

    fn ignore(&self, channel: Channel) {
        if self.shared.interest.release(channel) {
            self.shared.stir(channel);
        }
    }

    fn is_up(&self) -> bool {
        self.shared.is_up()
    }

    fn outages(&self) -> u64 {
        self.shared.outages.load(Ordering::Acquire)
    }

    fn addresses_members(&self) -> bool {
        true
    }
}
