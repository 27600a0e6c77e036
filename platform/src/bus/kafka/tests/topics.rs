//! Topics: as they have to be, or refused.

use rdkafka::admin::{AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};

use super::*;

async fn create(settings: &KafkaSettings, topic: NewTopic<'_>) {
    admin(settings).create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

#[tokio::test]
async fn topics_are_made_by_several_at_once() {
    let settings = settings(Broker::shared().await);
    let one = KafkaBus::connect(settings.clone()).await.unwrap();
    let other = KafkaBus::connect(settings.clone()).await.unwrap();
    let (one, other) = tokio::join!(one.ensure_topics(), other.ensure_topics());
    one.unwrap();
    other.unwrap();
    let name = format!("{}{}", settings.prefix, TOPIC.name());
    let topic = ResourceSpecifier::Topic(&name);
    let described = admin(&settings).describe_configs([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let value = |setting: &str| described.get(setting).and_then(|entry| entry.value.clone()).unwrap();
    assert_eq!([value("retention.ms"), value("cleanup.policy")], ["-1", "delete"]);
}

#[tokio::test]
async fn a_topic_with_other_partitions_is_refused() {
    let settings = settings(Broker::shared().await);
    let name = format!("{}{}", settings.prefix, TOPIC.name());
    create(&settings, NewTopic::new(&name, 3, TopicReplication::Fixed(1)).set("retention.ms", "-1")).await;
    let error = KafkaBus::connect(settings).await.unwrap().ensure_topics().await.unwrap_err();
    assert!(matches!(&error, KafkaError::Partitions { topic, found: 3, wanted: 4 } if *topic == name), "{error}");
}

#[tokio::test]
async fn a_topic_that_would_lose_records_is_refused() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    let name = format!("{}{}", settings.prefix, TOPIC.name());
    for (setting, value, retention) in [("cleanup.policy", "compact", "-1"), ("retention.ms", "1000000", "1000000")] {
        // What is not named falls back to the broker's defaults.
        let change = AlterConfig::new(ResourceSpecifier::Topic(&name)).set("retention.ms", retention);
        let change = if setting == "retention.ms" { change } else { change.set(setting, value) };
        admin(&settings).alter_configs([&change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let error = eventually_some("it is refused", BOUND, async || bus.ensure_topics().await.err()).await;
        match error {
            KafkaError::Setting { topic, setting: named, found, .. } => {
                assert_eq!((topic, found.as_str()), (name.clone(), value));
                assert_eq!(named, setting);
            }
            error => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn no_topic_is_made_by_asking_for_it() {
    let broker = Broker::with(&["auto.create.topics.enable=true"]).await.unwrap();
    let settings = settings(&broker);
    let bus = KafkaBus::connect(settings.clone()).await.unwrap();
    bus.check().await.unwrap();
    assert!(matches!(cause(bus.heads(TOPIC).await), KafkaError::NoTopic(_)));
    assert!(matches!(cause(bus.subscribe(TOPIC, &[(0, 0)]).await), KafkaError::NoTopic(_)));
    // Nor by those who had it open when it went.
    fill(&bus, &[0], 10, 10).await;
    let mut reader = bus.subscribe(TOPIC, &[(0, 0)]).await.unwrap();
    assert_eq!(read(&mut *reader, 10).await.len(), 10);
    delete_topic(&settings).await;
    bus.publish(&records(TOPIC, 0, 11..=11)).await.unwrap_err();
    timeout(BOUND, reader.next(1)).await.expect("it sees that the topic is gone").expect_err("it is gone");
    let names: Vec<_> = admin(&settings)
        .inner()
        .fetch_metadata(None, BOUND)
        .unwrap()
        .topics()
        .iter()
        .map(|topic| topic.name().to_owned())
        .filter(|name| name.contains(TOPIC.name()))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    fill(&bus, &[0], 12, 10).await;
    assert_filled(&bus, &[0], 12).await;
}

#[tokio::test]
async fn many_partitions_are_looked_at_in_one_go() {
    let bus = KafkaBus::connect(KafkaSettings { shards: 256, ..settings(Broker::shared().await) }).await.unwrap();
    let shards: Vec<u16> = (0..256).collect();
    assert!(bus.tails(TOPIC, &shards).await.unwrap().iter().all(|(_, tail)| *tail == Tail::Empty));
    let batch: Vec<_> = shards.iter().flat_map(|shard| records(TOPIC, *shard, 1..=3)).collect();
    bus.publish(&batch).await.unwrap();
    let tails = bus.tails(TOPIC, &shards).await.unwrap();
    assert!(tails.iter().all(|(_, tail)| matches!(tail, Tail::Record { position: 3, event_id: Some(_) })));
    assert_eq!(bus.tails(TOPIC, &[]).await.unwrap(), []);
    let mut none = bus.subscribe(TOPIC, &[]).await.unwrap();
    assert!(timeout(Duration::from_millis(5), none.next(1)).await.is_err(), "there is nothing for who reads no shard");
    assert_eq!(bus.heads(TOPIC).await.unwrap(), shards.iter().map(|shard| (*shard, 3)).collect::<Vec<_>>());
}
