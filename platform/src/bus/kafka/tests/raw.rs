//! Reading what there is, whatever it is, and seeing how topics are.

use rdkafka::admin::{AlterConfig, ResourceSpecifier};
use schemas::binary_mode::{Head, identity};
use time::OffsetDateTime;

use super::*;
use crate::bus::{Difference, RawReader, RawRecord, Start, SurveyedPartition, SurveyedTopic, survey};

fn place(settings: &KafkaSettings) -> (&str, &str) {
    (&settings.brokers, &settings.prefix)
}

/// Everything in a topic at this moment.
pub(super) async fn all(settings: &KafkaSettings, topic: Topic) -> Vec<RawRecord> {
    up_to_the_end(RawReader::new(place(settings), topic, [], Some(Start::Beginning), false).await.unwrap()).await
}

async fn up_to_the_end(mut reader: RawReader) -> Vec<RawRecord> {
    let mut records = Vec::new();
    while let Some(record) = timeout(BOUND, reader.next()).await.expect("a record or the end").unwrap() {
        records.push(record);
    }
    records
}

async fn from(settings: &KafkaSettings, start: Start, shard: u16) -> RawReader {
    RawReader::new(place(settings), TOPIC, [(shard, start)], None, false).await.unwrap()
}

async fn next(reader: &mut RawReader) -> RawRecord {
    timeout(BOUND, reader.next()).await.expect("a record").unwrap().expect("no end")
}

fn position(record: &RawRecord) -> Option<u64> {
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    identity(headers).ok().map(|identity| identity.position)
}

fn positions(records: &[RawRecord]) -> Vec<Option<u64>> {
    records.iter().map(position).collect()
}

#[tokio::test]
async fn everything_is_read_from_where_it_is_asked_for() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    let stranger = Stranger::new(&settings);
    bus.publish(&records(TOPIC, 0, 1..=4)).await.unwrap();
    bus.republish(Uuid::nil(), &records(TOPIC, 0, 2..=3)).await.unwrap();
    stranger.junk(0).await;
    stranger.write(0, 5..=5, Some("user.promoted")).await;
    bus.publish(&records(TOPIC, 1, 1..=1)).await.unwrap();
    let whole = [Some(1), Some(2), Some(3), Some(4), Some(2), Some(3), None, Some(5)];
    assert_eq!(positions(&up_to_the_end(from(&settings, Start::Beginning, 0).await).await), whole);
    assert_eq!(positions(&up_to_the_end(from(&settings, Start::Position(4), 0).await).await), whole[3..]);
    assert_eq!(positions(&up_to_the_end(from(&settings, Start::Position(6), 0).await).await), []);
    assert_eq!(positions(&up_to_the_end(from(&settings, Start::End, 0).await).await), []);
    let (before, after) = (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc() + Duration::from_hours(1));
    assert_eq!(positions(&up_to_the_end(from(&settings, Start::Since(before), 0).await).await), whole);
    assert_eq!(positions(&up_to_the_end(from(&settings, Start::Since(after), 0).await).await), []);
    let mut everywhere = all(&settings, TOPIC).await;
    everywhere.sort_by_key(|record| (record.shard, record.offset));
    assert_eq!(everywhere.iter().map(|record| record.shard).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(everywhere[6].data, b"junk");
    let mut there_is_none = from(&settings, Start::Beginning, SHARDS).await;
    assert!(matches!(there_is_none.next().await, Err(KafkaError::NoShard { shard: SHARDS, .. })));
}

#[tokio::test]
async fn one_that_follows_goes_on_in_a_topic_made_anew_after_what_it_read() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    bus.publish(&records(TOPIC, 0, 1..=20)).await.unwrap();
    let mut follower = RawReader::new(place(&settings), TOPIC, [(0, Start::Position(19))], None, true).await.unwrap();
    let mut from_now = RawReader::new(place(&settings), TOPIC, [], Some(Start::End), true).await.unwrap();
    assert_eq!([position(&next(&mut follower).await), position(&next(&mut follower).await)], [Some(19), Some(20)]);
    let opened = timeout(Duration::from_millis(500), from_now.next()).await;
    assert!(opened.is_err(), "nothing is new: {opened:?}");
    for (round, head) in [(1, 20), (2, 21)] {
        delete_topic(&settings).await;
        let refilled = async {
            eventually_some("it is made again", BOUND, async || bus.tails(TOPIC, &all_shards()).await.ok()).await;
            fill(&bus, &[0], head + 1, 7).await;
        };
        let ((), got, also) = tokio::join!(refilled, next(&mut follower), next(&mut from_now));
        assert_eq!((position(&got), position(&also)), (Some(20 + round), Some(20 + round)));
    }
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_waited_for_by_who_follows() {
    let settings = settings(Broker::shared().await);
    let mut once = RawReader::new(place(&settings), TOPIC, [], Some(Start::Beginning), false).await.unwrap();
    assert!(matches!(once.next().await, Err(KafkaError::NoTopic(_))));
    let mut follower = RawReader::new(place(&settings), TOPIC, [], Some(Start::End), true).await.unwrap();
    let publish = async {
        let bus = ready(settings.clone()).await;
        bus.publish(&records(TOPIC, 3, 1..=1)).await.unwrap();
    };
    let (record, ()) = tokio::join!(next(&mut follower), publish);
    assert_eq!((record.shard, position(&record)), (3, Some(1)));
}

#[tokio::test]
async fn topics_are_seen_as_they_are() {
    let settings = settings(Broker::shared().await);
    let look = async || survey(&settings.brokers, &settings.prefix).await.unwrap();
    assert!(look().await.iter().all(|found| found.partitions.is_none()));
    let bus = ready(settings.clone()).await;
    bus.publish(&records(TOPIC, 1, 1..=5)).await.unwrap();
    bus.republish(Uuid::nil(), &records(TOPIC, 1, 1..=2)).await.unwrap();
    Stranger::new(&settings).junk(2).await;
    let found = look().await.into_iter().find(|found| found.topic == TOPIC).unwrap();
    let empty = SurveyedPartition { shard: 0, first_offset: 0, next_offset: 0, first: None, head: None };
    let filled = SurveyedPartition {
        shard: 1,
        next_offset: 7,
        first: Some(1),
        head: Some(Head { position: 5, event_id: Uuid::from_u64_pair(2, 5) }),
        ..empty
    };
    let foreign = SurveyedPartition { shard: 2, next_offset: 1, ..empty };
    let wanted = vec![empty, filled, foreign, SurveyedPartition { shard: 3, ..empty }];
    assert_eq!(found, SurveyedTopic { topic: TOPIC, partitions: Some(wanted), differences: vec![] });
    assert_eq!([empty, filled, foreign].map(|partition| partition.is_foreign()), [false, false, true]);
    let name = format!("{}{}", settings.prefix, TOPIC.name());
    let change =
        AlterConfig::new(ResourceSpecifier::Topic(&name)).set("retention.ms", "-1").set("retention.bytes", "7");
    admin(&settings).alter_configs([&change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let differences = eventually_some("it is told", BOUND, async || {
        let found = look().await.into_iter().find(|found| found.topic == TOPIC).unwrap();
        (!found.differences.is_empty()).then_some(found.differences)
    })
    .await;
    let [Difference { setting, found }] = &differences[..] else { panic!("{differences:?}") };
    assert_eq!((setting.name, setting.value, found.as_str()), ("retention.bytes", "-1", "7"));
}
