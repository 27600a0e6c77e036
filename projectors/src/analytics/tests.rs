//! The views say what a plain model says, whatever happens and however it comes.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use schemas::{Event, Role};
use sqlx::PgConnection;
use testkit::Database;
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use super::model::Views;
use super::*;
use crate::database::connect;
use crate::properties::{log, steps};
use crate::testing::{Bench, Room, ann, ben, cleo, pass, session};

/// A row of a histogram.
type Bar = (OffsetDateTime, Option<Uuid>, Option<i64>, Option<i64>, i64, i64);

async fn views(connection: &mut PgConnection) -> Views {
    let active: Vec<(Date, Option<Uuid>, i64)> =
        sqlx::query_as("SELECT day, conversation_id, users FROM read.daily_active_users")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let messages: Vec<(OffsetDateTime, Option<Uuid>, i64)> =
        sqlx::query_as("SELECT hour, conversation_id, messages FROM read.messages_by_hour")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let delivered: Vec<Bar> =
        sqlx::query_as("SELECT hour, conversation_id, over_ms, up_to_ms, deliveries, sum_ms FROM read.delivery_delays")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let read: Vec<Bar> =
        sqlx::query_as("SELECT hour, conversation_id, over_ms, up_to_ms, reads, sum_ms FROM read.read_delays")
            .fetch_all(connection)
            .await
            .unwrap();
    let rows = (active.len(), messages.len(), delivered.len(), read.len());
    let bars = |rows: Vec<Bar>| {
        rows.into_iter().map(|(hour, id, over, up_to, count, sum)| ((hour, id, (over, up_to)), (count, sum))).collect()
    };
    let views = Views {
        daily_active_users: active.into_iter().map(|(day, id, users)| ((day, id), users)).collect(),
        messages_by_hour: messages.into_iter().map(|(hour, id, messages)| ((hour, id), messages)).collect(),
        delivery_delays: bars(delivered),
        read_delays: bars(read),
    };
    let keys = (views.daily_active_users.len(), views.messages_by_hour.len(), views.delivery_delays.len());
    assert_eq!(rows, (keys.0, keys.1, keys.2, views.read_delays.len()), "a row of a view for each key");
    views
}

async fn kept(connection: &mut PgConnection) -> Vec<i64> {
    sqlx::query_scalar("SELECT seq FROM analytics_messages ORDER BY seq").fetch_all(connection).await.unwrap()
}

#[test]
fn the_views_say_what_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::new());
    let connection = tokio::sync::Mutex::new(runtime.block_on(connect(database.pool(), "read")).unwrap());
    let mut runner =
        TestRunner::new(Config { cases: 60, max_shrink_iters: 200, failure_persistence: None, ..Config::default() });
    // Batches begin again somewhere before they ended, as after a crash.
    let input = (steps(), prop::collection::vec((1..40_usize, 0..20_usize), 0..40));
    let result = runner.run(&input, |(steps, batches)| {
        let records = log(&steps);
        runtime.block_on(async {
            let connection = &mut *connection.lock().await;
            for table in Analytics.describe().tables {
                sqlx::query(sqlx::AssertSqlSafe(format!("TRUNCATE {table}"))).execute(&mut *connection).await.unwrap();
            }
            let mut from = 0;
            for (length, back) in batches.into_iter().chain([(usize::MAX, 0)]) {
                let end = records.len().min(from + length.min(records.len()));
                Analytics.apply(connection, &records[from..end]).await.unwrap();
                from = end.saturating_sub(back);
            }
            let expected = Views::of(&records);
            prop_assert_eq!(views(connection).await, expected);
            Ok(())
        })
    });
    drop(connection);
    result.unwrap();
}

#[tokio::test]
async fn a_watermark_passes_what_others_sent_while_its_user_was_a_member() {
    let bench = Bench::new(&Analytics).await;
    let mut room = Room::new(5);
    bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
    bench.keep(room.said(ann()));
    bench.keep(room.said(ben()));
    bench.apply().await;
    pass(Duration::minutes(2));
    bench.keep(room.joined(cleo(), Role::Member));
    bench.keep(room.said(ann()));
    pass(Duration::seconds(20));
    // Two minutes and more for one of Ann's, 20 s for the other; none for Ben's own. Cleo has only the second.
    bench.keep(room.read(ben(), room.seq, room.seq));
    bench.keep(room.delivered(cleo(), room.seq, 4));
    bench.apply().await;
    let bars = "SELECT up_to_ms, deliveries FROM read.delivery_delays WHERE conversation_id IS NULL ORDER BY up_to_ms";
    assert_eq!(bench.rows::<(i64, i64)>(bars).await, [(30_000, 2), (300_000, 1)]);
    let bars = "SELECT up_to_ms, reads FROM read.read_delays WHERE conversation_id IS NOT NULL ORDER BY up_to_ms";
    assert_eq!(bench.rows::<(i64, i64)>(bars).await, [(30_000, 1), (300_000, 1)]);
}

