//! One node of Redis, and the connection to it, which is made anew whenever it breaks.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rand::RngExt;
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::RedisError;
use super::slots::Address;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a connection is tried.
const BEAT: Duration = Duration::from_secs(1);
/// How long it may take to answer then.
const PATIENCE: Duration = Duration::from_millis(750);
/// So many commands in a row without an answer in time are taken for a node that is away.
const STRIKES: u32 = 8;
/// The pause before a connection is tried again grows from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Commands under way on one connection; more wait, and each no longer than its bound.
const AT_ONCE: usize = 1_024;

/// A node; dropping it ends its connection.
pub(crate) struct Node {
    pub(crate) address: Address,
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    client: Client,
    shown: String,
    connection: RwLock<Option<MultiplexedConnection>>,
    /// Whether there is one; `None` until the first was tried.
    stands: watch::Sender<Option<bool>>,
    /// Commands in a row that were not answered in time.
    strikes: AtomicU32,
    broken: tokio::sync::Notify,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How to greet the node at an address.
pub(crate) fn at(greeting: &ConnectionInfo, address: &Address) -> ConnectionInfo {
    greeting.clone().set_addr(ConnectionAddr::Tcp(address.0.clone(), address.1))
}

/// Connects, within a bound.
pub(crate) async fn connection(
    client: &Client,
    pushed: Option<Arc<dyn AsyncPushSender>>,
) -> Result<MultiplexedConnection, RedisError> {
    // Bounds are set by whoever asks.
    let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    if let Some(pushed) = pushed {
        config = config.set_push_sender(pushed);
    } else {
        config = config.set_concurrency_limit(AT_ONCE);
    }
    match timeout(CONNECT, client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(made) => made.map_err(RedisError::Refused),
        Err(_) => Err(RedisError::Slow(CONNECT)),
    }
}

/// A pause that grows, and differs from one to the next.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    /// The next one.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_PAUSE);
        pause.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

impl Node {
    /// The node at an address, which is connected to from now on.
    pub(crate) fn new(greeting: &ConnectionInfo, address: &Address) -> Result<Self, redis::RedisError> {
        let stop = CancellationToken::new();
        let state = Arc::new(State {
            client: Client::open(at(greeting, address))?,
            shown: format!("{}:{}", address.0, address.1),
            connection: RwLock::new(None),
            stands: watch::Sender::new(None),
            strikes: AtomicU32::new(0),
            broken: tokio::sync::Notify::new(),
        });
        let (kept, stopped) = (state.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = keep(&kept) => {}
            }
        });
        Ok(Self { address: address.clone(), state, _stop: stop.drop_guard() })
    }

    /// How to connect to it.
    pub(crate) fn client(&self) -> &Client {
        &self.state.client
    }

    /// Waits until the first connection stands or failed.
    pub(crate) async fn settled(&self, bound: Duration) {
        let mut stands = self.state.stands.subscribe();
        let _ = timeout(bound, stands.wait_for(Option::is_some)).await;
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd, bound: Duration) -> Result<T, RedisError> {
        let mut connection = self.connection()?;
        self.state.judge(bound, timeout(bound, command.query_async(&mut connection)).await)
    }

    pub(crate) async fn ask_all(&self, commands: &Pipeline, bound: Duration) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connection()?;
        let count = commands.len();
        self.state.judge(bound, timeout(bound, connection.send_packed_commands(commands, 0, count)).await)
    }

    fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        self.state.connection.read().clone().ok_or(RedisError::Away)
    }
}

impl State {
    /// Sees by an answer whether the connection still stands.
    fn judge<T>(
        &self,
        bound: Duration,
        answer: Result<redis::RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, RedisError> {
        let Ok(answer) = answer else {
            if self.strikes.fetch_add(1, Ordering::Relaxed) + 1 >= STRIKES {
                self.give_up();
            }
            return Err(RedisError::Slow(bound));
        };
        self.strikes.store(0, Ordering::Relaxed);
        answer.map_err(|error| {
            if error.is_unrecoverable_error() {
                self.give_up();
                return RedisError::Away;
            }
            RedisError::Refused(error)
        })
    }

    /// Nobody waits for this connection any more.
    fn give_up(&self) {
        if self.connection.write().take().is_some() {
            self.broken.notify_one();
        }
    }

    /// Until the connection does not answer any more.
    async fn watch(&self, mut connection: MultiplexedConnection) {
        loop {
            tokio::select! {
                () = self.broken.notified() => return,
                () = sleep(BEAT) => {}
            }
            let ping = redis::cmd("PING");
            match timeout(PATIENCE, ping.query_async::<()>(&mut connection)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }
}

/// Keeps a connection, for ever.
async fn keep(state: &State) {
    let mut pause = Pause::default();
    let mut told = false;
    loop {
        match connection(&state.client, None).await {
            Ok(connection) => {
                if std::mem::take(&mut told) {
                    tracing::info!(node = state.shown, "Redis at {} is back", state.shown);
                }
                pause = Pause::default();
                state.strikes.store(0, Ordering::Relaxed);
                *state.connection.write() = Some(connection.clone());
                state.stands.send_replace(Some(true));
                state.watch(connection).await;
                *state.connection.write() = None;
                state.stands.send_replace(Some(false));
                metrics::counter!("parlance_redis_connections_lost_total").increment(1);
            }
            Err(error) => {
                state.stands.send_replace(Some(false));
                if !std::mem::replace(&mut told, true) {
                    let error: &dyn Error = &error;
                    tracing::warn!(node = state.shown, error, "Redis at {} is away", state.shown);
                }
            }
        }
        sleep(pause.next()).await;
    }
}
