//! Rows follow the log, whatever fails on the way.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use platform::bus::Tail;
use schemas::{Event, Record, Role};
use testkit::{Database, eventually};
use uuid::Uuid;

use super::*;
use crate::projection::Description;
use crate::registry::PROJECTIONS;
use crate::testing::{Member, Room, SHARDS, World, ann, applied_all, ben, registered};

const BOUND: Duration = Duration::from_mins(1);

/// A process to which the shards are given by hand.
struct Holding {
    held: watch::Sender<Held>,
    applied: AppliedPositions,
}

impl Holding {
    fn all() -> Self {
        let all = Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)));
        Self { held: watch::Sender::new(all.collect()), applied: AppliedPositions::default() }
    }

    fn run(
        &self,
        world: &World,
        database: &Database,
        topic: Topic,
        projections: Vec<&'static dyn Projection>,
    ) -> tokio::task::JoinHandle<()> {
        self.run_on(Arc::clone(&world.bus) as _, database, topic, projections)
    }

    fn run_on(
        &self,
        bus: Arc<dyn Bus>,
        database: &Database,
        topic: Topic,
        projections: Vec<&'static dyn Projection>,
    ) -> tokio::task::JoinHandle<()> {
        let shared = Shared {
            pool: database.pool().clone(),
            bus,
            positions: self.applied.clone(),
            held: self.held.subscribe(),
            shards: SHARDS,
            application: "parlance projectors by hand".to_owned(),
        };
        tokio::spawn(Runner::new(shared, Consumer::ReadModels, topic, projections).run(CancellationToken::new()))
    }
}

async fn number(database: &Database, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(database.pool()).await.unwrap()
}

#[tokio::test]
async fn rows_follow_the_log_and_a_restart_goes_on_from_the_checkpoints() {
    let (world, database) = (World::new(), Database::new().await);
    let mut room = Room::new(5);
    world.append(registered(1, "ann")).await;
    world.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
    for _ in 0..900 {
        world.append(room.said(ann())).await;
    }
    // More than the bus remembers: what came before is read from the log.
    let member = Member::start(&world, database.pool());
    applied_all(&world, database.pool()).await;
    assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 901);
    member.leave().await;
    world.append(room.delivered(ben(), 7, 0)).await;
    world.append(room.left(ben())).await;
    let _member = Member::start(&world, database.pool());
    applied_all(&world, database.pool()).await;
    assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 902);
    assert_eq!(number(&database, "SELECT member_count::bigint FROM read.conversations").await, 1);
    assert_eq!(number(&database, "SELECT delivered_to FROM read.receipts").await, 7);
    let behind = "SELECT count(*) FROM read.checkpoints WHERE topic = 1 AND shard = 1 AND position <> 903";
    assert_eq!(number(&database, behind).await, 0);
}

#[tokio::test]
async fn a_poison_event_parks_its_key_for_its_projection_alone() {
    let (world, database) = (World::new(), Database::new().await);
    // All in one shard, and so in one batch.
    let mut rooms = [Room::new(4), Room::new(8), Room::new(12)];
    for room in &mut rooms {
        world.append(room.created(&[(ann(), Role::Owner)])).await;
        world.append(room.said(ann())).await;
    }
    world.append(rooms[1].said_with(ann(), |message| message.content = Some("no \0 column takes it".into()))).await;
    for room in &mut rooms {
        world.append(room.said(ann())).await;
    }
    let member = Member::start(&world, database.pool());
    applied_all(&world, database.pool()).await;
    member.leave().await;
    world.append(rooms[1].said(ann())).await;
    world.append(rooms[2].said(ann())).await;
    let _member = Member::start(&world, database.pool());
    applied_all(&world, database.pool()).await;
    let parked: Vec<(String, Uuid, String)> =
        sqlx::query_as("SELECT projection, key, error FROM read.parked ORDER BY position")
            .fetch_all(database.pool())
            .await
            .unwrap();
    let follows = "follows a parked event of its key";
    let errors: Vec<&str> = parked.iter().map(|(_, _, error)| error.as_str()).collect();
    assert_eq!(errors, ["PostgreSQL refuses a value with 22021", follows, follows]);
    assert!(parked.iter().all(|(projection, key, _)| projection == "timeline" && *key == rooms[1].id));
    // What came before it stands, and so does everything else.
    assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 2 + 3 + 4);
    assert_eq!(number(&database, "SELECT sum(last_seq)::bigint FROM read.conversations").await, 3 + 5 + 4);
    // As a rebuild does that can apply them.
    sqlx::query("DELETE FROM read.parked").execute(database.pool()).await.unwrap();
    world.append(rooms[1].said(ann())).await;
    applied_all(&world, database.pool()).await;
    assert_eq!(number(&database, "SELECT count(*) FROM read.parked").await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 2 + 3 + 4 + 1);
}

