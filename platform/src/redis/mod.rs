//! Redis, a server or a cluster: nothing lives only there but what may be lost.
//!
//! Every command has a short bound. While a node is away nobody waits for it: what is asked of it fails at once, until a
//! connection stands again.

mod connect;
mod node;
mod slots;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::RwLock;
use redis::{Cmd, ConnectionInfo, FromRedisValue, Pipeline, ServerErrorKind, Value};
use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use connect::ConnectError;
pub(crate) use connect::parse_urls;
pub(crate) use node::{Node, Pause, connection};
pub(crate) use slots::Slots;

/// How long a cluster may have moved slots without anybody noticing by an answer.
const LOOK: Duration = Duration::from_secs(10);
/// The least time between two looks at who holds which slots.
const BREATH: Duration = Duration::from_millis(500);
/// How long a node may take to answer a health check.
const CHECK: Duration = Duration::from_millis(1_200);

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// There is no connection at this moment.
    #[error("Redis is away")]
    Away,
    /// It did not answer in time.
    #[error("Redis did not answer within {} ms", .0.as_millis())]
    Slow(Duration),
    /// It answered, but not with what was asked for.
    #[error("Redis refused")]
    Refused(#[source] redis::RedisError),
}

/// What the process knows of Redis; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    /// How to greet a node; its address is replaced by the node's.
    greeting: ConnectionInfo,
    /// Who is asked for the nodes when no known one answers.
    seeds: Vec<ConnectionInfo>,
    prefix: Box<str>,
    nodes: RwLock<Arc<Nodes>>,
    /// Moves with every change of `nodes`.
    changed: watch::Sender<()>,
    /// Told when slots may have moved.
    stale: Notify,
    _stop: DropGuard,
}

/// The nodes, and which of them has which slots.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Arc<Node>>,
    slots: Slots,
}

impl Nodes {
    /// The node that holds a key or a channel, if one does.
    pub(crate) fn of(&self, key: &[u8]) -> Option<&Arc<Node>> {
        self.all.get(self.place_of(key)?)
    }

    /// Where that one stands among all.
    pub(crate) fn place_of(&self, key: &[u8]) -> Option<usize> {
        self.slots.node(key).filter(|place| *place < self.all.len())
    }

    /// A key of `stem` that this node holds.
    pub(crate) fn key_on(&self, node: &Arc<Node>, stem: &str) -> Option<String> {
        (0..u16::MAX)
            .map(|number| format!("{stem}{number}"))
            .find(|key| self.of(key.as_bytes()).is_some_and(|other| Arc::ptr_eq(other, node)))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("nodes", &self.nodes().all.len()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects to a server, or to a cluster of which some nodes are named, separated by commas; one that is away is
    /// waited for, for a minute.
    pub async fn connect(urls: &SecretString) -> Result<Self, ConnectError> {
        Self::connect_within(urls, connect::START_WAIT, "").await
    }

    /// As [`Redis::connect`], waiting this long at most, all keys and channels apart from those of others by a prefix.
    pub async fn connect_within(urls: &SecretString, wait: Duration, prefix: &str) -> Result<Self, ConnectError> {
        let seeds = parse_urls(urls)?;
        let found = connect::first_look(&seeds, wait).await?;
        let stop = CancellationToken::new();
        let nodes = Arc::new(found.nodes(&seeds[0], &[]));
        // The first commands find a connection, where there is one.
        for node in &nodes.all {
            node.settled(BREATH).await;
        }
        let clustered = found.is_cluster();
        let inner = Arc::new(Inner {
            greeting: seeds[0].clone(),
            seeds,
            prefix: format!("parlance:{prefix}").into(),
            nodes: RwLock::new(nodes),
            changed: watch::Sender::new(()),
            stale: Notify::new(),
            _stop: stop.clone().drop_guard(),
        });
        if clustered {
            tokio::spawn(follow(Arc::downgrade(&inner), stop));
        }
        Ok(Self { inner })
    }

    /// A key, or a channel, of ours. What has to be in one slot shares what stands in braces.
    pub fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.inner.prefix)
    }

    pub(crate) fn nodes(&self) -> Arc<Nodes> {
        self.inner.nodes.read().clone()
    }

    /// Told whenever other nodes have the slots.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.inner.changed.subscribe()
    }

    /// Says that slots may have moved.
    pub(crate) fn moved(&self) {
        self.inner.stale.notify_one();
    }

    /// Carries out a command about `key`, within `bound`.
    pub async fn ask<T: FromRedisValue>(&self, key: &str, command: &Cmd, bound: Duration) -> Result<T, RedisError> {
        let node = self.nodes().of(key.as_bytes()).cloned().ok_or(RedisError::Away)?;
        let answer = node.ask(command, bound).await;
        self.looked_at(answer)
    }

    /// Carries out commands that all concern what is on one node, within `bound`; each has its own answer.
    pub(crate) async fn ask_all(
        &self,
        node: &Node,
        commands: &Pipeline,
        bound: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let answers = self.looked_at(node.ask_all(commands, bound).await)?;
        if answers.iter().any(is_elsewhere) {
            self.moved();
        }
        Ok(answers)
    }

    fn looked_at<T>(&self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        match &answer {
            // Another node may have its slots by now.
            Err(RedisError::Away) => self.moved(),
            Err(RedisError::Refused(error)) if error.redirect_node().is_some() => self.moved(),
            _ => {}
        }
        answer
    }

    /// Whether Redis answers, for the health check; in under 1.5 s.
    pub async fn check(&self) -> Result<String, String> {
        let nodes = self.nodes();
        let asked = nodes.all.iter().map(|node| async { node.ask::<Value>(&redis::cmd("PING"), CHECK).await.is_ok() });
        let answers = join_all(asked).await;
        let well = answers.iter().filter(|well| **well).count();
        match (well, answers.len()) {
            (1, 1) => Ok("answers".to_owned()),
            (_, 1) => Err("does not answer".to_owned()),
            (well, all) if well == all && nodes.slots.are_whole() => Ok(format!("all {all} nodes answer")),
            (well, all) => Err(format!("{well} of {all} nodes answer")),
        }
    }
}

/// Whether an answer says that another node has the slot.
pub(crate) fn is_elsewhere(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if matches!(error.kind(), Some(ServerErrorKind::Moved | ServerErrorKind::Ask)))
}

/// Follows who holds which slots.
async fn follow(redis: Weak<Inner>, stop: CancellationToken) {
    loop {
        let Some(inner) = redis.upgrade() else { return };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timeout(LOOK, inner.stale.notified()) => {}
        }
        let before = inner.nodes.read().clone();
        if let Some(found) = connect::look(&before.all, &inner.seeds).await
            && found.slots() != before.slots
        {
            tracing::info!("the slots of the Redis cluster moved");
            let nodes = found.nodes(&inner.greeting, &before.all);
            *inner.nodes.write() = Arc::new(nodes);
            inner.changed.send_replace(());
        }
        drop((inner, before));
        sleep(BREATH).await;
    }
}
