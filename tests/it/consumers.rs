//! Consumers from outside, as `docs/consumers` has them: they know nothing but the topics and the published schemas, and
//! what they make of it is what the query API answers, whatever happens on the way.

mod answers;
mod outside;
mod rounds;

use std::cell::Cell;

use bench::demo;
use sqlx::{Connection, PgConnection};
use testkit::{
    app::{App, Blow, Role},
    eventually, eventually_some,
};
use tokio::time::timeout;

use self::{
    answers::Accounts,
    outside::{ConversationCopy, Counts, Hours, self_tests},
    rounds::Rounds,
};
use crate::blows::delete_topics;
use crate::people::{BOUND, place_on_stack};
use crate::records::{TOPICS, dense_up_to_the_heads};
use crate::replay::replay_all;

/// Of the demo's conversations.
const CONVERSATIONS: usize = 12;
const LINES: usize = 40;
/// One after the other, each in the middle of the demo, each with the consumers killed too.
const BLOWS: [Blow; 10] = [
    Blow::One(Role::Relay),
    Blow::Everything,
    Blow::One(Role::Projectors),
    Blow::Kafka,
    Blow::EverythingAndPostgres,
    Blow::All(Role::Relay),
    Blow::One(Role::CommandApi),
    Blow::Everything,
    Blow::One(Role::QueryApi),
    Blow::EverythingAndPostgres,
];

#[tokio::test]
async fn their_own_tests_pass() {
    self_tests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_from_the_topics_is_what_the_query_api_answers() {
    let place = place_on_stack().await;
    let mut app = place.start().await.unwrap();
    let (copy, hours) = (ConversationCopy::of(&app), Hours::of(&app));
    let mut rounds = Rounds::begin(&app.server()).await;

    let scripts = demo::scripts(CONVERSATIONS, LINES).await.unwrap();
    let lines: usize = scripts.iter().map(|script| script.lines.len()).sum();
    let address = app.address();
    let over = Cell::new(false);
    let replay = async {
        let replayed = demo::replay(&address, &scripts).await.unwrap();
        over.set(true);
        replayed
    };
    let around = async {
        for _ in 0..BLOWS.len() {
            rounds.go().await;
        }
    };
    let strikes = async {
        let mut keeping = (copy.keep(), hours.keep());
        for (n, blow) in BLOWS.into_iter().enumerate() {
            let said = lines * (n + 1) / (BLOWS.len() + 2);
            eventually("the demo goes on", BOUND, async || over.get() || messages(&app).await >= said).await;
            assert!(!over.get(), "{blow} comes too late");
            eprintln!("{blow}, and the consumers, after {said} of {lines} lines");
            // They are gone already when it falls, or live through it first.
            let gone = n.is_multiple_of(2);
            if gone {
                keeping.0.kill().await;
                keeping.1.kill().await;
            }
            app.roles().unwrap().strike(&place, blow).await.unwrap();
            if !gone {
                keeping.0.kill().await;
                keeping.1.kill().await;
            }
            keeping = (copy.keep(), hours.keep());
        }
        keeping
    };
    let (replayed, (), mut keeping) = tokio::join!(replay, around, strikes);
    keeping.0.stop().await;
    keeping.1.stop().await;
    assert_eq!(replayed.lines, lines);
    let names = replayed.accounts.into_iter().map(|(name, _)| (name, demo::PASSWORD.to_owned()));
    let accounts = Accounts::log_in(&app.server(), names.chain(rounds.names())).await;

    dense_up_to_the_heads(&app).await;
    copy.read_to_the_end().await;
    let exact = equal_to_the_answers("ten kills", &copy, &accounts).await;
    assert!(exact.matches("\"message_id\"").count() >= 2 * lines, "each line is seen by both");
    counts_are_the_logs(&app, &hours).await;

    // Everything a second time, over the copy that is there, and into an empty one.
    copy.forget().await;
    copy.read_to_the_end().await;
    assert!(copy.dump().await == exact, "what was read twice changed the copy");
    let second = ConversationCopy::of(&app);
    second.read_to_the_end().await;
    assert!(second.dump().await == exact, "a copy made later is another one");

    // Everything is published again, behind what was there and between what is new.
    replay_all(&place).await;
    rounds.go().await;
    dense_up_to_the_heads(&app).await;
    copy.read_to_the_end().await;
    equal_to_the_answers("a replay", &copy, &accounts).await;
    counts_are_the_logs(&app, &hours).await;

    // The topics are gone, and filled anew: offsets start again, events do not. One who reads meanwhile goes on, and one
    // who comes later finds other offsets.
    let mut keeping = (copy.keep(), hours.keep());
    rounds.go().await;
    equal_to_the_answers("another round", &copy, &accounts).await;
    delete_topics(&place, &TOPICS).await;
    rounds.go().await;
    dense_up_to_the_heads(&app).await;
    equal_to_the_answers("a wiped Kafka", &copy, &accounts).await;
    let all = events(&app).await;
    eventually("the count goes on", BOUND, async || total(&hours.so_far()) == all).await;
    keeping.0.stop().await;
    keeping.1.stop().await;
    second.read_to_the_end().await;
    equal_to_the_answers("a wiped Kafka, for one who was away", &second, &accounts).await;
    counts_are_the_logs(&app, &hours).await;
    assert!(app.stop().await.unwrap().success());
}

/// Waits until the copy has, and the query API, whose read models may lag, answers the same. Hands out what they agree on.
async fn equal_to_the_answers(after: &str, copy: &ConversationCopy, accounts: &Accounts) -> String {
    let mut difference = None;
    let equal = timeout(BOUND, async {
        loop {
            let dump = copy.dump().await;
            difference = accounts.difference(&serde_json::from_str(&dump).unwrap()).await;
            if difference.is_none() {
                return dump;
            }
        }
    });
    let equal = equal.await;
    equal.unwrap_or_else(|_| {
        panic!("the copy differs after {after}: {}\n{}", difference.unwrap_or_default(), copy.log())
    })
}

/// The Node consumer has counted each event of the log once, under its type and hour.
async fn counts_are_the_logs(app: &App, hours: &Hours) {
    let counted = hours.read_to_the_end().await;
    assert_eq!(total(&counted), events(app).await, "{counted:?}");
    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    // The numbered ones stand in a read model, type by type.
    let numbered = eventually_some("the timeline is whole", BOUND, async || {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24\":00:00Z\"'), coalesce(event, 'message.sent'), \
                    count(*) FROM read.timeline GROUP BY 1, 2",
        )
        .fetch_all(&mut database)
        .await
        .unwrap();
        let whole = rows.iter().all(|(hour, kind, count)| counted[hour].get(kind) == Some(count));
        whole.then_some(rows)
    });
    assert!(numbered.await.len() >= 6, "not all types were there");
}

/// How many events the log has.
async fn events(app: &App) -> i64 {
    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    sqlx::query_scalar("SELECT sum(head)::bigint FROM log.shards").fetch_one(&mut database).await.unwrap()
}

fn total(counts: &Counts) -> i64 {
    counts.values().flat_map(|types| types.values()).sum()
}

/// How many messages there are to be seen.
async fn messages(app: &App) -> usize {
    let counted = async {
        let mut database = PgConnection::connect_with(&app.database().await?).await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM read.timeline WHERE message_id IS NOT NULL")
            .fetch_one(&mut database)
            .await?;
        anyhow::Ok(usize::try_from(count)?)
    };
    // It was just killed, say.
    counted.await.unwrap_or(0)
}
