//! Brokers that die, hang and come back; topics that go under those who use them.

use std::pin::pin;
use std::sync::atomic::AtomicU64;

use testkit::eventually;

use super::*;
use crate::bus::kafka::client::LOOK_BOUND;

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_loses_and_repeats_nothing() {
    let broker = Broker::start().await.unwrap();
    let bus = ready(settings(&broker)).await;
    let read = AtomicU64::new(0);
    let kill = async {
        eventually("some were read", BOUND, async || read.load(Ordering::SeqCst) > 200).await;
        broker.kill().await.unwrap();
        assert!(bus.check().await.is_err());
        broker.start_again().await.unwrap();
        eventually("it is up", BOUND, async || bus.check().await.is_ok()).await;
    };
    tokio::join!(fill(&bus, &[0, 1], 4000, 5), follow(&bus, &[0, 1], 4000, &read), kill);
    assert_filled(&bus, &[0, 1], 4000).await;
    assert_eq!(bus.heads(TOPIC).await.unwrap()[..3], [(0, 4000), (1, 4000), (2, 0)]);
}

#[tokio::test]
async fn a_broker_that_hangs_is_an_error_soon_and_goes_on_where_it_was() {
    let broker = Broker::start().await.unwrap();
    let bus = ready(settings(&broker)).await;
    bus.publish(&records(TOPIC, 0, 1..=10)).await.unwrap();
    let mut reader = bus.subscribe(TOPIC, &[(0, 10)]).await.unwrap();
    broker.pause().await.unwrap();
    timeout(BOUND, bus.check()).await.expect("an answer").unwrap_err();
    timeout(BOUND, bus.publish(&records(TOPIC, 0, 11..=20))).await.expect("an answer").unwrap_err();
    // What went under way may be there and may not: that has to be looked up first.
    assert!(matches!(cause(bus.publish(&records(TOPIC, 0, 11..=20)).await), KafkaError::EndUnknown { shard: 0, .. }));
    broker.resume().await.unwrap();
    fill(&bus, &[0], 30, 10).await;
    let expected: Vec<_> = (11..=30).map(|position| (0, position)).collect();
    assert_eq!(super::read(&mut *reader, 20).await, expected);
    assert_filled(&bus, &[0], 30).await;
}

#[tokio::test]
async fn topics_are_made_once_a_broker_that_went_is_back() {
    let broker = Broker::start().await.unwrap();
    let bus = KafkaBus::connect(settings(&broker)).await.unwrap();
    broker.kill().await.unwrap();
    let mut ensured = pin!(bus.ensure_topics());
    timeout(LOOK_BOUND * 2, &mut ensured).await.expect_err("a look that failed is repeated");
    broker.start_again().await.unwrap();
    timeout(BOUND, ensured).await.expect("in time").unwrap();
    bus.tails(TOPIC, &all_shards()).await.unwrap();
}

#[tokio::test]
async fn a_topic_that_is_deleted_under_all_is_filled_again() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    let read = AtomicU64::new(0);
    let delete = async {
        for at in [100, 1000] {
            eventually("some were read", BOUND, async || read.load(Ordering::SeqCst) > at).await;
            delete_topic(&settings).await;
        }
    };
    tokio::join!(fill(&bus, &[0, 3], 2000, 5), follow(&bus, &[0, 3], 2000, &read), delete);
    // It may have been gone once more at the very end.
    fill(&bus, &[0, 3], 2000, 100).await;
    assert_filled(&bus, &[0, 3], 2000).await;
}

#[tokio::test]
async fn a_reader_who_is_ahead_of_a_topic_made_anew_waits_for_it() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    bus.publish(&records(TOPIC, 0, 1..=50)).await.unwrap();
    let mut reader = bus.subscribe(TOPIC, &[(0, 40)]).await.unwrap();
    assert_eq!(super::read(&mut *reader, 10).await.last(), Some(&(0, 50)));
    delete_topic(&settings).await;
    eventually("it is made again", BOUND, async || bus.tails(TOPIC, &[0]).await.is_ok()).await;
    fill(&bus, &[0], 49, 7).await;
    // An error is fine, and then the same goes on; nothing is handed on that was.
    let next = async {
        loop {
            if let Ok(batch) = reader.next(10).await {
                return batch;
            }
        }
    };
    let (got, ()) = tokio::join!(next, fill(&bus, &[0], 52, 1));
    assert_eq!(got[0].position, 51);
    let mut late = bus.subscribe(TOPIC, &[(0, 51)]).await.unwrap();
    assert_eq!(super::read(&mut *late, 1).await, [(0, 52)]);
}

#[tokio::test]
async fn nobody_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = KafkaSettings { brokers: free.to_string(), ..settings(Broker::shared().await) };
    let error = KafkaBus::connect_within(settings, Duration::from_millis(10)).await.err().expect("nobody is there");
    assert_eq!(error.to_string(), format!("Kafka does not answer at {free}"));
}
