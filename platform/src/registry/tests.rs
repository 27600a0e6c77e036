//! Who is on the list, and for how long.

use sqlx::ConnectOptions;
use sqlx::postgres::PgPoolOptions;
use testkit::{Database, FaultProxy, eventually};

use super::*;

const BOUND: Duration = Duration::from_mins(1);

fn url(port: u16) -> PublicUrl {
    format!("http://127.0.0.1:{port}").parse().unwrap()
}

fn ports(receiver: &watch::Receiver<Members>) -> Vec<u16> {
    receiver.borrow().iter().map(|url| url.rsplit(':').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn who_joins_is_seen_and_who_leaves_is_not() {
    let database = Database::new().await;
    let pool = database.pool().clone();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let seen = watch(pool.clone(), stop.clone());
    assert!(seen.borrow().is_empty());
    let (one, other) = (stop.child_token(), stop.child_token());
    let first = tokio::spawn(join(pool.clone(), url(2), one.clone()));
    tokio::spawn(join(pool.clone(), url(1), other));
    eventually("both are seen", BOUND, async || ports(&seen) == [1, 2]).await;

    // A successor at the same address; then the old one leaves, which is not the successor's leaving.
    let successor = stop.child_token();
    tokio::spawn(join(pool.clone(), url(2), successor));
    let members = async || -> Uuid {
        let member = sqlx::query_scalar("SELECT member FROM state.command_apis WHERE url LIKE '%:2'");
        member.fetch_one(&pool).await.unwrap()
    };
    let before = members().await;
    eventually("the successor is there", BOUND, async || members().await != before).await;
    one.cancel();
    first.await.unwrap();
    eventually("the successor is seen", BOUND, async || ports(&seen) == [1, 2]).await;
}

#[tokio::test]
async fn a_clean_stop_is_seen_at_once_and_a_death_soon() {
    let database = Database::new().await;
    let pool = database.pool().clone();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let (leaver, dier) = (stop.child_token(), stop.child_token());
    let leaving = tokio::spawn(join(pool.clone(), url(1), leaver.clone()));
    let dying = tokio::spawn(join(pool.clone(), url(2), dier));
    let seen = watch(pool.clone(), stop.clone());
    eventually("both are seen", BOUND, async || ports(&seen) == [1, 2]).await;
    leaver.cancel();
    leaving.await.unwrap();
    let stored = read(&pool).await.unwrap();
    assert_eq!(stored.len(), 1, "{stored:?}");
    dying.abort();
    eventually("nobody is seen", BOUND, async || ports(&seen).is_empty()).await;
}

#[tokio::test]
async fn the_last_list_stands_while_the_database_is_away() {
    let database = Database::new().await;
    let options = database.options();
    let proxy = FaultProxy::start(options.get_socket().unwrap()).unwrap();
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy_with(options.socket(proxy.folder()).disable_statement_logging());
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    sqlx::query("INSERT INTO state.command_apis VALUES ('http://127.0.0.1:1', gen_random_uuid(), clock_timestamp())")
        .execute(database.pool())
        .await
        .unwrap();
    let mut seen = watch(pool, stop.clone());
    seen.changed().await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    eventually("it is out of time", BOUND, async || read(database.pool()).await.unwrap().is_empty()).await;
    assert_eq!(ports(&seen), [1]);
    proxy.refuse(false);
    eventually("it is dropped once the database is back", BOUND, async || ports(&seen).is_empty()).await;
}