/// Fails, or panics, at whatever it is told to.
struct Fragile(fn(&Record) -> Result<(), ApplyError>);

#[async_trait]
impl Projection for Fragile {
    fn describe(&self) -> Description {
        Description { name: "fragile", consumer: Consumer::ReadModels, topics: &[Topic::Users], tables: &[] }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        for record in batch {
            (self.0)(record)?;
            let insert = "INSERT INTO fragile SELECT $1";
            sqlx::query(insert).bind(record.key).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

static PANICS: Fragile = Fragile(|record| match &record.event {
    Event::UserRegistered(user) if user.username.as_deref() == Some("ben") => panic!("not ben"),
    _ => Ok(()),
});

#[tokio::test]
async fn a_projection_that_panics_parks_what_it_panics_at() {
    let (world, database) = (World::new(), Database::new().await);
    sqlx::query("CREATE TABLE read.fragile (key uuid)").execute(database.pool()).await.unwrap();
    for (user, name) in [(4, "ann"), (8, "ben"), (12, "cleo"), (8, "ben again")] {
        world.append(registered(user, name)).await;
    }
    let holds = Holding::all();
    let running = holds.run(&world, &database, Topic::Users, vec![&PANICS]);
    let heads: Vec<_> = world.log.heads().into_iter().filter(|head| head.topic == Topic::Users).collect();
    assert!(holds.applied.reached(&heads, BOUND).await);
    running.abort();
    assert_eq!(number(&database, "SELECT count(*) FROM read.fragile").await, 2);
    assert_eq!(number(&database, "SELECT count(DISTINCT key) + count(*) FROM read.parked").await, 1 + 2);
}

#[tokio::test]
async fn of_two_runners_only_one_applies_each_batch() {
    let (world, database) = (World::new(), Database::new().await);
    // As one that was stopped, and does not know yet that another follows it.
    let (first, zombie) = (Holding::all(), Holding::all());
    for holds in [&first, &zombie] {
        let of_topic = |projection: &&&dyn Projection| projection.describe().topics == [Topic::Conversations];
        let projections = PROJECTIONS.iter().filter(of_topic).copied().collect();
        holds.run(&world, &database, Topic::Conversations, projections);
    }
    let mut room = Room::new(5);
    world.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
    for number in 0..400 {
        world.append(if number % 7 == 3 { room.left(ben()) } else { room.said(ann()) }).await;
        if number % 7 == 3 {
            world.append(room.joined(ben(), Role::Member)).await;
        }
        tokio::task::yield_now().await;
    }
    let heads: Vec<_> = world.log.heads().into_iter().filter(|head| head.topic == Topic::Conversations).collect();
    assert!(first.applied.reached(&heads, BOUND).await && zombie.applied.reached(&heads, BOUND).await);
    assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, i64::try_from(room.seq).unwrap());
    assert_eq!(number(&database, "SELECT last_seq FROM read.conversations").await, i64::try_from(room.seq).unwrap());
    assert_eq!(number(&database, "SELECT count(*) FROM read.parked").await, 0);
    assert_eq!(number(&database, "SELECT member_count::bigint FROM read.conversations").await, 2);
}

#[tokio::test]
async fn a_lost_connection_costs_a_moment() {
    let (world, database) = (World::new(), Database::new().await);
    let _member = Member::start(&world, database.pool());
    let mut room = Room::new(5);
    world.append(room.created(&[(ann(), Role::Owner)])).await;
    for _ in 0..5 {
        applied_all(&world, database.pool()).await;
        let killed: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
              WHERE datname = current_database() AND application_name LIKE 'parlance projectors %'",
        )
        .fetch_one(database.pool())
        .await
        .unwrap();
        assert!(killed > 0);
        world.append(room.said(ann())).await;
    }
    applied_all(&world, database.pool()).await;
    assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 6);
}

