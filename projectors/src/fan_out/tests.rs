//! Who is told what, and from where on.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use platform::applied::AppliedPositions;
use platform::cache::{Answers, Kept, Owner};
use platform::leases::Part;
use platform::live::{Channel, Connected, Device, Hint, LiveSink};
use platform::redis::Redis;
use schemas::{Event, Position, PositionToken, Record, Role};
use testkit::redis::Redis as Server;
use testkit::{Database, eventually};
use tokio_util::sync::DropGuard;
use uuid::Uuid;

use super::*;
use crate::testing::{Keyed, Member, Room, SHARDS, World, ann, applied_all, ben, cleo, profile, registered, session};

const BOUND: Duration = Duration::from_mins(1);

/// A live bus that keeps what it is told.
#[derive(Default)]
struct Told {
    everywhere: bool,
    hints: Mutex<Vec<Hint>>,
}

#[async_trait]
impl LiveBus for Told {
    async fn publish(&self, hints: Vec<Hint>) {
        self.hints.lock().extend(hints);
    }

    async fn connected(&self, _: Connected) -> bool {
        true
    }

    async fn disconnected(&self, _: Connected) {}

    async fn connected_of(&self, _: &[Device]) -> Option<HashSet<Device>> {
        Some(HashSet::new())
    }

    async fn still_connected(&self, _: &[Connected]) {}

    fn attach(&self, _: Arc<dyn LiveSink>) {}

    fn listen(&self, _: Channel) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn outages(&self) -> u64 {
        0
    }

    fn ignore(&self, _: Channel) {}

    fn is_up(&self) -> bool {
        true
    }

    fn addresses_members(&self) -> bool {
        self.everywhere
    }
}

impl Told {
    fn everywhere() -> Arc<Self> {
        Arc::new(Self { everywhere: true, ..Self::default() })
    }

    /// The events told, with how many are named; and forgets them.
    async fn take(&self, count: usize) -> Vec<(Channel, &'static str, Option<usize>)> {
        eventually("the hints", BOUND, async || self.hints.lock().len() >= count).await;
        let hints = std::mem::take(&mut *self.hints.lock());
        let named = |hint: &Hint| hint.audience.as_ref().map(|names| names.len());
        hints.iter().map(|hint| (hint.channel, hint.record.event.event_type(), named(hint))).collect()
    }
}

struct Setup {
    world: World,
    told: Arc<Told>,
    database: Database,
    _stop: DropGuard,
}

fn shared(world: &World, database: &Database, held: watch::Receiver<Held>) -> Shared {
    Shared {
        pool: database.pool().clone(),
        bus: Arc::clone(&world.bus) as _,
        positions: AppliedPositions::default(),
        held,
        shards: SHARDS,
        application: String::new(),
    }
}

fn every_shard() -> impl Iterator<Item = Part> {
    Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)))
}

impl Setup {
    async fn new(world: World) -> Self {
        Self::telling(world, Arc::default()).await
    }

    async fn telling(world: World, told: Arc<Told>) -> Self {
        Self::marking(world, told, None).await
    }

