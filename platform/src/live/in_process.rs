//! The live bus of one process: fan-out calls the gateway.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;

use super::{Hint, LiveBus, LiveSink};

/// Hands hints straight to the gateways of this process.
#[derive(Default)]
pub struct InProcessLive {
    sinks: RwLock<Vec<Arc<dyn LiveSink>>>,
}

#[async_trait]
impl LiveBus for InProcessLive {
    async fn publish(&self, hints: Vec<Hint>) {
        for sink in self.sinks.read().iter() {
            sink.deliver(&hints);
        }
    }

    fn attach(&self, sink: Arc<dyn LiveSink>) {
        self.sinks.write().push(sink);
    }
}