#[tokio::test]
async fn what_is_held_is_applied_as_it_changes() {
    let (world, database, holds) = (World::new(), Database::new().await, Holding::all());
    holds.held.send_replace([(Topic::Users, 1)].into_iter().collect());
    holds.run(&world, &database, Topic::Users, vec![PROJECTIONS[0]]);
    let users = async || number(&database, "SELECT count(*) FROM read.users").await;
    let at = |shard, position| Position { topic: Topic::Users, shard, position };
    for user in 1..=3 {
        world.append(registered(user, "somebody")).await;
    }
    assert!(holds.applied.reached(&[at(1, 1)], BOUND).await);
    assert_eq!(users().await, 1);
    holds.held.send_replace([(Topic::Users, 1), (Topic::Users, 3)].into_iter().collect());
    assert!(holds.applied.reached(&[at(3, 1)], BOUND).await);
    holds.held.send_replace([(Topic::Users, 2), (Topic::Users, 3)].into_iter().collect());
    assert!(holds.applied.reached(&[at(2, 1)], BOUND).await);
    world.append(registered(5, "of the shard that was taken away")).await;
    world.append(registered(7, "of one that was kept")).await;
    assert!(holds.applied.reached(&[at(3, 2)], BOUND).await);
    assert_eq!((users().await, holds.applied.get(Topic::Users, 1)), (4, 1));
    holds.held.send_replace(Held::default());
    eventually("its connection is closed", BOUND, async || {
        let open = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name LIKE 'parlance projectors %'";
        number(&database, open).await == 0
    })
    .await;
}

/// A bus that loses the second record of shard 1 for its first readers.
struct Lossy {
    bus: Arc<dyn Bus>,
    readers: AtomicUsize,
}

const LOSING: usize = 3;

struct LossyReader {
    subscription: Box<dyn Subscription>,
    loses: bool,
}

#[async_trait]
impl Bus for Lossy {
    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError> {
        self.bus.publish(records).await
    }

    async fn republish(&self, replay: Uuid, records: &[Arc<Record>]) -> Result<(), BusError> {
        self.bus.republish(replay, records).await
    }

    async fn heads(&self, topic: Topic) -> Result<Vec<(u16, u64)>, BusError> {
        self.bus.heads(topic).await
    }

    async fn tails(&self, topic: Topic, shards: &[u16]) -> Result<Vec<(u16, Tail)>, BusError> {
        self.bus.tails(topic, shards).await
    }

    async fn subscribe(&self, topic: Topic, after: &[(u16, u64)]) -> Result<Box<dyn Subscription>, BusError> {
        let loses = self.readers.fetch_add(1, Ordering::Relaxed) < LOSING;
        Ok(Box::new(LossyReader { subscription: self.bus.subscribe(topic, after).await?, loses }))
    }
}

#[async_trait]
impl Subscription for LossyReader {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let mut records = self.subscription.next(max).await?;
        records.retain(|record| !self.loses || (record.shard, record.position) != (1, 2));
        Ok(records)
    }
}

#[tokio::test]
async fn a_shard_with_a_gap_is_read_again_and_the_others_go_on() {
    let (world, database, holds) = (World::new(), Database::new().await, Holding::all());
    for user in [1, 5, 9, 2, 6] {
        world.append(registered(user, "somebody")).await;
    }
    let lossy = Arc::new(Lossy { bus: Arc::clone(&world.bus) as _, readers: AtomicUsize::default() });
    holds.run_on(Arc::clone(&lossy) as _, &database, Topic::Users, vec![PROJECTIONS[0]]);
    let at = |shard, position| Position { topic: Topic::Users, shard, position };
    assert!(holds.applied.reached(&[at(1, 1), at(2, 2)], BOUND).await);
    world.append(registered(10, "of a whole shard")).await;
    assert!(holds.applied.reached(&[at(2, 3)], BOUND).await);
    assert!(holds.applied.reached(&[at(1, 3)], BOUND).await);
    assert_eq!(lossy.readers.load(Ordering::Relaxed), LOSING + 1);
    assert_eq!(number(&database, "SELECT count(*) FROM read.users").await, 6);
}