#[tokio::test]
async fn times_of_messages_go_once_all_members_have_read_them() {
    let bench = Bench::new(&Analytics).await;
    let mut room = Room::new(5);
    bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member), (cleo(), Role::Member)]));
    bench.keep(room.said(ann()));
    bench.keep(room.said(ben()));
    bench.keep(room.said(ann()));
    bench.keep(room.read(ann(), 4, 4));
    bench.keep(room.read(ben(), 4, 3));
    bench.apply().await;
    let connection = &mut bench.connection().await;
    assert_eq!(kept(connection).await, [2, 3, 4]);
    bench.keep(room.read(cleo(), 2, 2));
    bench.apply().await;
    assert_eq!(kept(connection).await, [3, 4]);
    // Not the last one's.
    bench.keep(room.read(ben(), 4, 4));
    bench.apply().await;
    assert_eq!(kept(connection).await, [3, 4]);
    bench.keep(room.left(cleo()));
    bench.keep(room.said(ann()));
    bench.keep(room.said(ben()));
    bench.apply().await;
    assert_eq!(kept(connection).await, [6, 7]);
    // Ann has not read Ben's; her own is nothing that she has yet to read.
    bench.keep(room.read(ben(), 7, 7));
    bench.apply().await;
    assert_eq!(kept(connection).await, [7]);
    bench.keep(room.left(ann()));
    bench.apply().await;
    bench.keep(room.said(ben()));
    bench.apply().await;
    assert_eq!(kept(connection).await, [0; 0]);
}

#[tokio::test]
async fn a_crowd_passes_many_messages_at_once() {
    const CROWD: u128 = 2_000;
    const MESSAGES: u64 = 500;
    let bench = Bench::new(&Analytics).await;
    let mut room = Room::new(5);
    let crowd: Vec<Uuid> = (1..=CROWD).map(Uuid::from_u128).collect();
    bench.keep(room.created(&crowd.iter().map(|user| (*user, Role::Member)).collect::<Vec<_>>()));
    for _ in 0..MESSAGES {
        bench.keep(room.said(ann()));
    }
    bench.apply().await;
    for user in &crowd {
        bench.keep(room.read(*user, room.seq, room.seq));
    }
    bench.apply().await;
    let reads = "SELECT sum(reads)::bigint, max(conversation_id::text) FROM read.read_delays GROUP BY conversation_id";
    let expected = i64::try_from(u64::try_from(CROWD - 1).unwrap() * MESSAGES).unwrap();
    let rows: Vec<(i64, Option<String>)> = bench.rows(reads).await;
    assert_eq!(rows.iter().map(|(reads, _)| *reads).collect::<Vec<_>>(), [expected, expected]);
    assert_eq!(kept(&mut bench.connection().await).await, [0; 0]);
}

#[tokio::test]
async fn who_is_active_is_counted_once_a_day() {
    let bench = Bench::new(&Analytics).await;
    let mut room = Room::new(5);
    bench.keep(session(3, 11, Event::SessionStarted));
    bench.keep(session(3, 11, Event::SessionRefreshed));
    bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
    bench.keep(room.said(ann()));
    bench.keep(room.said(ann()));
    // His device has it, which says nothing of him.
    bench.keep(room.delivered(ben(), 3, 0));
    bench.apply().await;
    bench.keep(room.said(ann()));
    pass(Duration::DAY);
    bench.keep(room.read(ben(), 4, 4));
    bench.keep(session(1, 12, Event::SessionStarted));
    bench.keep(session(1, 12, Event::SessionRevoked));
    bench.apply().await;
    let active = "SELECT conversation_id IS NULL, users FROM read.daily_active_users ORDER BY 1, day";
    assert_eq!(bench.rows::<(bool, i64)>(active).await, [(false, 1), (false, 1), (true, 2), (true, 2)]);
}

#[tokio::test]
async fn quantiles_lie_where_the_histogram_has_them() {
    let database = Database::new().await;
    let quantile = async |quantile: f64, counts: [i64; 16]| -> Option<f64> {
        sqlx::query_scalar(
            "SELECT read.delay_quantile($1, array_agg(over_ms), array_agg(up_to_ms), array_agg(count)) \
               FROM unnest($2::bigint[]) WITH ORDINALITY AS c(count, number) \
               JOIN read.delay_buckets ON bucket = number - 1",
        )
        .bind(quantile)
        .bind(counts)
        .fetch_one(database.pool())
        .await
        .unwrap()
    };
    let mut counts = [0; 16];
    assert_eq!(quantile(0.5, counts).await, None);
    counts[0] = 50;
    counts[3] = 50;
    assert_eq!(quantile(0.5, counts).await, Some(10.0));
    assert_eq!(quantile(0.25, counts).await, Some(5.0));
    assert_eq!(quantile(0.75, counts).await, Some(75.0));
    assert_eq!(quantile(1.0, counts).await, Some(100.0));
    counts[15] = 900;
    assert_eq!(quantile(0.5, counts).await, Some(86_400_000.0));
}

#[tokio::test]
async fn every_view_says_what_each_of_its_columns_is() {
    let database = Database::new().await;
    let silent: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname || coalesce('.' || a.attname, '') \
           FROM pg_class c \
           JOIN (SELECT attrelid, attnum, attname FROM pg_attribute WHERE attnum > 0 \
                  UNION ALL SELECT oid, 0, NULL FROM pg_class) AS a ON a.attrelid = c.oid \
          WHERE c.relnamespace = 'read'::regnamespace AND c.relkind = 'v' \
            AND NOT EXISTS (SELECT FROM pg_description d \
                             WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum)",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(silent, [""; 0]);
}
