//! Fan-out: tells the gateways at once what happened to whom.
//!
//! It begins with what is published from now on, keeps no checkpoint, and loses what it holds when it ends: a hint
//! only tells a gateway sooner what it would find out anyway.

mod member_counts;

use std::sync::Arc;

use platform::bus::{Bus, BusError, Subscription};
use platform::live::{Channel, Hint, LiveBus};
use schemas::{Body, Event, Numbered, ReceiptMoved, Record, Topic};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use member_counts::MemberCounts;

const MAX: usize = 1000;
/// In larger conversations, others' receipts would grow with the square of the members: only one's own are told.
const RECEIPTS_TO_ALL: u64 = 100;

/// Tells `live` what is published on `bus`, until `shutdown`.
pub async fn run(pool: PgPool, bus: Arc<dyn Bus>, live: Arc<dyn LiveBus>, shutdown: CancellationToken) {
    let topics = Topic::ALL.map(|topic| {
        let counts = MemberCounts::new(pool.clone());
        let fan_out = FanOut { bus: Arc::clone(&bus), live: Arc::clone(&live), topic, counts };
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = fan_out.run() => {}
            }
        }
    });
    futures::future::join_all(topics).await;
}

struct FanOut {
    bus: Arc<dyn Bus>,
    live: Arc<dyn LiveBus>,
    topic: Topic,
    counts: MemberCounts,
}

impl FanOut {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.subscribe().await {
                Ok(subscription) => self.follow(subscription, &mut backoff).await,
                Err(error) => error,
            };
            let topic = self.topic.name();
            tracing::warn!(topic, error = &error as &dyn std::error::Error, "fan-out waits, and tries again");
            sleep(backoff.failed()).await;
        }
    }

    /// From now on.
    async fn subscribe(&self) -> Result<Box<dyn Subscription>, BusError> {
        let heads = self.bus.heads(self.topic).await?;
        self.bus.subscribe(self.topic, &heads).await
    }

    async fn follow(&mut self, mut subscription: Box<dyn Subscription>, backoff: &mut Backoff) -> BusError {
        loop {
            match subscription.next(MAX).await {
                Ok(records) => {
                    backoff.succeeded();
                    self.counts.prepare(&records).await;
                    let mut hints = Vec::with_capacity(records.len());
                    for record in &records {
                        self.route(record, &mut hints);
                    }
                    metrics::counter!("parlance_fan_out_hints_total").increment(hints.len() as u64);
                    self.live.publish(hints).await;
                }
                Err(error) => return error,
            }
        }
    }

    /// Whom a record concerns.
    fn route(&mut self, record: &Arc<Record>, hints: &mut Vec<Hint>) {
        let mut tell = |channel| hints.push(Hint { channel, record: Arc::clone(record), audience: None });
        match &record.event {
            Event::Numbered(event) => {
                self.counts.note(event);
                numbered(event, tell);
            }
            Event::MessageDelivered(moved) | Event::MessageRead(moved) => tell(self.receipt(moved)),
            Event::SessionRevoked(session) => tell(Channel::User(session.user_id)),
            Event::UserRegistered(_)
            | Event::UserProfileChanged(_)
            | Event::UserPasswordChanged(_)
            | Event::SessionStarted(_)
            | Event::SessionRefreshed(_)
            | Event::SessionReuseDetected(_) => {}
        }
    }

    fn receipt(&mut self, moved: &ReceiptMoved) -> Channel {
        // Where the count is not known, too much would be worse than too little.
        match self.counts.get(moved.conversation_id) {
            Some(members) if members <= RECEIPTS_TO_ALL => Channel::Conversation(moved.conversation_id),
            _ => Channel::User(moved.user_id),
        }
    }
}

