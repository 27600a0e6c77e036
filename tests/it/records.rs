//! The records in Kafka, read by a consumer that knows nothing but the contract.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use testkit::{app::App, eventually};
use uuid::Uuid;

use crate::people::{PASSWORD, name, person, place_on_stack};

pub(crate) const TOPICS: [&str; 2] = ["parlance.users.v1", "parlance.conversations.v1"];
const POLL: Duration = Duration::from_millis(200);
/// Within which a topic that was gone is filled again.
pub(crate) const HEADS_BOUND: Duration = Duration::from_mins(1);

/// A record as Kafka has it.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    key: String,
    pub(crate) headers: BTreeMap<String, String>,
    data: Value,
}

impl Raw {
    pub(crate) fn sequence(&self) -> u64 {
        self.headers["ce_sequence"].parse().unwrap()
    }

    fn kind(&self) -> &str {
        &self.headers["ce_type"]
    }
}

/// Every record there is at this moment, in the order of each partition. Blocks.
pub(crate) fn read_all(brokers: &str) -> Vec<Raw> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "a stranger")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut wanted = TopicPartitionList::new();
    let mut left = HashMap::new();
    for topic in TOPICS {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(10)).unwrap();
            wanted.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            // What came at a wrong place, right after a wipe, was taken away again: the first offset need not be 0.
            if high > low {
                left.insert((topic.to_owned(), partition.id()), high);
            }
        }
    }
    consumer.assign(&wanted).unwrap();
    let mut records = Vec::new();
    let mut silent = 0;
    while !left.is_empty() && silent < 50 {
        let Some(polled) = consumer.poll(POLL) else {
            silent += 1;
            continue;
        };
        let record = polled.unwrap();
        let place = (record.topic().to_owned(), record.partition());
        if left.get(&place).is_some_and(|high| record.offset() + 1 >= *high) {
            left.remove(&place);
        }
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let headers = record.headers().unwrap().iter();
        records.push(Raw {
            topic: place.0,
            partition: place.1,
            key: text(record.key()),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
            data: serde_json::from_slice(record.payload().unwrap()).unwrap(),
        });
    }
    assert!(left.is_empty(), "not read: {left:?}");
    records
}

/// What a partition's consumer can prove: it begins at 1, and never jumps.
fn heads(records: &[Raw]) -> Option<BTreeMap<(String, i32), u64>> {
    let mut heads: BTreeMap<(String, i32), u64> = BTreeMap::new();
    for record in records {
        let head = heads.entry((record.topic.clone(), record.partition)).or_default();
        if record.sequence() > *head + 1 {
            return None;
        }
        *head = record.sequence().max(*head);
    }
    Some(heads)
}

