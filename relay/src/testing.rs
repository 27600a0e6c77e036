//! Commands for tests, by the real aggregates.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use domain::conversation::{Conversation, Created, History, Kind, Role};
use domain::kernel::LogTopic;
use domain::message::{Message, Sent};
use event_store::{Command, Context, EventStore, Options, Reads, Workspace};
use platform::bus::{Bounds, Bus, InProcessBus, Subscription};
use schemas::{Record, Topic};
use testkit::Database;
use uuid::Uuid;

use crate::{LogBackfill, heads};

pub(crate) const ANN: Uuid = Uuid::from_u128(1);

struct Open(Uuid);

impl Command for Open {
    type Output = ();
    type Refusal = Infallible;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.0
    }

    fn reads(&self, reads: &mut Reads) {
        reads.fresh::<Conversation>(self.0);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), Infallible> {
        let members = vec![(ANN, Role::Owner)];
        let created = Created { kind: Kind::Group, name: None, history: History::All, members, by: ANN };
        work.emit_numbered::<Conversation>(self.0, created);
        Ok(())
    }
}

struct Say(Uuid, Uuid);

impl Command for Say {
    type Output = ();
    type Refusal = Infallible;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.0
    }

    fn reads(&self, reads: &mut Reads) {
        reads.fresh::<Message>(self.1);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), Infallible> {
        let content = format!("word {}", work.next_seq());
        let sent = Sent { sender_id: ANN, kind: "text".into(), content, reply_to: None, mentions: vec![] };
        work.emit_numbered::<Message>(self.1, sent);
        Ok(())
    }
}

/// Opens a room with one member.
pub(crate) async fn open_room(store: &EventStore) -> Uuid {
    let room = Uuid::now_v7();
    store.execute(Open(room), Context::default()).await.unwrap();
    room
}

/// Says something in it, several times at once.
pub(crate) async fn say(store: &EventStore, room: Uuid, times: usize) {
    let mut saying = tokio::task::JoinSet::new();
    for _ in 0..times {
        let store = store.clone();
        saying.spawn(async move { store.execute(Say(room, Uuid::now_v7()), Context::default()).await.unwrap() });
    }
    saying.join_all().await;
}

pub(crate) async fn store(database: &Database, options: Options) -> EventStore {
    EventStore::open(database.pool().clone(), Options { shards: 4, ..options }).await.unwrap()
}

/// A bus that begins at the present heads.
pub(crate) async fn bus(store: &EventStore) -> Arc<dyn Bus> {
    let log = store.log().clone();
    Arc::new(InProcessBus::new(heads(&log).await.unwrap(), Arc::new(LogBackfill::new(log)), Bounds::default()))
}

pub(crate) async fn from_the_beginning(bus: &dyn Bus) -> Box<dyn Subscription> {
    bus.subscribe(Topic::Conversations, &[(0, 0), (1, 0), (2, 0), (3, 0)]).await.unwrap()
}

/// Reads so many records; each shard's must be dense from `seen` on.
pub(crate) async fn read(
    subscription: &mut dyn Subscription,
    count: usize,
    seen: &mut BTreeMap<u16, u64>,
) -> Vec<Arc<Record>> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(20), subscription.next(100)).await;
        for record in batch.expect("records within 20 s").unwrap() {
            let last = seen.entry(record.shard).or_default();
            assert_eq!(record.position, *last + 1);
            *last = record.position;
            all.push(record);
        }
    }
    assert_eq!(all.len(), count);
    all
}
