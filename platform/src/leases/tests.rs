//! Members come, go, die and are cut off.

use sqlx::{Connection, PgConnection};
use testkit::{Database, FaultProxy, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use super::*;

const BOUND: Duration = Duration::from_mins(1);
const SHARDS: u16 = 5;

fn parts() -> impl Iterator<Item = Part> {
    Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)))
}

struct Member {
    held: watch::Receiver<Held>,
    application: String,
    in_use: InUse,
    running: JoinHandle<()>,
    stop: DropGuard,
}

impl Member {
    fn join(pool: &PgPool) -> Self {
        Self::run(Leases::new(pool.clone(), "testing", parts()))
    }

    fn run(leases: Leases) -> Self {
        let (held, application, stop) = (leases.held(), leases.application(), CancellationToken::new());
        let in_use = leases.in_use();
        let running = tokio::spawn(leases.run(stop.clone()));
        Self { held, application, in_use, running, stop: stop.drop_guard() }
    }

    fn parts(&self) -> BTreeSet<Part> {
        self.held.borrow().parts.clone()
    }

    async fn leave(self) {
        drop(self.stop);
        self.running.await.unwrap();
    }
}

/// Waits until the members hold so many parts each, and each part has one holder.
async fn divided(members: &[&Member], shares: &[usize]) {
    eventually("the leases are divided", BOUND, async || {
        let held: Vec<_> = members.iter().map(|member| member.parts()).collect();
        let mut counts: Vec<_> = held.iter().map(BTreeSet::len).collect();
        counts.sort_unstable();
        let all: BTreeSet<Part> = held.iter().flatten().copied().collect();
        counts == shares && all.len() == shares.iter().sum::<usize>()
    })
    .await;
}

#[tokio::test]
async fn who_comes_gets_a_share_and_who_leaves_hands_it_back() {
    let database = Database::new().await;
    let first = Member::join(database.pool());
    divided(&[&first], &[10]).await;
    let (second, third) = (Member::join(database.pool()), Member::join(database.pool()));
    divided(&[&first, &second, &third], &[3, 3, 4]).await;
    second.leave().await;
    // At once, not when they run out.
    let members = "SELECT count(*) FROM state.lease_members";
    assert_eq!(sqlx::query_scalar::<_, i64>(members).fetch_one(database.pool()).await.unwrap(), 2);
    divided(&[&first, &third], &[5, 5]).await;
    first.leave().await;
    divided(&[&third], &[10]).await;
    assert_eq!(third.held.borrow().shards(Topic::Users).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(third.held.borrow().has(Topic::Conversations, 4) && !third.held.borrow().has(Topic::Users, SHARDS));
}

#[tokio::test]
async fn a_share_has_shards_of_every_topic() {
    let database = Database::new().await;
    let first = Member::join(database.pool());
    divided(&[&first], &[10]).await;
    let second = Member::join(database.pool());
    divided(&[&first, &second], &[5, 5]).await;
    for topic in Topic::ALL {
        assert!([2, 3].contains(&first.held.borrow().shards(topic).count()), "{topic:?}");
    }
}

/// A member that keeps parts that are in use for so long.
fn patient(pool: &PgPool, patience: Duration) -> Member {
    Member::run(Leases::new(pool.clone(), "testing", parts()).patient(patience))
}

#[tokio::test]
async fn what_is_in_use_is_handed_back_once_it_is_not() {
    let database = Database::new().await;
    let first = patient(database.pool(), BOUND * 2);
    divided(&[&first], &[10]).await;
    // The last part is the first to be given up.
    let part = (Topic::Conversations, SHARDS - 1);
    let uses = [first.in_use.hold(part), first.in_use.hold(part)];
    let second = Member::join(database.pool());
    divided(&[&first, &second], &[4, 5]).await;
    // It stays so while shares change, and may come back meanwhile.
    let third = Member::join(database.pool());
    divided(&[&first, &second, &third], &[2, 3, 4]).await;
    third.leave().await;
    divided(&[&first, &second], &[5, 5]).await;
    assert!(first.parts().contains(&part));
    let [one, other] = uses;
    drop(one);
    let third = Member::join(database.pool());
    divided(&[&first, &second, &third], &[2, 3, 4]).await;
    drop(other);
    divided(&[&first, &second, &third], &[3, 3, 4]).await;
    assert!(third.parts().contains(&part));
}

#[tokio::test]
async fn what_is_in_use_for_too_long_is_handed_back_all_the_same() {
    let database = Database::new().await;
    let first = patient(database.pool(), BEAT * 2);
    divided(&[&first], &[10]).await;
    let uses: Vec<_> = parts().map(|part| first.in_use.hold(part)).collect();
    let second = Member::join(database.pool());
    divided(&[&first, &second], &[5, 5]).await;
    drop(uses);
}

#[tokio::test]
async fn who_dies_is_followed_and_what_it_held_locked_is_let_go() {
    let database = Database::new().await;
    let (dead, successor) = (Member::join(database.pool()), Member::join(database.pool()));
    divided(&[&dead, &successor], &[5, 5]).await;
    sqlx::query("CREATE TABLE public.work (amount integer)").execute(database.pool()).await.unwrap();
    sqlx::query("INSERT INTO public.work VALUES (1)").execute(database.pool()).await.unwrap();
    // As a process that is stopped in a transaction: its connection stays, and nobody speaks on it.
    let options = database.options().application_name(&dead.application);
    let mut stuck = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE public.work SET amount = 2").execute(&mut stuck).await.unwrap();
    dead.running.abort();
    divided(&[&successor], &[10]).await;
    sqlx::query("UPDATE public.work SET amount = 3").execute(database.pool()).await.unwrap();
    assert!(stuck.ping().await.is_err());
}

#[tokio::test]
async fn who_is_cut_off_knows_that_it_holds_nothing() {
    let database = Database::new().await;
    let options = database.options();
    let proxy = FaultProxy::start(options.get_socket().expect("the tests' server has a Unix socket")).unwrap();
    let pool = PgPool::connect_lazy_with(options.socket(proxy.folder()));
    let (cut, other) = (Member::join(&pool), Member::join(database.pool()));
    divided(&[&cut, &other], &[5, 5]).await;
    proxy.refuse(true);
    proxy.cut();
    divided(&[&cut, &other], &[0, 10]).await;
    let lapses = cut.held.borrow().lapses();
    proxy.refuse(false);
    divided(&[&cut, &other], &[5, 5]).await;
    assert!(cut.held.borrow().lapses() > lapses);
}

#[tokio::test(start_paused = true)]
async fn who_was_stopped_knows_by_its_own_clock() {
    let held = Held { parts: parts().collect(), until: Some(Instant::now() + TTL), lapses: 0 };
    assert!(held.has(Topic::Users, 0));
    tokio::time::advance(TTL).await;
    assert!(!held.has(Topic::Users, 0));
    assert!(parts().collect::<Held>().has(Topic::Users, 0));
}

#[tokio::test]
async fn a_share_comes_and_goes() {
    let database = Database::new().await;
    let old = Member::join(database.pool());
    divided(&[&old], &[10]).await;
    let new = Member::join(database.pool());
    divided(&[&old, &new], &[5, 5]).await;
    old.running.abort();
    divided(&[&new], &[10]).await;
    // Nobody told it, and yet it knows.
    assert!(!old.parts().is_empty() && !old.held.borrow().has(Topic::Users, 0));
}
