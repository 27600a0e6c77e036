//! Conversations that are joined and left.

use super::*;

#[test]
fn who_leaves_gets_the_event_then_left_then_nothing() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.frames();
    bench.actions();
    bench.event(&event(3));
    bench.event(&event_about(ROOM, 2, About::Left(ANN)));
    let frames = bench.frames();
    assert_eq!((&frames[0]["seq"], &frames[1]), (&json!(2), &json!({"type": "left", "conversation_id": ROOM})));
    assert_eq!(frames.len(), 2);
    assert!(bench.actions().contains(&Action::Forget(ROOM)));
    bench.event(&event(4));
    bench.session.receipt(0, &receipt(BEN, 4, 4), &mut bench.out);
    bench.pass(29_000);
    assert_eq!(bench.frames(), Vec::<Value>::new(), "nothing is sent again");
    // Its ack comes late, and is no error.
    bench.ack(2);
    assert_eq!((bench.frames(), bench.actions()), (vec![], vec![]));
    // The read model may not know yet that it ended.
    bench.session.stays(0, &[(ROOM, 0, 2)], &mut bench.out);
    assert!(bench.session.flows.is_empty());
}

#[test]
fn who_comes_again_begins_just_before_the_join() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.event(&event_about(ROOM, 2, About::Left(ANN)));
    bench.frames();
    bench.actions();
    bench.event(&event_about(ROOM, 7, About::Joined(ANN)));
    bench.event(&event(8));
    assert_eq!(bench.seqs(), [7, 8]);
    let begun = Cursor { conversation_id: ROOM, joined: Some(7), acked: 6, acked_at: None };
    assert!(bench.actions().contains(&Action::Keep(begun)));
    // Also where the end of the earlier stay has to be read first.
    let mut bench = Bench::open(vec![begin(ROOM, 0, 5, 5)]);
    bench.frames();
    bench.event(&event_about(ROOM, 9, About::Joined(ANN)));
    bench.event(&event(10));
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((5, 8)));
    let events = vec![event(6), event_about(ROOM, 7, About::Left(ANN)), event(8)];
    bench.session.pages(0, &[Page { conversation_id: ROOM, events }], &mut bench.out);
    assert_eq!(bench.seqs(), [6, 7]);
    assert_eq!(bench.range().map(|range| (range.joined, range.after)), Some((9, 8)));
    bench.page(9..=10);
    assert_eq!(bench.seqs(), [9, 10]);
}

#[test]
fn new_conversations_begin_with_themselves_or_the_join() {
    let mut bench = Bench::open(vec![]);
    bench.event(&event_about(ROOM, 1, About::Created));
    bench.event(&event(2));
    bench.event(&event_about(OTHER_ROOM, 4, About::Joined(ANN)));
    bench.event(&event_about(OTHER_ROOM, 5, About::Joined(BEN)));
    bench.event(&event_about(Uuid::from_u128(9), 5, About::Other));
    assert_eq!(bench.seqs(), [1, 2, 4, 5]);
    // One of which nothing was told, but found out.
    bench.session.stays(0, &[(ROOM, 0, 2), (Uuid::from_u128(9), 3, 5)], &mut bench.out);
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((2, 5)));
}

#[test]
fn a_head_that_is_found_with_the_stays_is_read_up_to() {
    let mut bench = Bench::open(vec![]);
    bench.event(&event_about(ROOM, 1, About::Created));
    bench.session.stays(0, &[(ROOM, 0, 3)], &mut bench.out);
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((1, 3)));
}

#[test]
fn earlier_stays_may_be_replayed() {
    let mut bench = Bench::open(vec![begin(ROOM, 5, 0, 6)]);
    bench.range();
    let events = vec![
        event(1),
        event_about(ROOM, 2, About::Left(ANN)),
        event(3),
        event(4),
        event_about(ROOM, 5, About::Joined(ANN)),
        event(6),
    ];
    bench.session.pages(0, &[Page { conversation_id: ROOM, events }], &mut bench.out);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn who_left_while_away_is_told_before_synced() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    bench.frames();
    bench.actions();
    bench.start(Plan { left: vec![OTHER_ROOM, ROOM], forget: vec![OTHER_ROOM], ..Plan::default() });
    assert_eq!(bench.actions(), [Action::Forget(OTHER_ROOM)]);
    let left = |id: Uuid| json!({"type": "left", "conversation_id": id});
    assert_eq!(bench.frames(), [left(OTHER_ROOM), left(ROOM), json!({"type": "synced"})]);
}
