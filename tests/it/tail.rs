//! `parlance tail`: from the log and from Kafka, and how it ends.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use parlance_client::{Client, text_message};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::app::Place;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};
use uuid::Uuid;

use crate::blows::delete_topics;
use crate::people::{BOUND, everywhere, person, place_on_stack};
use crate::records::{TOPICS, dense_up_to_the_heads};

/// What it prints up to the end of what is there, by topic-wide place, and what it says beside.
async fn tail(place: &Place, arguments: &[&str]) -> (Vec<Value>, String) {
    let output = place.command(&[&["tail", "--no-follow"], arguments].concat()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
}

/// By id: shards come in no order.
fn by_id(events: Vec<Value>) -> BTreeMap<String, Value> {
    let count = events.len();
    let events: BTreeMap<_, _> =
        events.into_iter().map(|event| (event["id"].as_str().unwrap().to_owned(), event)).collect();
    assert_eq!(events.len(), count, "each once");
    events
}

/// One that follows.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = place.command(&[&["tail"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> Value {
        let line = timeout(BOUND, self.lines.next_line()).await.expect("a line").unwrap().expect("no end");
        serde_json::from_str(&line).unwrap()
    }

    async fn interrupt(mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        timeout(BOUND, self.child.wait()).await.expect("it ends").unwrap().code()
    }
}

async fn say(client: &Client, conversation: Uuid, content: &str) {
    client.send(conversation, &text_message(content)).await.unwrap();
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap()
}

everywhere!(it_follows_and_ends_as_it_is_told);

async fn it_follows_and_ends_as_it_is_told(place: Place) {
    let app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    say(&ann, conversation, "before").await;
    let since = now();
    let mut following = Following::start(&place, &["message.sent", "--since", &since]);
    let mut all = Following::start(&place, &["--since", "2026-01-01T00:00:00Z"]);
    say(&ann, conversation, "one").await;
    assert_eq!(following.next().await["data"]["content"], "one");
    say(&ann, conversation, "two").await;
    assert_eq!(following.next().await["data"]["content"], "two");
    assert_eq!(following.interrupt().await, Some(0));
    assert!(all.next().await["type"].is_string());
    // Whoever reads it goes away: the next lines are its end, and no failure.
    drop(all.lines);
    let ended = async {
        loop {
            if let Ok(ended) = timeout(Duration::from_millis(200), all.child.wait()).await {
                return ended.unwrap();
            }
            say(&ann, conversation, "is anybody there?").await;
        }
    };
    assert_eq!(timeout(BOUND, ended).await.expect("it ends").code(), Some(0));
    // From a place on, and from a time on; and what is no type.
    let (sent, _) = tail(&place, &["message.sent", "--since", &since]).await;
    assert!(sent.len() >= 2 && sent.iter().all(|event| event["type"] == "message.sent"), "{sent:?}");
    let (whole, _) = tail(&place, &[]).await;
    let begun = whole.iter().find(|event| event["type"] == "conversation.created").unwrap();
    let shard = shard_of(&place, begun).await;
    let from = format!("parlance.conversations.v1/{shard}:3");
    let (rest, _) = tail(&place, &["--from", &from]).await;
    assert!(rest.iter().all(|event| event["partitionkey"] == begun["partitionkey"]), "{rest:?}");
    assert_eq!(rest[0]["sequence"], format!("{:020}", 3));
    let output = place.command(&["tail", "message.sended"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let refused = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(refused.contains("message.sent,") && refused.contains("user.registered"), "{refused}");
    let output = place.command(&["tail", "--no-follow", "--from", "parlance.users.v1/999:1"]).output().await.unwrap();
    assert!(!output.status.success());
    assert!(app.stop().await.unwrap().success());
}

/// The shard that holds this event, found by asking for it everywhere.
async fn shard_of(place: &Place, event: &Value) -> u16 {
    for shard in 0..16 {
        let from = format!("parlance.conversations.v1/{shard}:1");
        let (events, _) = tail(place, &["conversation.created", "--from", &from]).await;
        if events.iter().any(|other| other["id"] == event["id"]) {
            return shard;
        }
    }
    panic!("{event} is nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_says_what_the_log_says_and_more() {
    let place = place_on_stack().await;
    let app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    for n in 0..20 {
        say(&ann, conversation, &format!("message {n}")).await;
    }
    dense_up_to_the_heads(&app).await;
    let (of_kafka, warned) = tail(&place.clone().without("DATABASE_URL"), &[]).await;
    assert_eq!(warned, "");
    let (of_log, _) = tail(&place.clone().without("KAFKA_BROKERS"), &[]).await;
    assert_eq!(by_id(of_kafka), by_id(of_log));

    // What was published again is there again, and says so.
    let output = place.command(&["replay", TOPICS[1], "--from", "20"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (events, _) = tail(&place, &["message.sent"]).await;
    let again: Vec<_> = events.iter().filter(|event| event["replay"].is_string()).collect();
    assert!(!again.is_empty() && again.iter().all(|event| event["data"]["message_id"].is_string()), "{events:?}");
    assert!(events.iter().all(|event| event.get("parlance-head").is_none()), "it is no attribute");

    // A topic that is emptied under one who follows is filled again, and only what is new is printed.
    let mut following = Following::start(&place, &["message.sent", "--since", &now()]);
    say(&ann, conversation, "before").await;
    assert_eq!(following.next().await["data"]["content"], "before");
    delete_topics(&place, &TOPICS).await;
    say(&ann, conversation, "after").await;
    assert_eq!(following.next().await["data"]["content"], "after");
    assert_eq!(following.interrupt().await, Some(0));
    dense_up_to_the_heads(&app).await;
    assert!(app.stop().await.unwrap().success());

    // Others write, too: what is a CloudEvent is printed as it is, and what is none is told of.
    let stranger: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", place.engines().unwrap().kafka.address()).create().unwrap();
    let junk = FutureRecord::<str, str>::to(TOPICS[0]).partition(0).payload("junk");
    stranger.send(junk, BOUND).await.unwrap();
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "7"),
        ("ce_source", "/elsewhere"),
        ("ce_type", "user.promoted"),
        ("ce_mood", "fine"),
        ("content-type", "application/json"),
    ];
    let headers = headers
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    let strange = FutureRecord::<str, str>::to(TOPICS[0]).partition(0).payload("{\"rank\": 1}").headers(headers);
    stranger.send(strange, BOUND).await.unwrap();
    let (events, warned) = tail(&place, &[]).await;
    let strange = events.iter().find(|event| event["type"] == "user.promoted").unwrap();
    assert_eq!(
        (&strange["mood"], &strange["data"]["rank"], &strange["source"]),
        (&"fine".into(), &1.into(), &"/elsewhere".into())
    );
    assert!(warned.contains("parlance.users.v1/0 is no CloudEvent: it has no specversion"), "{warned}");
    assert!(!warned.contains("junk"), "nothing of what it says: {warned}");
}