/// Waits until each partition holds its shard whole, from 1 to the log's head.
pub(crate) async fn dense_up_to_the_heads(app: &App) {
    let brokers = app.place().engines().unwrap().kafka.address().to_owned();
    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    let mut log = async || -> BTreeMap<(String, i32), u64> {
        let heads: Vec<(i16, i16, i64)> = sqlx::query_as("SELECT topic, shard, head FROM log.shards WHERE head > 0")
            .fetch_all(&mut database)
            .await
            .unwrap();
        let named = |(topic, shard, head): (i16, i16, i64)| {
            ((TOPICS[usize::try_from(topic).unwrap()].to_owned(), i32::from(shard)), head.cast_unsigned())
        };
        heads.into_iter().map(named).collect()
    };
    eventually("Kafka holds the log whole", HEADS_BOUND, async || {
        let brokers = brokers.clone();
        // Topics that are being made anew fail the reader: then it is not whole yet.
        let read = tokio::task::spawn_blocking(move || heads(&read_all(&brokers))).await;
        let wanted = log().await;
        read.is_ok_and(|found| found == Some(wanted))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_as_the_contract_says() {
    let place = place_on_stack().await;
    let app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let group = ann.create_group("trip", vec![ben.user_id()]).await.unwrap().conversation_id;
    let sent = ann.send(group, &parlance_client::text_message("Grüße 👋")).await.unwrap();
    let mark = parlance_client::AdvanceReceipt { delivered_to: Some(sent.seq), read_to: Some(sent.seq) };
    ben.mark(group, &mark).await.unwrap();
    correlated(&app.address()).await;
    dense_up_to_the_heads(&app).await;

    let brokers = place.engines().unwrap().kafka.address().to_owned();
    let records = tokio::task::spawn_blocking(move || read_all(&brokers)).await.unwrap();
    let kinds: BTreeSet<&str> = records.iter().map(Raw::kind).collect();
    let wanted = [
        "conversation.created",
        "message.delivered",
        "message.read",
        "message.sent",
        "session.started",
        "user.registered",
    ];
    assert!(kinds.is_superset(&wanted.into()), "{kinds:?}");
    let names = [
        "ce_causationid",
        "ce_correlationid",
        "ce_dataschema",
        "ce_id",
        "ce_partitionkey",
        "ce_sequence",
        "ce_source",
        "ce_specversion",
        "ce_subject",
        "ce_time",
        "ce_type",
        "content-type",
        "traceparent",
    ];
    let http = reqwest::Client::new();
    let mut schemas = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for record in &records {
        let header = |name: &str| record.headers[name].as_str();
        // The session that a command came by stands with what it caused, where there was one.
        let always = record.headers.keys().map(String::as_str).filter(|name| *name != "ce_sessionid");
        assert_eq!(always.collect::<Vec<_>>(), names, "{record:?}");
        let by_session = ["conversation.created", "message.sent"].contains(&record.kind());
        assert!(!by_session || record.headers["ce_sessionid"].parse::<Uuid>().is_ok(), "{record:?}");
        assert_eq!((header("ce_specversion"), header("ce_source")), ("1.0", "/parlance"));
        assert_eq!((header("ce_subject"), header("ce_partitionkey")), (record.key.as_str(), record.key.as_str()));
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("ce_sequence").len(), 20);
        assert_eq!(record.data["at"], header("ce_time"));
        let id: Uuid = header("ce_id").parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        assert!(ids.insert(id), "published twice though nothing failed: {record:?}");
        let owner = if record.topic == TOPICS[0] { "user_id" } else { "conversation_id" };
        assert_eq!(record.data[owner], record.key.as_str(), "{record:?}");
        schemas.insert(header("ce_dataschema").to_owned());
        let text = record.data.to_string();
        assert!(!text.contains(PASSWORD) && !text.contains("argon2"), "{record:?}");
    }
    for schema in schemas {
        let path = schema.strip_prefix("https://parlance.invalid").unwrap();
        let answer = http.get(format!("{}{path}", app.address())).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.json::<Value>().await.unwrap()["$schema"].is_string());
    }
    let message = records.iter().find(|record| record.kind() == "message.sent").unwrap();
    assert_eq!(message.data["message_id"], sent.message_id.to_string());
    assert_eq!((&message.data["content"], &message.data["seq"]), (&"Grüße 👋".into(), &sent.seq.into()));
    assert_eq!(message.data["sender_id"], ann.user_id().to_string());
    let delivered = records.iter().find(|record| record.kind() == "message.delivered").unwrap();
    assert_eq!(delivered.data["up_to"], sent.seq);
    assert!(delivered.data["device_id"].is_string());
    let read = records.iter().find(|record| record.kind() == "message.read").unwrap();
    assert_eq!((&read.data["up_to"], &read.data["device_id"]), (&sent.seq.into(), &Value::Null));
    let correlated: Vec<_> = records.iter().filter(|r| r.headers["ce_correlationid"] == "ours-42").collect();
    assert_eq!(correlated.iter().map(|record| record.kind()).collect::<Vec<_>>(), ["user.registered"]);
    let trace = &correlated[0].headers["traceparent"];
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{trace}");
    assert!(app.stop().await.unwrap().success());
}

/// Registers somebody by a request that brings its own id and trace.
async fn correlated(address: &str) {
    let name = name("cleo");
    let body = serde_json::json!({"username": name, "email": format!("{name}@example.org"), "password": PASSWORD});
    let answer = reqwest::Client::new()
        .post(format!("{address}/v1/users"))
        .header("X-Request-Id", "ours-42")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-request-id"], "ours-42");
}
