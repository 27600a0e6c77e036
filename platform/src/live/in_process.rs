//! The live bus of one process: fan-out calls the gateway.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;

use super::{Channel, Connected, Hint, LiveBus, LiveSink};

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

    /// The one gateway of this process knows its own connections.
    async fn connected(&self, _: Connected) {}

    fn attach(&self, sink: Arc<dyn LiveSink>) {
        self.sinks.write().push(sink);
    }

    /// Every gateway is told everything.
    async fn listen(&self, _: Channel) {}

    fn ignore(&self, _: Channel) {}

    fn is_up(&self) -> bool {
        true
    }

    fn addresses_members(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use schemas::{Event, Record, Topic, UserChanged};
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Channel>>);

    impl LiveSink for Told {
        fn deliver(&self, hints: &[Hint]) {
            self.0.lock().extend(hints.iter().map(|hint| hint.channel));
        }

        fn connected(&self, _: Connected) {}
    }

    #[tokio::test]
    async fn every_gateway_is_told_in_order_from_the_moment_it_is_attached() {
        let (live, first, second) = (InProcessLive::default(), Arc::new(Told::default()), Arc::new(Told::default()));
        let (user_id, at) = (Uuid::nil(), OffsetDateTime::UNIX_EPOCH);
        let record = Arc::new(Record {
            topic: Topic::Users,
            shard: 0,
            position: 1,
            event_id: user_id,
            key: user_id,
            at,
            correlation: None,
            causation: None,
            trace: None,
            event: Event::UserPasswordChanged(UserChanged { user_id, at }),
        });
        let hint = |channel| Hint { channel, record: Arc::clone(&record), audience: None };
        let (user, room) = (Channel::User(user_id), Channel::Conversation(user_id));
        live.attach(Arc::clone(&first) as _);
        live.publish(vec![hint(user)]).await;
        live.attach(Arc::clone(&second) as _);
        live.publish(vec![hint(room), hint(user)]).await;
        assert_eq!(*first.0.lock(), [user, room, user]);
        assert_eq!(*second.0.lock(), [room, user]);
    }
}
