//! Connecting: an engine that is away at the start is waited for, one that refuses us is not.

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};

use super::node::{self, Node};
use super::slots::{Address, Slots};
use super::{Nodes, RedisError};

/// How long an engine that is away at the start is waited for.
pub(super) const START_WAIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(200);
/// How long a node may take to say who holds which slots.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no connection. No text here holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URLs cannot be read.
    #[error("REDIS_URL is not a URL such as redis://user:password@host:6379, or several separated by commas")]
    Url,
    /// Several nodes are named that are no cluster.
    #[error("REDIS_URL names several servers, but Redis at {server} belongs to no cluster")]
    NoCluster {
        /// Host and port.
        server: String,
    },
    /// The engine answered, and what it said will not change by waiting.
    #[error("Redis at {server} refuses the connection")]
    Refused {
        /// Host and port.
        server: String,
        /// What the engine said.
        source: RedisError,
    },
    /// Nothing answered for as long as one may wait.
    #[error("Redis at {server} was not reachable within {} s", waited.as_secs())]
    Away {
        /// Host and port.
        server: String,
        /// How long it was waited for.
        waited: Duration,
        /// The last failure.
        source: RedisError,
    },
}

/// Reads the URLs; the error does not repeat them, for they may hold a password.
pub(crate) fn parse_urls(urls: &SecretString) -> Result<Vec<ConnectionInfo>, ConnectError> {
    let parse = |url: &str| {
        let info = url.into_connection_info().map_err(|_| ConnectError::Url)?;
        if !matches!(info.addr(), ConnectionAddr::Tcp(..)) {
            return Err(ConnectError::Url);
        }
        // What is published comes beside the answers.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(info.set_redis_settings(settings))
    };
    urls.expose_secret().split(',').map(str::trim).map(parse).collect()
}

/// What a node told about all.
pub(super) enum Found {
    /// It is alone.
    Alone(Address),
    /// The ranges of the cluster, and who has them.
    Cluster(Vec<(u16, u16, Address)>),
}

impl Found {
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(super) fn slots(&self) -> Slots {
        match self {
            Self::Alone(address) => Slots::One(address.clone()),
            Self::Cluster(told) => Slots::spread(told.clone()),
        }
    }

    /// The nodes, those known before with the connections that they have.
    pub(super) fn nodes(&self, greeting: &ConnectionInfo, known: &[Arc<Node>]) -> Nodes {
        let slots = self.slots();
        let node = |address: &Address| match known.iter().find(|node| node.address == *address) {
            Some(node) => node.clone(),
            None => Arc::new(Node::new(greeting, address).expect("a TCP address is an address")),
        };
        Nodes { all: slots.addresses().iter().map(node).collect(), slots }
    }
}

/// Looks at the nodes for the first time, waiting for them.
pub(super) async fn first_look(seeds: &[ConnectionInfo], wait: Duration) -> Result<Found, ConnectError> {
    let end = Instant::now() + wait;
    let mut told = false;
    loop {
        let mut last = None;
        for seed in seeds {
            let server = seed.addr().to_string();
            match ask_seed(seed).await {
                Ok(Found::Alone(_)) if seeds.len() > 1 => return Err(ConnectError::NoCluster { server }),
                // Nodes that are still to meet each other.
                Ok(found) if !found.slots().are_whole() => last = Some((server, RedisError::Away)),
                Ok(found) => return Ok(found),
                Err(source) if is_final(&source) => return Err(ConnectError::Refused { server, source }),
                Err(source) => last = Some((server, source)),
            }
        }
        let (server, source) = last.ok_or(ConnectError::Url)?;
        if Instant::now() >= end {
            return Err(ConnectError::Away { server, waited: wait, source });
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(server, "waiting for Redis at {server}");
        }
        sleep(PAUSE).await;
    }
}

/// Whether waiting will not help: a password that is wrong stays wrong.
fn is_final(error: &RedisError) -> bool {
    let RedisError::Refused(error) = error else { return false };
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported
    ) || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

/// Looks again: a known node that answers is asked, else those that were named.
pub(super) async fn look(known: &[Arc<Node>], seeds: &[ConnectionInfo]) -> Option<Found> {
    for node in known {
        if let Ok(told) = node.ask::<Value>(&question(), LOOK).await
            && let Some(ranges) = ranges(&told, &node.address.0)
        {
            return Some(Found::Cluster(ranges));
        }
    }
    for seed in seeds {
        if let Ok(found @ Found::Cluster(_)) = ask_seed(seed).await {
            return Some(found);
        }
    }
    None
}

fn question() -> redis::Cmd {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

async fn ask_seed(seed: &ConnectionInfo) -> Result<Found, RedisError> {
    let ConnectionAddr::Tcp(host, port) = seed.addr() else { return Err(RedisError::Away) };
    let client = Client::open(seed.clone()).map_err(RedisError::Refused)?;
    let mut connection = node::connection(&client, None).await?;
    match timeout(LOOK, question().query_async::<Value>(&mut connection)).await {
        Err(_) => Err(RedisError::Slow(LOOK)),
        Ok(Ok(told)) => ranges(&told, host).map(Found::Cluster).ok_or(RedisError::Away),
        // "This instance has cluster support disabled".
        Ok(Err(error)) if error.code() == Some("ERR") => Ok(Found::Alone((host.clone(), *port))),
        Ok(Err(error)) => Err(RedisError::Refused(error)),
    }
}

/// Reads what `CLUSTER SLOTS` answers; a node that does not know its own name is where it was asked.
fn ranges(told: &Value, asked: &str) -> Option<Vec<(u16, u16, Address)>> {
    let Value::Array(ranges) = told else { return None };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else { return None };
            let [host, Value::Int(port), ..] = &master[..] else { return None };
            let host = match host {
                Value::BulkString(host) if !host.is_empty() && host != b"?" => str::from_utf8(host).ok()?,
                _ => asked,
            };
            let number = |number: &i64| u16::try_from(*number).ok();
            Some((number(first)?, number(last)?, (host.to_owned(), number(port)?)))
        })
        .collect()
}