    async fn marking(world: World, told: Arc<Told>, marks: Option<Marks>) -> Self {
        let (database, shutdown) = (Database::new().await, CancellationToken::new());
        let held = watch::Sender::new(every_shard().collect());
        for topic in Topic::ALL {
            let shared = shared(&world, &database, held.subscribe());
            let mut fan_out = FanOut::new(&shared, Arc::clone(&told) as _, marks.clone(), topic);
            // Subscribed before anything is published.
            let subscription = fan_out.subscribe().await.unwrap().unwrap();
            let (stopped, held) = (shutdown.clone().cancelled_owned(), held.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stopped => drop(held),
                    _ = async { fan_out.follow(subscription, &mut Backoff::default()).await } => {}
                }
            });
        }
        Self { world, told, database, _stop: shutdown.drop_guard() }
    }

    async fn expect(&self, expected: &[(Channel, &'static str)]) {
        let told = self.told.take(expected.len()).await;
        assert_eq!(told.into_iter().map(|(channel, name, _)| (channel, name)).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn each_event_reaches_those_whom_it_concerns() {
    let world = World::new();
    let mut room = Room::new(5);
    world.append(room.created(&[(ann(), Role::Owner)])).await;
    let setup = Setup::new(world).await;
    let all = Channel::Conversation(room.id);
    // No read model shows it yet.
    setup.expect(&[(Channel::User(ann()), "conversation.created"), (all, "conversation.created")]).await;
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
    setup.world.append(room.said(ann())).await;
    setup.expect(&[(all, "message.sent")]).await;
}

#[tokio::test]
async fn what_moved_is_marked_whether_or_not_anybody_is_told() {
    use platform::cache::Part::{Conversation, Members, Memberships, Profile, Sessions};
    let server = Server::start().unwrap();
    let redis = Redis::connect_within(&server.url().into(), BOUND, "test:").await.unwrap();
    let shard_of = |id: Uuid| u16::try_from(id.as_u128() % u128::from(SHARDS)).unwrap();
    let answers = Answers::new(redis.clone(), Arc::new(shard_of));
    let setup = Setup::marking(World::new(), Told::everywhere(), Some(Marks::new(redis))).await;
    let mut room = Room::new(5);
    let (id, all) = (room.id, [Conversation(room.id), Members(room.id), Memberships(ann()), Memberships(ben())]);
    let of_users = [Profile(ann()), Sessions(ann()), Profile(Uuid::from_u128(5)), Sessions(Uuid::from_u128(5))];
    // One after the other in the same shard, each with all that it moves.
    let events: Vec<(Keyed, Vec<platform::cache::Part>)> = vec![
        (room.created(&[(ann(), Role::Owner)]), vec![Conversation(id), Members(id), Memberships(ann())]),
        (room.said(ann()), vec![Conversation(id)]),
        (room.joined(ben(), Role::Member), vec![Conversation(id), Members(id), Memberships(ben())]),
        (room.role(ben(), Role::Admin), vec![Conversation(id), Members(id)]),
        (room.delivered(ann(), 2, 0), vec![Conversation(id)]),
        (room.left(ben()), vec![Conversation(id), Members(id), Memberships(ben())]),
        (room.renamed("attic"), vec![Conversation(id)]),
        (registered(1, "ann"), vec![Profile(ann())]),
        (session(1, 11, Event::SessionStarted), vec![Sessions(ann())]),
        (profile(1, "Ann"), vec![Profile(ann())]),
        (session(1, 11, Event::SessionRefreshed), vec![Sessions(ann())]),
        (session(1, 11, Event::SessionReuseDetected), vec![]),
        (session(1, 11, Event::SessionRevoked), vec![Sessions(ann())]),
    ];
    for (event, moved) in events {
        let record = setup.world.append(event).await;
        let (now, before) = (record.place(), Position { position: record.position - 1, ..record.place() });
        let good = async |parts: Vec<platform::cache::Part>| {
            let other = Position { topic: Topic::Users, shard: 0, position: 1 };
            let as_of: PositionToken = [before, other].into_iter().collect();
            answers.put(Owner::User(ann()), "x", &Kept { as_of, parts, body: Vec::new() }).await;
            answers.get(Owner::User(ann()), "x", &now.into()).await.is_some()
        };
        // One that it cannot move, to know when it is told.
        eventually("it is marked", BOUND, async || good(vec![Members(Uuid::from_u128(6))]).await).await;
        for part in all.into_iter().chain(of_users) {
            let what = record.event.event_type();
            assert_eq!(good(vec![part]).await, !moved.contains(&part), "{what}: {part:?}");
        }
    }
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
    // The created one told each member, and all; two came or went.
    let told = setup.told.take(101 + 4 + 3).await;
    let receipts: Vec<_> = told
        .into_iter()
        .filter(|(_, name, _)| ["message.delivered", "message.read"].contains(name))
        .map(|(channel, name, _)| (channel, name))
        .collect();
    let all = Channel::Conversation(large.id);
    let expected = [(all, "message.delivered"), (Channel::User(ann()), "message.delivered"), (all, "message.read")];
    assert_eq!(receipts, expected);
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

fn users(numbers: std::ops::RangeInclusive<u128>) -> Vec<(Uuid, Role)> {
    numbers.map(|user| (Uuid::from_u128(user), Role::Member)).collect()
}

#[tokio::test]
async fn those_who_hear_of_it_are_named_until_they_are_too_many() {
    let setup = Setup::telling(World::new(), Told::everywhere()).await;
    let mut room = Room::new(5);
    let (all, user) = (Channel::Conversation(room.id), |user| Channel::User(Uuid::from_u128(user)));
    let names = async |event: Keyed, expected: &[(Channel, Option<usize>)]| {
        setup.world.append(event).await;
        let told = setup.told.take(expected.len()).await;
        assert_eq!(told.into_iter().map(|(channel, _, named)| (channel, named)).collect::<Vec<_>>(), expected);
    };
    setup.world.append(room.created(&users(1..=99))).await;
    assert_eq!(setup.told.take(100).await[99], (all, "conversation.created", Some(99)));
    names(room.said(ann()), &[(all, Some(99))]).await;
    names(room.joined(Uuid::from_u128(100), Role::Member), &[(user(100), None), (all, Some(100))]).await;
    names(room.delivered(ann(), 1, 0), &[(all, Some(100))]).await;
    // Some of the members' gateways know already that it is wide now.
    names(room.joined(Uuid::from_u128(101), Role::Member), &[(user(101), None), (all, Some(101)), (all, None)]).await;
    names(room.said(ann()), &[(all, Some(101)), (all, None)]).await;
    names(room.delivered(ann(), 2, 0), &[(user(1), None)]).await;
    // Who leaves hears of it.
    names(room.left(Uuid::from_u128(101)), &[(all, Some(101)), (all, None), (user(101), None)]).await;
    names(room.said(ann()), &[(all, Some(100))]).await;
    for number in 101..=128 {
        setup.world.append(room.joined(Uuid::from_u128(number), Role::Member)).await;
    }
    setup.told.take(28 * 3).await;
    names(room.said(ann()), &[(all, Some(128)), (all, None)]).await;
    names(room.joined(Uuid::from_u128(129), Role::Member), &[(user(129), None), (all, None)]).await;
    names(room.said(ann()), &[(all, None)]).await;
}

#[tokio::test]
async fn names_are_looked_up_and_again_where_something_was_missed() {
    let (world, told) = (World::new(), Told::everywhere());
    let mut rooms = [Room::new(5), Room::new(9)];
    for room in &mut rooms {
        world.append(room.created(&users(1..=3))).await;
    }
    let mut wide = Room::new(6);
    world.append(wide.created(&users(1..=129))).await;
    let database = Database::new().await;
    let projecting = Member::start(&world, database.pool());
    applied_all(&world, database.pool()).await;
    let mut members = Members::new(database.pool().clone(), told.everywhere);
    let named = async |members: &mut Members, record: &Arc<Record>| {
        members.prepare(std::slice::from_ref(record)).await;
        let Event::Numbered(event) = &record.event else { panic!("not numbered") };
        members.note(event).map(|names| names.len())
    };
    let said = world.append(rooms[0].said(ann())).await;
    assert_eq!(named(&mut members, &said).await, Some(3));
    // What the read model knows already changes nothing, but whoever it is about hears of it.
    let left = world.append(rooms[1].left(cleo())).await;
    applied_all(&world, database.pool()).await;
    assert_eq!(named(&mut members, &left).await, Some(3));
    let said = world.append(rooms[1].said(ann())).await;
    assert_eq!(named(&mut members, &said).await, Some(2));
    // One joined while this one held the shard no longer.
    world.append(rooms[0].joined(Uuid::from_u128(4), Role::Member)).await;
    applied_all(&world, database.pool()).await;
    eventually("it knows of the fourth", BOUND, async || {
        let said = world.append(rooms[0].said(ann())).await;
        named(&mut members, &said).await == Some(4)
    })
    .await;
    // Nobody is left out when a large one becomes small.
    let said = world.append(wide.said(ann())).await;
    assert_eq!(named(&mut members, &said).await, None);
    let left = world.append(wide.left(Uuid::from_u128(129))).await;
    assert_eq!(named(&mut members, &left).await, None);
    eventually("it knows them by name", BOUND, async || {
        let said = world.append(wide.said(ann())).await;
        named(&mut members, &said).await == Some(128)
    })
    .await;
    projecting.leave().await;
}

#[tokio::test]
async fn a_shard_that_is_taken_over_is_told_from_a_little_before() {
    let (world, database, told) = (World::new(), Database::new().await, Told::everywhere());
    let mut rooms = [Room::new(1), Room::new(2)];
    for room in &mut rooms {
        world.append(room.created(&[(ann(), Role::Owner)])).await;
        for _ in 0..2999 {
            world.append(room.said(ann())).await;
        }
    }
    // Of the first shard nearly all is applied, of the second nothing.
    let insert = "INSERT INTO read.checkpoints VALUES ('timeline', 1, 1, 2990), ('receipts', 1, 1, 2980), \
                  ('timeline', 1, 2, 0)";
    sqlx::query(insert).execute(database.pool()).await.unwrap();
    // Whoever tells nobody else was there when what is applied was told.
    let mut alone = FanOut::new(
        &shared(&world, &database, watch::Sender::default().subscribe()),
        Arc::<Told>::default(),
        None,
        Topic::Conversations,
    );
    alone.subscribe().await.unwrap().unwrap();
    assert_eq!(alone.told, Places::from([(0, 0), (1, 2980), (2, 1000), (3, 0)]));
    let held = watch::Sender::<Held>::default();
    let fan_out =
        FanOut::new(&shared(&world, &database, held.subscribe()), Arc::clone(&told) as _, None, Topic::Conversations);
    let stop = CancellationToken::new();
    let running = tokio::spawn(fan_out.run(stop.clone()));
    let positions = async |count: usize| {
        eventually("the hints", BOUND, async || told.hints.lock().len() >= count).await;
        let hints = std::mem::take(&mut *told.hints.lock());
        hints.iter().map(|hint| (hint.record.shard, hint.record.position)).collect::<Vec<_>>()
    };
    held.send_replace([(Topic::Conversations, 1)].into_iter().collect());
    assert_eq!(positions(520).await, (2481..=3000).map(|position| (1, position)).collect::<Vec<_>>());
    held.send_replace([(Topic::Conversations, 1), (Topic::Conversations, 2)].into_iter().collect());
    assert_eq!(positions(2000).await, (1001..=3000).map(|position| (2, position)).collect::<Vec<_>>());
    // Those that were held all the time go on where they are.
    world.append(rooms[0].said(ann())).await;
    assert_eq!(positions(1).await, [(1, 3001)]);
    held.send_replace([(Topic::Conversations, 2)].into_iter().collect());
    eventually("the first is let go", BOUND, async || !held.borrow().has(Topic::Conversations, 1)).await;
    world.append(rooms[1].said(ben())).await;
    assert_eq!(positions(1).await, [(2, 3001)]);
    stop.cancel();
    running.await.unwrap();
}

/// Two processes that share the shards, and tell these.
async fn two(world: &World, database: &Database, told: [&Arc<Told>; 2]) -> [Member; 2] {
    let members = told.map(|told| Member::telling(world, database.pool(), Arc::clone(told) as _));
    let shares = "SELECT count(*) FROM state.leases GROUP BY member";
    eventually("each has its share", BOUND, async || {
        let shares: Vec<i64> = sqlx::query_scalar(shares).fetch_all(database.pool()).await.unwrap();
        shares == [i64::from(SHARDS); 2]
    })
    .await;
    members
}

#[tokio::test]
async fn of_several_processes_one_tells_where_all_are_reached_and_else_each_its_own() {
    let (world, database) = (World::new(), Database::new().await);
    let (everywhere, own) = (Told::everywhere(), [Arc::<Told>::default(), Arc::default()]);
    let said = async |expected: usize, told: &[&Arc<Told>]| {
        let mut places = Vec::new();
        for room in 20..20 + u128::from(SHARDS) {
            places.push(world.append(Room::new(room).created(&[])).await.place());
        }
        for told in told {
            eventually("the hints", BOUND, async || told.hints.lock().len() >= expected).await;
            let mut heard: Vec<_> = told.hints.lock().iter().map(|hint| hint.record.place()).collect();
            heard.sort_unstable();
            assert_eq!(heard.len(), expected);
            heard.retain(|place| places.contains(place));
            assert_eq!(heard, places);
        }
    };
    let shards = usize::from(SHARDS);
    let members = two(&world, &database, [&everywhere, &everywhere]).await;
    said(shards, &[&everywhere]).await;
    said(2 * shards, &[&everywhere]).await;
    applied_all(&world, database.pool()).await;
    for member in members {
        member.leave().await;
    }
    let members = two(&world, &database, [&own[0], &own[1]]).await;
    said(shards, &[&own[0], &own[1]]).await;
    for member in members {
        member.leave().await;
    }
}
