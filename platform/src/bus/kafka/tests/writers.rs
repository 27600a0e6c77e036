//! Others who write: zombies, and strangers.

use super::*;

#[tokio::test]
async fn a_zombie_and_its_successor_leave_no_gap_and_nothing_comes_twice() {
    let settings = settings(Broker::shared().await);
    let (zombie, successor) = (ready(settings.clone()).await, ready(settings).await);
    let mut reader = successor.subscribe(TOPIC, &[(0, 0)]).await.unwrap();
    zombie.publish(&records(TOPIC, 0, 1..=50)).await.unwrap();
    fill(&successor, &[0], 60, 10).await;
    assert!(matches!(
        cause(zombie.publish(&records(TOPIC, 0, 51..=70)).await),
        KafkaError::Moved { expected: 50, offset: 60, .. }
    ));
    assert!(matches!(cause(zombie.publish(&records(TOPIC, 0, 71..=71)).await), KafkaError::EndUnknown { .. }));
    assert!(matches!(cause(successor.publish(&records(TOPIC, 0, 61..=65)).await), KafkaError::Moved { .. }));
    tokio::join!(fill(&zombie, &[0], 120, 3), fill(&successor, &[0], 120, 7));
    assert_eq!(read(&mut *reader, 120).await, (1..=120).map(|position| (0, position)).collect::<Vec<_>>());
    // And for those who begin anywhere, though it stands further on than its number says.
    for after in [0, 49, 50, 55, 64, 100, 119] {
        let mut reader = successor.subscribe(TOPIC, &[(0, after)]).await.unwrap();
        assert_eq!(read(&mut *reader, 1).await, [(0, after + 1)]);
    }
}

#[tokio::test]
async fn what_is_none_of_ours_is_passed_over_and_at_the_end_it_stops_the_shard() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    let stranger = Stranger::new(&settings);
    bus.publish(&records(TOPIC, 0, 1..=2)).await.unwrap();
    bus.publish(&records(TOPIC, 1, 1..=2)).await.unwrap();
    stranger.junk(0).await;
    assert_eq!(bus.heads(TOPIC).await.unwrap()[..2], [(0, 0), (1, 2)]);
    let tails = bus.tails(TOPIC, &[1, 0]).await.unwrap();
    assert!(matches!(tails[..], [(1, Tail::Record { position: 2, .. }), (0, Tail::Foreign)]), "{tails:?}");
    assert!(matches!(cause(bus.publish(&records(TOPIC, 0, 3..=3)).await), KafkaError::EndUnknown { shard: 0, .. }));
    bus.publish(&records(TOPIC, 1, 3..=3)).await.unwrap();
    stranger.write(0, 3..=3, None).await;
    let mut reader = bus.subscribe(TOPIC, &[(0, 0)]).await.unwrap();
    assert_eq!(read(&mut *reader, 3).await, [(0, 1), (0, 2), (0, 3)]);
}

#[tokio::test]
async fn a_partition_without_its_beginning_is_emptied_and_filled_again() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    Stranger::new(&settings).write(2, 5..=7, None).await;
    let mut early = bus.subscribe(TOPIC, &[(2, 0)]).await.unwrap();
    assert_eq!(bus.tails(TOPIC, &[2]).await.unwrap(), [(2, Tail::Empty)]);
    assert_eq!(bus.heads(TOPIC).await.unwrap()[2], (2, 0));
    bus.publish(&records(TOPIC, 2, 1..=9)).await.unwrap();
    assert_filled(&bus, &[2], 9).await;
    // Whoever had it open may have seen the gap; that passes.
    let again = async || early.next(1).await.ok();
    assert_eq!(eventually_some("the first", BOUND, again).await[0].position, 1);
}

#[tokio::test]
async fn what_is_missing_or_cannot_be_read_stops_its_shard_alone() {
    let settings = settings(Broker::shared().await);
    let bus = ready(settings.clone()).await;
    let stranger = Stranger::new(&settings);
    stranger.write(0, 1..=2, None).await;
    stranger.write(0, 4..=5, None).await;
    stranger.write(1, 1..=1, None).await;
    stranger.write(1, 2..=2, Some("user.promoted")).await;
    bus.publish(&records(TOPIC, 2, 1..=3)).await.unwrap();
    let mut reader = bus.subscribe(TOPIC, &[(0, 0), (1, 0), (2, 0)]).await.unwrap();
    let (mut got, mut troubles) = (Vec::new(), Vec::new());
    while troubles.len() < 2 {
        match timeout(BOUND, reader.next(10)).await.expect("records or an error") {
            Ok(batch) => got.extend(contract::positions(&batch)),
            Err(error) => troubles.push(cause::<()>(Err(error)).to_string()),
        }
    }
    got.sort_unstable();
    assert_eq!(got, [(0, 1), (0, 2), (1, 1), (2, 1), (2, 2), (2, 3)]);
    troubles.sort_unstable();
    assert_eq!(
        troubles,
        ["the record at u1.2 cannot be read", "u0.4 comes after u0.2: what lies between is not there"]
    );
    bus.publish(&records(TOPIC, 2, 4..=4)).await.unwrap();
    let fourth = eventually_some("what others publish", BOUND, async || reader.next(10).await.ok()).await;
    assert_eq!(contract::positions(&fourth), [(2, 4)]);
}

#[tokio::test]
async fn a_call_that_was_given_up_leaves_the_end_to_be_looked_up() {
    let bus = ready(settings(Broker::shared().await)).await;
    let batch = records(TOPIC, 0, 1..=2000);
    assert!(timeout(Duration::from_millis(1), bus.publish(&batch)).await.is_err());
    assert!(matches!(cause(bus.publish(&batch).await), KafkaError::EndUnknown { .. }));
    fill(&bus, &[0], 2000, 500).await;
    assert_filled(&bus, &[0], 2000).await;
}
