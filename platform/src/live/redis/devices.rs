//! Where each device is connected: a key a device, which goes by itself unless its gateway says that it is still there.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};
use uuid::Uuid;

use super::names::Names;
use super::wire;
use crate::live::{Channel, Connected, Device};
use crate::redis::{Node, Redis};

/// How long a device is remembered after its gateway last spoke of it: three times as long as that takes.
const KEPT: Duration = Duration::from_mins(1);
/// How long a new connection may take to be told.
const CONNECT: Duration = Duration::from_millis(250);
/// How long so many devices may take.
const BOUND: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 1_000;
/// Forgets a device, unless it is another connection that is kept of it.
const FORGET: &str = "\
    local kept = redis.call('GET', KEYS[1]) \
    if kept and string.sub(kept, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
    return 0";

/// The devices of users, as Redis keeps them.
pub(super) struct Devices {
    /// Which process this is.
    process: Uuid,
}

impl Devices {
    pub(super) fn new(process: Uuid) -> Self {
        Self { process }
    }

    /// Keeps where a device connected, and tells the gateways that have others of its user; whether Redis took it.
    pub(super) async fn connected(&self, redis: &Redis, names: &Names, connected: Connected) -> bool {
        // Key and channel share their slot.
        let channel = names.name(Channel::User(connected.user_id));
        let Some(node) = redis.nodes().of(channel.as_bytes()).cloned() else { return false };
        let mut commands = redis::pipe();
        self.keep(redis, connected, &mut commands);
        commands.cmd("SPUBLISH").arg(channel).arg(wire::connected(connected));
        let told = redis.ask_all(&node, &commands, CONNECT).await;
        if let Err(error) = &told {
            tracing::debug!(%error, "a connection is not told to other gateways; they find it out later");
        }
        told.is_ok()
    }

    /// Forgets a connection.
    pub(super) async fn disconnected(&self, redis: &Redis, gone: Connected) {
        let key = key(redis, gone.device());
        let mut forget = redis::cmd("EVAL");
        forget.arg(FORGET).arg(1).arg(&key).arg(gone.connection_id.to_string());
        if let Err(error) = redis.ask::<i64>(&key, &forget, CONNECT).await {
            tracing::debug!(%error, "a connection that is gone counts until it is forgotten by itself");
        }
    }

    /// Those that are kept; `None` where a node does not say so of its own.
    pub(super) async fn connected_of(&self, redis: &Redis, devices: &[Device]) -> Option<HashSet<Device>> {
        let nodes = redis.nodes();
        let mut connected = HashSet::new();
        for node in &nodes.all {
            let here = |device: &&Device| {
                nodes.of(key(redis, **device).as_bytes()).is_some_and(|other| Arc::ptr_eq(other, node))
            };
            let here: Vec<Device> = devices.iter().filter(here).copied().collect();
            for some in here.chunks(AT_ONCE) {
                let mut questions = redis::pipe();
                for device in some {
                    questions.cmd("GET").arg(key(redis, *device));
                }
                match redis.ask_all(node, &questions, BOUND).await {
                    Ok(kept) => {
                        let kept = some.iter().zip(&kept).filter(|(_, kept)| connection(kept).is_some());
                        connected.extend(kept.map(|(device, _)| *device));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "who is connected cannot be told");
                        return None;
                    }
                }
            }
        }
        Some(connected)
    }

    /// Keeps where devices are connected still; answers those that connected elsewhere since.
    pub(super) async fn still_connected(&self, redis: &Redis, devices: &[Connected]) -> Vec<Connected> {
        let nodes = redis.nodes();
        let mut newer = Vec::new();
        for node in &nodes.all {
            let here = |device: &&Connected| {
                nodes.of(key(redis, device.device()).as_bytes()).is_some_and(|other| Arc::ptr_eq(other, node))
            };
            let here: Vec<Connected> = devices.iter().filter(here).copied().collect();
            for some in here.chunks(AT_ONCE) {
                newer.extend(self.some_still_connected(redis, node, some).await);
            }
        }
        newer
    }

    async fn some_still_connected(&self, redis: &Redis, node: &Node, devices: &[Connected]) -> Vec<Connected> {
        let mut questions = redis::pipe();
        for device in devices {
            questions.cmd("GET").arg(key(redis, device.device()));
        }
        let Ok(kept) = redis.ask_all(node, &questions, BOUND).await else { return Vec::new() };
        let mut newer = Vec::new();
        let mut commands = redis::pipe();
        for (device, kept) in devices.iter().zip(&kept) {
            // A connection that comes between the question and this says so again before long.
            match connection(kept).filter(|connection_id| *connection_id > device.connection_id) {
                Some(connection_id) => newer.push(Connected { connection_id, ..*device }),
                None => self.keep(redis, *device, &mut commands),
            }
        }
        if !commands.is_empty()
            && let Err(error) = redis.ask_all(node, &commands, BOUND).await
        {
            tracing::debug!(%error, "where devices are is not kept; it is tried again");
        }
        newer
    }

    fn keep(&self, redis: &Redis, device: Connected, commands: &mut Pipeline) {
        let value = format!("{} {}", device.connection_id, self.process);
        commands.cmd("SET").arg(key(redis, device.device())).arg(value).arg("EX").arg(KEPT.as_secs());
    }
}

fn key(redis: &Redis, device: Device) -> String {
    redis.key(&format!("device:{{user:{}}}:{}", device.user_id, device.device_id))
}

/// The connection that is kept of a device.
fn connection(kept: &Value) -> Option<Uuid> {
    let Value::BulkString(kept) = kept else { return None };
    str::from_utf8(kept).ok()?.split_once(' ')?.0.parse().ok()
}
