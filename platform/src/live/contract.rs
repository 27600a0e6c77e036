//! What every live bus must do: one suite of tests, held against each implementation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use schemas::{Event, Record, Topic, UserChanged};
use testkit::eventually;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Channel, Connected, Device, Hint, LiveBus, LiveSink};

pub(crate) const LONG: Duration = Duration::from_mins(1);

/// What processes share that tell each other something.
#[async_trait(?Send)]
pub(crate) trait Harness: Send + Sync + Sized {
    async fn new() -> Self;
    /// One process's end of the bus.
    async fn process(&self) -> Arc<dyn LiveBus>;
}

/// Makes a test of each promise.
macro_rules! suite {
    ($harness:ty) => {
        $crate::live::contract::suite!($harness:
            what_is_told_comes_whole_and_in_order,
            every_gateway_is_told,
            a_conversation_is_told_by_its_members_once,
            who_listens_twice_and_ignores_once_is_told,
            many_listen_at_once,
            who_is_connected_is_known_everywhere
        );
    };
    ($harness:ty: $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::live::contract::$case::<$harness>().await;
            }
        )+
    };
}
pub(crate) use suite;

/// A gateway, which keeps what it is told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) hints: Mutex<Vec<(Channel, Arc<Record>)>>,
    pub(crate) connected: Mutex<Vec<Connected>>,
}

impl LiveSink for Told {
    fn deliver(&self, hints: &[Hint]) {
        self.hints.lock().extend(hints.iter().map(|hint| (hint.channel, hint.record.clone())));
    }

    fn connected(&self, connected: Connected) {
        self.connected.lock().push(connected);
    }
}

impl Told {
    pub(crate) fn by(live: &Arc<dyn LiveBus>) -> Arc<Self> {
        let told = Arc::new(Self::default());
        live.attach(told.clone());
        told
    }

    /// Waits for so many hints; answers channels and positions.
    pub(crate) async fn expect(&self, count: usize) -> Vec<(Channel, u64)> {
        eventually("the hints", LONG, async || self.hints.lock().len() >= count).await;
        self.hints.lock().drain(..).map(|(channel, record)| (channel, record.position)).collect()
    }
}

pub(crate) fn record(key: u128, position: u64) -> Record {
    let at = OffsetDateTime::UNIX_EPOCH;
    let user_id = Uuid::from_u128(key);
    Record {
        topic: Topic::Users,
        shard: 3,
        position,
        event_id: Uuid::from_u64_pair(1, position),
        key: user_id,
        at,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event: Event::UserPasswordChanged(UserChanged { user_id, at }),
    }
}

pub(crate) fn hint(channel: Channel, record: &Arc<Record>) -> Hint {
    Hint { channel, record: record.clone(), audience: None }
}

pub(crate) fn hints(channel: Channel, positions: std::ops::RangeInclusive<u64>) -> Vec<Hint> {
    positions.map(|position| hint(channel, &Arc::new(record(1, position)))).collect()
}

pub(crate) fn user(id: u128) -> Channel {
    Channel::User(Uuid::from_u128(id))
}

pub(crate) fn room(id: u128) -> Channel {
    Channel::Conversation(Uuid::from_u128(id))
}

pub(crate) async fn what_is_told_comes_whole_and_in_order<H: Harness>() {
    let harness = H::new().await;
    let (fan_out, gateway) = (harness.process().await, harness.process().await);
    let told = Told::by(&gateway);
    gateway.listen(user(1)).await;
    gateway.listen(room(1)).await;
    let full = Arc::new(Record {
        correlation: Some("request 7".into()),
        causation: Some(Uuid::from_u128(9)),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        session: None,
        ..record(1, 1)
    });
    fan_out.publish(vec![hint(user(1), &full)]).await;
    eventually("the hint", LONG, async || !told.hints.lock().is_empty()).await;
    assert_eq!(*told.hints.lock().remove(0).1, *full);
    for begin in [2, 302] {
        fan_out.publish(hints(room(1), begin..=begin + 299)).await;
    }
    let expected: Vec<_> = (2..=601).map(|position| (room(1), position)).collect();
    assert_eq!(told.expect(600).await, expected);
}

