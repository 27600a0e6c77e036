//! The connection to one node on which hints come in.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Shared;
use super::interest::Order;
use crate::live::Channel;
use crate::redis::{Node, Pause, connection, is_elsewhere};

/// How often the node is asked to tell us something, on a channel of our own.
const BEAT: Duration = Duration::from_secs(1);
/// Nothing heard for this long: hints may not come through.
const SILENCE_MS: u64 = 2_500;
/// Nothing heard for this long: the connection is made anew.
const DEAD_MS: u64 = 5_000;
/// How long the node may take to answer orders.
const PATIENCE: Duration = Duration::from_secs(2);
/// Orders sent at once.
const AT_ONCE: usize = 1_000;

/// One node's link; its task ends with it.
pub(super) struct Link {
    pub(super) node: Arc<Node>,
    /// Where the node tells us that it lives.
    beat: String,
    /// Channels of which something is to be ordered.
    dirty: Mutex<HashSet<Channel>>,
    stirred: Notify,
    broken: Notify,
    /// Told once the node listens for us.
    begun: Notify,
    /// When the last beat came, in milliseconds of our clock; 0 while there is no connection.
    heard_ms: AtomicU64,
    /// Whether there is a connection, though nothing may have come over it yet.
    connected: std::sync::atomic::AtomicBool,
}

impl Link {
    pub(super) fn new(node: Arc<Node>, beat: String) -> Self {
        Self {
            node,
            beat,
            dirty: Mutex::default(),
            stirred: Notify::new(),
            broken: Notify::new(),
            begun: Notify::new(),
            heard_ms: AtomicU64::new(0),
            connected: false.into(),
        }
    }

    /// Something is to be ordered of this channel.
    pub(super) fn stir(&self, channel: Channel) {
        self.dirty.lock().insert(channel);
        self.stirred.notify_one();
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether something came just now.
    pub(super) fn is_up(&self, now_ms: u64) -> bool {
        let heard_ms = self.heard_ms.load(Ordering::Acquire);
        heard_ms > 0 && now_ms.saturating_sub(heard_ms) < SILENCE_MS
    }

    /// Keeps the connection, for ever.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let mut pause = Pause::default();
        loop {
            match connection(self.node.client(), Some(self.receiver(&shared))).await {
                Ok(connection) => {
                    pause = Pause::default();
                    self.connected.store(true, Ordering::Release);
                    tokio::select! {
                        () = self.broken.notified() => {}
                        () = self.follow(&shared, connection) => {}
                        () = self.beat(&shared) => {}
                    }
                    self.connected.store(false, Ordering::Release);
                    self.heard_ms.store(0, Ordering::Release);
                    tracing::debug!("the live bus lost a connection to Redis");
                }
                Err(error) => tracing::debug!(%error, "the live bus cannot reach Redis"),
            }
            sleep(pause.next()).await;
        }
    }

    /// Takes in what the node tells by itself; must not wait.
    fn receiver(self: &Arc<Self>, shared: &Arc<Shared>) -> Arc<dyn AsyncPushSender> {
        let (link, shared) = (Arc::downgrade(self), Arc::downgrade(shared));
        Arc::new(move |push: PushInfo| {
            let (Some(link), Some(shared)) = (link.upgrade(), shared.upgrade()) else { return Err(()) };
            link.told(&shared, push);
            Ok(())
        })
    }

    fn told(&self, shared: &Shared, PushInfo { kind, mut data }: PushInfo) {
        match kind {
            PushKind::Disconnection => self.broken.notify_one(),
            PushKind::SMessage => {
                let (Some(Value::BulkString(payload)), Some(Value::BulkString(name))) = (data.pop(), data.pop()) else {
                    return;
                };
                if name == self.beat.as_bytes() {
                    self.heard(shared);
                } else if let Err(TrySendError::Full(_)) = shared.inbox.try_send(payload) {
                    shared.lost("no room");
                }
            }
            PushKind::SSubscribe | PushKind::SUnsubscribe => {
                let Some(Value::BulkString(name)) = data.first() else { return };
                if name == self.beat.as_bytes() {
                    self.begun.notify_one();
                } else if let Some(channel) = shared.names.channel(name)
                    && !shared.interest.confirm(channel)
                {
                    // The slot moved to another node; from here on nothing on this connection is where it was expected.
                    shared.redis.moved();
                    self.broken.notify_one();
                }
            }
            _ => {}
        }
    }

    fn heard(&self, shared: &Shared) {
        let now_ms = shared.now_ms();
        let before_ms = self.heard_ms.swap(now_ms, Ordering::AcqRel);
        if now_ms.saturating_sub(before_ms) >= SILENCE_MS || before_ms == 0 {
            // What was said meanwhile is lost.
            shared.resumed();
        }
    }

    /// Orders all that is wanted, then what changes.
    async fn follow(&self, shared: &Shared, mut connection: MultiplexedConnection) {
        let mut wanted = shared.interest.start_over(|channel| {
            let name = shared.names.name(channel);
            shared.redis.nodes().of(name.as_bytes()).is_some_and(|node| Arc::ptr_eq(node, &self.node))
        });
        loop {
            for channels in wanted.chunks(AT_ONCE) {
                let mut orders = redis::pipe();
                for channel in channels {
                    if let Some(order) = shared.interest.order(*channel) {
                        orders.add_command(command(order, &shared.names.name(*channel)));
                    }
                }
                if !orders.is_empty() && !self.send(shared, &mut connection, &orders).await {
                    return;
                }
            }
            if self.heard_ms.load(Ordering::Acquire) == 0 {
                let mut orders = redis::pipe();
                orders.add_command(command(Order::Subscribe, &self.beat));
                if !self.send(shared, &mut connection, &orders).await {
                    return;
                }
            }
            self.stirred.notified().await;
            wanted = self.dirty.lock().drain().collect();
        }
    }

    /// Whether all was done; otherwise one begins anew.
    async fn send(&self, shared: &Shared, connection: &mut MultiplexedConnection, orders: &redis::Pipeline) -> bool {
        let sent = timeout(PATIENCE, connection.send_packed_commands(orders, 0, orders.len())).await;
        let Ok(Ok(answers)) = sent else { return false };
        if answers.iter().any(is_elsewhere) {
            shared.redis.moved();
        }
        !answers.iter().any(|answer| matches!(answer, Value::ServerError(_)))
    }

    /// Has the node tell us that hints come through; ends once they do not.
    async fn beat(&self, shared: &Shared) {
        let mut publish = redis::cmd("SPUBLISH");
        publish.arg(&self.beat).arg("");
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_since_ms = shared.now_ms();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.begun.notified() => {}
            }
            silent_since_ms = silent_since_ms.max(self.heard_ms.load(Ordering::Acquire));
            if shared.now_ms().saturating_sub(silent_since_ms) > DEAD_MS {
                return;
            }
            // That it failed shows in nothing being heard.
            let _ = self.node.ask::<Value>(&publish, BEAT).await;
        }
    }
}

fn command(order: Order, name: &str) -> Cmd {
    let mut command = redis::cmd(match order {
        Order::Subscribe => "SSUBSCRIBE",
        Order::Unsubscribe => "SUNSUBSCRIBE",
    });
    command.arg(name);
    command
}
