//! Several processes share the projecting, and follow one another.

use std::time::Duration;

use platform::leases::{BEAT, Held};
use schemas::Role;
use sqlx::{Connection, PgConnection};
use testkit::{Database, eventually};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::*;
use crate::testing::{Member, Room, SHARDS, World, ann, applied_all};

const BOUND: Duration = Duration::from_mins(1);

/// One that takes a share of the leases, and projects nothing.
struct Idle {
    held: watch::Receiver<Held>,
    application: String,
    running: JoinSet<()>,
}

impl Idle {
    fn join(pool: &PgPool) -> Self {
        let all = Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)));
        let leases = Leases::new(pool.clone(), DUTY, all);
        let (held, application, mut running) = (leases.held(), leases.application(), JoinSet::new());
        running.spawn(leases.run(CancellationToken::new()));
        Self { held, application, running }
    }

    async fn holds_half(&self) {
        let half = usize::from(SHARDS) * Topic::ALL.len() / 2;
        eventually("half is held", BOUND, async || {
            Topic::ALL.into_iter().map(|topic| self.held.borrow().shards(topic).count()).sum::<usize>() == half
        })
        .await;
    }
}

async fn messages(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM read.timeline").fetch_one(database.pool()).await.unwrap()
}

/// A room in every shard.
async fn rooms(world: &World) -> Vec<Room> {
    let mut rooms: Vec<Room> = (20..20 + u128::from(SHARDS)).map(Room::new).collect();
    for room in &mut rooms {
        world.append(room.created(&[(ann(), Role::Owner)])).await;
    }
    rooms
}

#[tokio::test]
async fn one_alone_begins_at_once_and_hands_back_at_once() {
    let (world, database) = (World::new(), Database::new().await);
    rooms(&world).await;
    // Connected, and its plans made.
    messages(&database).await;
    let member = Member::start(&world, database.pool());
    assert!(member.applied.reached(&world.log.heads(), BOUND).await);
    member.leave().await;
    let left = "SELECT (SELECT count(*) FROM state.leases) + (SELECT count(*) FROM state.lease_members)";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(database.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn members_come_and_go_and_everything_is_applied_once() {
    let (world, database) = (World::new(), Database::new().await);
    let mut rooms = rooms(&world).await;
    let mut members = vec![Member::start(&world, database.pool())];
    let mut said = rooms.len();
    let until_changed = Instant::now() + 3 * BEAT;
    for number in 0.. {
        for room in &mut rooms {
            world.append(room.said(ann())).await;
            said += 1;
        }
        match number {
            20 | 40 => members.push(Member::start(&world, database.pool())),
            60 => members.remove(0).leave().await,
            // For as long as it takes until shares are handed over.
            _ if number > 60 && Instant::now() > until_changed => break,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    applied_all(&world, database.pool()).await;
    assert_eq!(messages(&database).await, i64::try_from(said).unwrap());
    let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM read.parked").fetch_one(database.pool()).await.unwrap();
    assert_eq!(parked, 0);
    for member in members {
        member.leave().await;
    }
}

#[tokio::test]
async fn one_that_is_stopped_in_a_transaction_keeps_nobody_waiting() {
    let (world, database) = (World::new(), Database::new().await);
    let mut rooms = rooms(&world).await;
    let member = Member::start(&world, database.pool());
    applied_all(&world, database.pool()).await;
    let mut stopped = Idle::join(database.pool());
    stopped.holds_half().await;
    // It holds the checkpoints of its shards locked, and does not speak any more.
    let options = database.options().application_name(&stopped.application);
    let mut stuck = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE read.checkpoints SET position = position + 1").execute(&mut stuck).await.unwrap();
    stopped.running.shutdown().await;
    for room in &mut rooms {
        world.append(room.said(ann())).await;
    }
    assert!(member.applied.reached(&world.log.heads(), BOUND).await);
    assert!(stuck.ping().await.is_err());
    assert_eq!(messages(&database).await, 2 * i64::from(SHARDS));
    member.leave().await;
}

#[tokio::test]
async fn one_that_is_not_known_to_be_stopped_is_ended_by_the_database() {
    let database = Database::new().await;
    let mut stuck = crate::database::connect_runner(database.pool(), "parlance projectors nobody").await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE read.checkpoints").execute(&mut stuck).await.unwrap();
    let freed = sqlx::query("UPDATE read.checkpoints SET position = 0").execute(database.pool());
    timeout(BOUND, freed).await.expect("nobody waits for the one that is stuck").unwrap();
}
