//! The live bus of one process: fan-out calls the gateway.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, ready};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::{Channel, Connected, Device, Hint, LiveBus, LiveSink};

/// Hands hints straight to the gateways of this process.
#[derive(Default)]
pub struct InProcessLive {
    sinks: RwLock<Vec<Arc<dyn LiveSink>>>,
    /// The newest connection of each device.
    devices: Mutex<HashMap<Device, Uuid>>,
}

#[async_trait]
impl LiveBus for InProcessLive {
    async fn publish(&self, hints: Vec<Hint>) {
        for sink in self.sinks.read().iter() {
            sink.deliver(&hints);
        }
    }

    /// The one gateway of this process knows its own connections, and replaces older ones by itself.
    async fn connected(&self, connected: Connected) -> bool {
        let mut devices = self.devices.lock();
        let newest = devices.entry(connected.device()).or_insert(connected.connection_id);
        *newest = connected.connection_id.max(*newest);
        true
    }

    async fn disconnected(&self, gone: Connected) {
        let mut devices = self.devices.lock();
        if devices.get(&gone.device()) == Some(&gone.connection_id) {
            devices.remove(&gone.device());
        }
    }

    async fn connected_of(&self, devices: &[Device]) -> Option<HashSet<Device>> {
        let connected = self.devices.lock();
        Some(devices.iter().filter(|device| connected.contains_key(*device)).copied().collect())
    }

    async fn still_connected(&self, _: &[Connected]) {}

    fn attach(&self, sink: Arc<dyn LiveSink>) {
        self.sinks.write().push(sink);
    }

    /// Every gateway is told everything.
    fn listen(&self, _: Channel) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn ignore(&self, _: Channel) {}

    fn is_up(&self) -> bool {
        true
    }

    fn outages(&self) -> u64 {
        0
    }

    fn addresses_members(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::contract::{self, Harness};

    struct InProcess(Arc<InProcessLive>);

    #[async_trait(?Send)]
    impl Harness for InProcess {
        async fn new() -> Self {
            Self(Arc::default())
        }

        async fn process(&self) -> Arc<dyn LiveBus> {
            self.0.clone()
        }
    }

    contract::suite!(InProcess);
}
