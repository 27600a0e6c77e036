//! `parlance topics`: how topics have to be, and how they are.

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use serde_json::Value;
use testkit::app::Place;
use testkit::eventually_some;

use crate::blows::delete_topics;
use crate::people::{BOUND, person, place, place_on_stack};
use crate::records::{TOPICS, dense_up_to_the_heads};

async fn topics(place: &Place) -> (Option<i32>, Value) {
    let output = place.command(&["topics", "--json"]).output().await.unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_needs_nothing() {
    let (code, report) = topics(&place()).await;
    assert_eq!(code, Some(0));
    let told = report["topics"].as_array().unwrap();
    assert_eq!(told.iter().map(|topic| topic["topic"].as_str().unwrap()).collect::<Vec<_>>(), TOPICS);
    assert!(told.iter().all(|topic| topic["kafka"].is_null() && topic["partitions"].is_null()));
    let types = told[1]["types"].as_array().unwrap();
    assert!(types.iter().any(|kind| kind["type"] == "message.sent" && kind["versions"][0] == 1), "{types:?}");
    let output = place().command(&["topics"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("cleanup.policy = delete") && text.contains("key = conversation_id"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_told_and_what_differs_is_a_failure() {
    let place = place_on_stack().await;
    let app = place.start().await.unwrap();
    person(&app.server(), "ann").await;
    dense_up_to_the_heads(&app).await;
    assert!(app.stop().await.unwrap().success());
    let (code, report) = topics(&place).await;
    assert_eq!(code, Some(0), "{report}");
    let users = &report["topics"][0];
    assert_eq!((&users["partitions"], &users["kafka"]["faults"]), (&16.into(), &Value::Array(vec![])));
    let filled = |partition: &&Value| partition["records"] != 0;
    let partitions = users["kafka"]["partitions"].as_array().unwrap();
    let partition = partitions.iter().find(filled).unwrap();
    // Nothing failed, and so nothing came twice, though shares may have changed while it was published.
    let head = &partition["log_head"];
    assert_eq!((&partition["last_sequence"], &partition["records"]), (head, head), "{partition}");
    assert_eq!((&partition["first_sequence"], &partition["first_offset"]), (&1.into(), &0.into()));
    // Without the database it is not known how many there have to be.
    let (code, report) = topics(&place.clone().without("DATABASE_URL")).await;
    assert_eq!((code, &report["topics"][0]["partitions"]), (Some(0), &Value::Null));

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", place.engines().unwrap().kafka.address()).create().unwrap();
    let compacted = AlterConfig::new(ResourceSpecifier::Topic(TOPICS[0])).set("cleanup.policy", "compact");
    admin.alter_configs([&compacted], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let faults = eventually_some("it differs", BOUND, async || {
        let (code, report) = topics(&place).await;
        (code == Some(1)).then(|| report["topics"][0]["kafka"]["faults"].to_string())
    })
    .await;
    assert!(faults.contains("cleanup.policy is compact, not delete"), "{faults}");
    delete_topics(&place, &TOPICS[1..]).await;
    let faults = eventually_some("it is gone", BOUND, async || {
        let (code, report) = topics(&place).await;
        let kafka = &report["topics"][1]["kafka"];
        (code == Some(1) && kafka["partitions"].as_array().unwrap().is_empty()).then(|| kafka["faults"].to_string())
    })
    .await;
    assert_eq!(faults, r#"["it is not there"]"#);
}