fn numbered(event: &Numbered, mut tell: impl FnMut(Channel)) {
    let room = Channel::Conversation(event.conversation_id);
    match &event.body {
        // Who comes in begins to listen first, who leaves hears it and then stops.
        Body::Created(created) => {
            created.members.iter().for_each(|member| tell(Channel::User(member.user_id)));
            tell(room);
        }
        Body::MemberJoined(joined) => {
            tell(Channel::User(joined.user_id));
            tell(room);
        }
        Body::MemberLeft(left) => {
            tell(room);
            tell(Channel::User(left.user_id));
        }
        Body::Renamed(_) | Body::SettingsChanged(_) | Body::MemberRoleChanged(_) | Body::MessageSent(_) => tell(room),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use platform::live::{Connected, InProcessLive, LiveSink};
    use schemas::Role;
    use testkit::{Database, eventually};
    use uuid::Uuid;

    use super::*;
    use crate::testing::{Room, World, ann, ben, cleo, session};

    #[derive(Default)]
    struct Told(Mutex<Vec<(Channel, &'static str)>>);

    impl LiveSink for Told {
        fn deliver(&self, hints: &[Hint]) {
            self.0.lock().extend(hints.iter().map(|hint| (hint.channel, hint.record.event.event_type())));
        }

        fn connected(&self, _: Connected) {}
    }

    struct Setup {
        world: World,
        told: Arc<Told>,
        database: Database,
        _stop: tokio_util::sync::DropGuard,
    }

    impl Setup {
        async fn new(world: World) -> Self {
            let database = Database::new().await;
            let (told, live, shutdown) =
                (Arc::new(Told::default()), InProcessLive::default(), CancellationToken::new());
            live.attach(Arc::clone(&told) as _);
            let counts = MemberCounts::new(database.pool().clone());
            for topic in Topic::ALL {
                let counts = MemberCounts::new(counts.pool().clone());
                let bus: Arc<dyn Bus> = Arc::clone(&world.bus) as _;
                let live = InProcessLive::default();
                live.attach(Arc::clone(&told) as _);
                let mut fan_out = FanOut { bus, live: Arc::new(live), topic, counts };
                // Subscribed before anything is published.
                let subscription = fan_out.subscribe().await.unwrap();
                let stopped = shutdown.clone().cancelled_owned();
                tokio::spawn(async move {
                    tokio::select! {
                        () = stopped => {}
                        _ = async { fan_out.follow(subscription, &mut Backoff::default()).await } => {}
                    }
                });
            }
            Self { world, told, database, _stop: shutdown.drop_guard() }
        }

        async fn expect(&self, expected: &[(Channel, &'static str)]) {
            eventually("the hints", Duration::from_secs(10), async || self.told.0.lock().len() >= expected.len()).await;
            assert_eq!(std::mem::take(&mut *self.told.0.lock()), expected);
        }
    }

    #[tokio::test]
    async fn each_event_reaches_those_whom_it_concerns() {
        let world = World::new();
        let mut room = Room::new(5);
        // Before it began: nobody is told.
        world.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
        let setup = Setup::new(world).await;
        let all = Channel::Conversation(room.id);
        let mut other = Room::new(9);
        setup.world.append(room.said(ann())).await;
        setup.world.append(room.joined(cleo(), Role::Member)).await;
        setup.world.append(room.left(cleo())).await;
        setup.world.append(other.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
        setup
            .expect(&[
                (all, "message.sent"),
                (Channel::User(cleo()), "conversation.member_joined"),
                (all, "conversation.member_joined"),
                (all, "conversation.member_left"),
                (Channel::User(cleo()), "conversation.member_left"),
                (Channel::User(ann()), "conversation.created"),
                (Channel::User(ben()), "conversation.created"),
                (Channel::Conversation(other.id), "conversation.created"),
            ])
            .await;
        setup.world.append(session(1, 11, Event::SessionStarted)).await;
        setup.world.append(session(1, 11, Event::SessionRevoked)).await;
        setup.expect(&[(Channel::User(ann()), "session.revoked")]).await;
    }

    #[tokio::test]
    async fn receipts_go_to_all_in_small_conversations_only() {
        let mut large = Room::new(5);
        let members: Vec<_> = (1..=100).map(|user| (Uuid::from_u128(user), Role::Member)).collect();
        let setup = Setup::new(World::new()).await;
        setup.world.append(large.created(&members)).await;
        setup.world.append(large.delivered(ann(), 1, 0)).await;
        setup.world.append(large.joined(Uuid::from_u128(101), Role::Member)).await;
        setup.world.append(large.delivered(ann(), 2, 0)).await;
        setup.world.append(large.left(Uuid::from_u128(101))).await;
        setup.world.append(large.read(ann(), 3, 3)).await;
        let receipts = |told: &Told| {
            let told = told.0.lock();
            told.iter()
                .filter(|(_, name)| ["message.delivered", "message.read"].contains(name))
                .copied()
                .collect::<Vec<_>>()
        };
        eventually("three receipts", Duration::from_secs(10), async || receipts(&setup.told).len() == 3).await;
        let all = Channel::Conversation(large.id);
        let expected = [(all, "message.delivered"), (Channel::User(ann()), "message.delivered"), (all, "message.read")];
        assert_eq!(receipts(&setup.told), expected);
    }

    #[tokio::test]
    async fn runs_as_a_task_until_it_is_told_to_stop() {
        let (world, database, shutdown) = (World::new(), Database::new().await, CancellationToken::new());
        let (bus, live) = (Arc::clone(&world.bus) as Arc<dyn Bus>, Arc::new(InProcessLive::default()));
        let running = tokio::spawn(run(database.pool().clone(), bus, live, shutdown.clone()));
        shutdown.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn what_it_did_not_see_it_looks_up() {
        let setup = Setup::new(World::new()).await;
        for (id, members) in [(5_u128, 3_i32), (6, 300)] {
            sqlx::query("INSERT INTO read.conversations VALUES ($1, 'group', NULL, 'all', $2, 7, NULL, now())")
                .bind(Uuid::from_u128(id))
                .bind(members)
                .execute(setup.database.pool())
                .await
                .unwrap();
        }
        for id in [5, 6, 7] {
            setup.world.append(Room::new(id).delivered(ann(), 1, 0)).await;
            let known_small = Channel::Conversation(Uuid::from_u128(5));
            let channel = if id == 5 { known_small } else { Channel::User(ann()) };
            setup.expect(&[(channel, "message.delivered")]).await;
        }
    }
}