pub(crate) async fn every_gateway_is_told<H: Harness>() {
    let harness = H::new().await;
    let (fan_out, one, other) = (harness.process().await, harness.process().await, harness.process().await);
    let (first, second) = (Told::by(&one), Told::by(&other));
    one.listen(user(1)).await;
    other.listen(user(1)).await;
    fan_out.publish(hints(user(1), 1..=2)).await;
    for told in [first, second] {
        assert_eq!(told.expect(2).await, [(user(1), 1), (user(1), 2)]);
    }
}

pub(crate) async fn a_conversation_is_told_by_its_members_once<H: Harness>() {
    let harness = H::new().await;
    let (fan_out, gateway) = (harness.process().await, harness.process().await);
    let told = Told::by(&gateway);
    for id in [1, 2] {
        gateway.listen(user(id)).await;
    }
    let members: Arc<[Uuid]> = [1, 2, 3].map(Uuid::from_u128).into();
    let mut all = hints(room(7), 1..=3);
    for hint in &mut all {
        hint.audience = fan_out.addresses_members().then(|| members.clone());
    }
    all.extend(hints(user(1), 4..=4));
    fan_out.publish(all).await;
    assert_eq!(told.expect(4).await, [(room(7), 1), (room(7), 2), (room(7), 3), (user(1), 4)]);
}

pub(crate) async fn who_listens_twice_and_ignores_once_is_told<H: Harness>() {
    let harness = H::new().await;
    let (fan_out, gateway) = (harness.process().await, harness.process().await);
    let told = Told::by(&gateway);
    gateway.listen(user(1)).await;
    // Whatever becomes of the future.
    drop(gateway.listen(user(1)));
    gateway.ignore(user(1));
    gateway.listen(user(2)).await;
    fan_out.publish(hints(user(1), 1..=1)).await;
    assert_eq!(told.expect(1).await, [(user(1), 1)]);
    // Left and come back, it is told again.
    gateway.ignore(user(1));
    gateway.listen(user(1)).await;
    fan_out.publish(hints(user(1), 2..=2)).await;
    assert_eq!(told.expect(1).await, [(user(1), 2)]);
}

pub(crate) async fn many_listen_at_once<H: Harness>() {
    const MANY: u128 = 3_000;
    let harness = H::new().await;
    let (fan_out, gateway) = (harness.process().await, harness.process().await);
    let told = Told::by(&gateway);
    join_all((1..=MANY).map(|id| gateway.listen(user(id)))).await;
    fan_out.publish((1..=MANY).flat_map(|id| hints(user(id), 1..=1)).collect()).await;
    let got = told.expect(usize::try_from(MANY).unwrap()).await;
    let all: std::collections::HashSet<_> = got.into_iter().map(|(channel, _)| channel).collect();
    assert_eq!(all.len() as u128, MANY);
}

pub(crate) async fn who_is_connected_is_known_everywhere<H: Harness>() {
    let harness = H::new().await;
    let (gateway, other) = (harness.process().await, harness.process().await);
    let connected = |user: u128, connection: u128| Connected {
        user_id: Uuid::from_u128(user),
        device_id: Uuid::from_u128(9),
        connection_id: Uuid::from_u128(connection),
    };
    let devices: Vec<Device> = (1..=300).map(|user| connected(user, 0).device()).collect();
    let known = async || {
        let known = other.connected_of(&devices).await.unwrap();
        devices
            .iter()
            .filter(|device| known.contains(device))
            .map(|device| device.user_id.as_u128())
            .collect::<Vec<_>>()
    };
    assert_eq!(known().await, [0; 0]);
    for user in 1..=4 {
        assert!(gateway.connected(connected(user, 1)).await);
    }
    assert_eq!(known().await, [1, 2, 3, 4]);
    // An older connection of a device that came again goes, and the device stays.
    gateway.connected(connected(2, 2)).await;
    for user in [1, 2] {
        gateway.disconnected(connected(user, 1)).await;
    }
    assert_eq!(known().await, [2, 3, 4]);
    gateway.disconnected(connected(2, 2)).await;
    assert_eq!(known().await, [3, 4]);
    assert!(other.connected_of(&[]).await.unwrap().is_empty());
}
