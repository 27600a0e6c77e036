//! Records that are published again.

use schemas::binary_mode::identity;

use super::*;
use crate::bus::RawRecord;

async fn republish(bus: &KafkaBus, shard: u16, positions: RangeInclusive<u64>) -> Result<(), BusError> {
    bus.republish(Uuid::from_u128(9), &records(TOPIC, shard, positions)).await
}

#[tokio::test]
async fn what_is_published_again_moves_no_end_and_bothers_no_reader() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    bus.publish(&records(TOPIC, 0, 1..=10)).await.unwrap();
    let mut reader = bus.subscribe(TOPIC, &[(0, 0)]).await.unwrap();
    republish(&bus, 0, 3..=6).await.unwrap();
    // Those that were not yet published will be.
    republish(&bus, 0, 9..=12).await.unwrap();
    republish(&bus, 0, 11..=12).await.unwrap();
    bus.publish(&records(TOPIC, 0, 11..=12)).await.unwrap();
    republish(&bus, 0, 1..=5).await.unwrap();
    republish(&bus, 1, 1..=5).await.unwrap();
    assert_eq!(bus.heads(TOPIC).await.unwrap()[..2], [(0, 12), (1, 0)]);
    // Another process goes on where the furthest is, though the last record is an old one.
    let successor = ready(settings).await;
    let twelfth = Tail::Record { position: 12, event_id: Some(Uuid::from_u64_pair(1, 12)) };
    assert_eq!(successor.tails(TOPIC, &[0]).await.unwrap(), [(0, twelfth)]);
    successor.publish(&records(TOPIC, 0, 13..=14)).await.unwrap();
    assert_eq!(super::read(&mut *reader, 14).await, (1..=14).map(|position| (0, position)).collect::<Vec<_>>());
    for after in [0, 2, 7, 10, 13] {
        let mut reader = successor.subscribe(TOPIC, &[(0, after)]).await.unwrap();
        assert_eq!(super::read(&mut *reader, 1).await, [(0, after + 1)]);
    }
    // Whoever wrote before it has to look first, and what it sent meanwhile is no gap.
    assert!(matches!(cause(republish(&bus, 0, 1..=1).await), KafkaError::Moved { .. }));
    assert!(matches!(cause(republish(&bus, 0, 1..=1).await), KafkaError::EndUnknown { .. }));
    assert!(matches!(cause(successor.publish(&records(TOPIC, 0, 15..=15)).await), KafkaError::Moved { .. }));
    fill(&successor, &[0], 15, 5).await;
    assert_filled(&successor, &[0], 15).await;
}

#[tokio::test]
async fn what_is_published_again_into_a_topic_made_anew_is_taken_out() {
    let settings = settings(Broker::shared().await);
    let (zombie, successor) = (ready(settings.clone()).await, ready(settings.clone()).await);
    zombie.publish(&records(TOPIC, 0, 1..=10)).await.unwrap();
    delete_topic(&settings).await;
    eventually_some("it is made again", BOUND, async || successor.tails(TOPIC, &[0]).await.ok()).await;
    eventually_some("it is there for the other", BOUND, async || match republish(&zombie, 0, 4..=6).await {
        // The client may not have seen yet that the topic is another; then it looks, and finds it.
        Err(error) => match *error.0.downcast::<KafkaError>().expect("one of Kafka's") {
            KafkaError::Moved { .. } | KafkaError::EndUnknown { .. } => Some(()),
            _ => None,
        },
        Ok(()) => panic!("it landed where nothing is"),
    })
    .await;
    fill(&successor, &[0], 10, 3).await;
    assert_filled(&successor, &[0], 10).await;
    let tail = successor.tails(TOPIC, &[0]).await.unwrap();
    assert!(matches!(tail[..], [(0, Tail::Record { position: 10, .. })]), "{tail:?}");
}

#[tokio::test]
async fn each_says_by_which_request_and_how_far_the_partition_went() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    bus.publish(&records(TOPIC, 2, 1..=3)).await.unwrap();
    republish(&bus, 2, 1..=2).await.unwrap();
    let raw = raw::all(&settings, TOPIC).await;
    let said: Vec<_> = raw
        .iter()
        .map(|record| {
            let headers = || record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            let identity = identity(headers()).unwrap();
            let replay = headers().find(|(name, _)| *name == "ce_replay").map(|(_, value)| value);
            (identity.position, identity.head().position, replay)
        })
        .collect();
    let request = Uuid::from_u128(9).to_string();
    let request = Some(request.as_bytes());
    assert_eq!(said, [(1, 1, None), (2, 2, None), (3, 3, None), (1, 3, request), (2, 3, request)]);
    // All else is as it was.
    let rest = |record: &RawRecord| {
        let headers = record.headers.iter().filter(|(name, _)| name != "ce_replay" && name != "parlance-head");
        (headers.cloned().collect::<Vec<_>>(), record.data.clone())
    };
    assert_eq!((rest(&raw[0]), rest(&raw[1])), (rest(&raw[3]), rest(&raw[4])));
}
