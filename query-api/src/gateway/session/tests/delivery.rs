//! What is sent, in which order, and when again.

use super::*;

#[test]
fn the_backlog_comes_before_synced_and_then_what_is_live() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 2, 5)]);
    let range = Range { conversation_id: ROOM, joined: 0, after: 2, upto: 5, limit: 512 };
    assert_eq!(bench.range(), Some(range));
    // Live before the backlog is there.
    bench.event(&event(6));
    bench.event(&event(7));
    assert_eq!(bench.seqs(), Vec::<u64>::new());
    bench.page(3..=5);
    let frames = bench.frames();
    let kinds: Vec<_> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap_or_default()).collect();
    assert_eq!(kinds, [3, 4, 5, 6, 7, 0]);
    assert_eq!(frames[5], json!({"type": "synced"}));
    bench.event(&event(8));
    bench.event(&event(8));
    bench.event(&event(4));
    assert_eq!(bench.seqs(), [8]);
    assert_eq!(bench.range(), None);
}

#[test]
fn a_read_model_that_lags_is_asked_again_until_it_has_all() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 3)]);
    assert!(bench.range().is_some());
    bench.page([]);
    assert_eq!(bench.range(), None, "not at once");
    bench.pass(5);
    assert!(bench.range().is_some());
    bench.page([1, 2]);
    let range = bench.range().map(|range| (range.after, range.upto));
    assert_eq!(range, Some((2, 3)), "what it has is taken");
    assert_eq!(bench.seqs(), [1, 2]);
    // A hole in it is not passed over.
    bench.page([4]);
    bench.pass(100);
    bench.page([3, 4]);
    assert_eq!(bench.seqs(), [3, 4]);
}

#[test]
fn a_hint_with_a_gap_means_read_the_range() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 5, 5)]);
    bench.frames();
    bench.event(&event(8));
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((5, 7)));
    bench.event(&event(9));
    bench.page(6..=7);
    assert_eq!(bench.seqs(), [6, 7, 8, 9]);
    bench.session.heads(0, &[(ROOM, 11)], &mut bench.out);
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((9, 11)));
    bench.page(10..=11);
    assert_eq!(bench.seqs(), [10, 11]);
}

#[test]
fn what_is_held_behind_a_gap_does_not_keep_the_gap_from_being_read() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 1)]);
    assert!(bench.range().is_some());
    for seq in 2..=400 {
        bench.event(&event(seq));
    }
    bench.page([]);
    bench.pass(10);
    assert!(bench.range().is_some(), "asked again though much is held");
    bench.page([1]);
    assert_eq!(bench.seqs(), (1..=256).collect::<Vec<_>>());
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.frames();
    for seq in 1..=300 {
        bench.event(&event(seq));
    }
    assert_eq!(bench.seqs().len(), 256);
    bench.ack(100);
    assert_eq!(bench.seqs(), (257..=300).collect::<Vec<_>>());

    // By bytes; one that is larger goes alone.
    let large = |seq, bytes: usize| Event { frame: Bytes::from(vec![b' '; bytes]), ..event(seq) };
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.frames();
    for (seq, bytes) in [(1, 200_000), (2, 60_000), (3, 10_000), (4, 900_000), (5, 10)] {
        bench.event(&large(seq, bytes));
    }
    let sent = |bench: &mut Bench| bench.out.frames.drain(..).map(|frame| frame.len()).collect::<Vec<_>>();
    assert_eq!(sent(&mut bench), [200_000, 60_000]);
    bench.ack(1);
    assert_eq!(sent(&mut bench), [10_000]);
    bench.ack(3);
    assert_eq!(sent(&mut bench), [900_000]);
    bench.ack(4);
    assert_eq!(bench.range().map(|range| range.after), Some(4), "what could not be held beside it is read");
}

#[test]
fn what_a_slow_client_does_not_take_is_read_when_it_does() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.frames();
    for seq in 1..=2000 {
        bench.event(&event(seq));
    }
    let mut sent = bench.seqs();
    let mut acked = 0;
    while *sent.last().unwrap() < 2000 {
        acked += 50;
        bench.ack(acked);
        if let Some(range) = bench.range() {
            assert!(bench.session.held.events <= 256, "held no more than is bounded");
            bench.page(range.after + 1..=range.upto.min(range.after + range.limit));
        }
        sent.extend(bench.seqs());
    }
    assert_eq!(sent, (1..=2000).collect::<Vec<_>>());
}

#[test]
fn conversations_take_turns() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 300), begin(OTHER_ROOM, 0, 0, 300)]);
    bench.frames();
    let Some(Action::Read(ranges)) = bench.take(|action| matches!(action, Action::Read(_))) else { panic!("no read") };
    assert_eq!(ranges.iter().map(|range| range.limit).collect::<Vec<_>>(), [256, 256]);
    let pages: Vec<_> = [ROOM, OTHER_ROOM]
        .map(|id| Page {
            conversation_id: id,
            events: (1..=256).map(|seq| event_about(id, seq, About::Other)).collect(),
        })
        .into();
    bench.session.pages(0, &pages, &mut bench.out);
    let frames = bench.frames();
    let mine = frames.iter().filter(|frame| frame["conversation_id"] == json!(ROOM)).count();
    assert_eq!((frames.len(), mine), (256, 128));
}

#[test]
fn what_is_not_acked_comes_again() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.pass(1_000);
    bench.event(&event(2));
    bench.frames();
    bench.pass(3_999);
    assert_eq!(bench.seqs(), Vec::<u64>::new());
    bench.pass(1);
    assert_eq!(bench.seqs(), [1]);
    bench.pass(1_000);
    assert_eq!(bench.seqs(), [2]);
    bench.pass(9_000);
    assert_eq!(bench.seqs(), [1]);
    bench.ack(2);
    bench.pass(40_000);
    assert_eq!(bench.seqs(), Vec::<u64>::new());
    // What was not even written is not written twice.
    bench.event(&event(3));
    bench.pass(14_000);
    assert_eq!(bench.seqs(), [3]);
}

#[test]
fn who_acks_nothing_for_two_minutes_is_too_slow() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.pass(20_000);
    bench.say(&json!({"type": "ping"}));
    bench.event(&event(1));
    bench.event(&event(2));
    bench.pass(50_000);
    bench.ack(1);
    bench.frames();
    for _ in 0..5 {
        bench.say(&json!({"type": "ping"}));
        bench.pass(20_000);
        assert_eq!(bench.closed(), None, "{}", bench.now_ms);
    }
    bench.say(&json!({"type": "ping"}));
    bench.pass(20_000);
    assert_eq!(bench.closed(), Some(close::TOO_SLOW));
}
