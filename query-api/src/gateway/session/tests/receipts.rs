//! Watermarks, one's own and others'.

use super::*;

#[test]
fn watermarks_are_told_before_synced_and_only_forward() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    bench.session.started(0, Plan { flows: vec![begin(ROOM, 0, 5, 5)], ..Plan::default() }, &mut bench.out);
    bench.frames();
    // Live before it was read, and newer than it.
    bench.session.receipt(0, &receipt(BEN, 5, 3), &mut bench.out);
    assert!(bench.take(|action| *action == Action::Receipts(vec![(ROOM, None)])).is_some());
    let told = [receipt(BEN, 4, 3), receipt(ANN, 2, 2)];
    bench.session.receipts_read(0, &told, &mut bench.out);
    let frames = bench.frames();
    let told: Vec<_> = frames.iter().map(|frame| (frame["delivered_to"].as_u64(), frame["read_to"].as_u64())).collect();
    assert_eq!(told, [(Some(5), Some(3)), (Some(2), Some(2)), (None, None)]);
    assert_eq!(frames[2], json!({"type": "synced"}));
    bench.session.receipt(0, &receipt(BEN, 5, 3), &mut bench.out);
    bench.session.receipt(0, &receipt(BEN, 4, 4), &mut bench.out);
    assert!(!bench.has("receipt"));
    bench.session.receipt(0, &receipt(BEN, 5, 4), &mut bench.out);
    assert!(bench.has("receipt"));
    // What is remembered for it goes.
    bench.pass(29_000);
    bench.session.heard(bench.now_ms);
    bench.pass(31_000);
    assert!(bench.session.marks.is_none());
}

#[test]
fn watermarks_of_before_the_start_are_not_told_again() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello"}));
    let read_at = vec![0, 40].into();
    bench.start(Plan { flows: vec![begin(ROOM, 0, 5, 5)], read_at, ..Plan::default() });
    bench.frames();
    let at = |position, shard| Receipt {
        place: Some(Position { topic: Topic::Conversations, shard, position }),
        ..receipt(BEN, position, 0)
    };
    // By fan-out that took over: this device was told of later ones by another connection.
    bench.session.receipt(0, &at(40, 1), &mut bench.out);
    assert!(!bench.has("receipt"));
    bench.session.receipt(0, &at(41, 1), &mut bench.out);
    assert!(bench.has("receipt"));
    bench.session.receipt(0, &at(1, 7), &mut bench.out);
    assert!(!bench.has("receipt"), "it would go back");
}

#[test]
fn an_ack_of_this_device_beside_the_socket_counts() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    let by = |device| Receipt { acked: Some((device, 1)), ..receipt(ANN, 1, 0) };
    bench.session.receipt(0, &by(BEN), &mut bench.out);
    assert_eq!(bench.session.flight.events, 1, "another device's");
    bench.session.receipt(0, &by(caller().device_id), &mut bench.out);
    assert_eq!(bench.session.flight.events, 0);
    // One from before a connection that wants everything again takes nothing away.
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 1)]);
    bench.range();
    bench.session.receipt(0, &by(caller().device_id), &mut bench.out);
    bench.page([1]);
    assert_eq!(bench.seqs(), [1]);
}

#[test]
fn what_had_no_room_is_found_out_again() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 5, 5)]);
    bench.frames();
    let missed = Missed { heads: vec![(ROOM, 9)], receipts: vec![ROOM] };
    bench.session.missed(0, missed, &mut bench.out);
    assert!(bench.take(|action| *action == Action::Stays).is_some());
    assert_eq!(bench.range().map(|range| (range.after, range.upto)), Some((5, 9)));
    bench.session.no_stays(0);
    bench.pass(RETRY_MS);
    assert!(bench.take(|action| *action == Action::Stays).is_some());
    bench.session.stays(0, &[(ROOM, 0, 9)], &mut bench.out);
    assert!(bench.take(|action| *action == Action::Receipts(vec![(ROOM, None)])).is_some());
}

#[test]
fn watermarks_that_are_read_again_do_not_go_back() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 9, 9)]);
    bench.pass(29_000);
    bench.session.heard(bench.now_ms);
    bench.pass(31_000);
    assert!(bench.session.marks.is_none());
    bench.session.missed(bench.now_ms, Missed { heads: vec![], receipts: vec![ROOM] }, &mut bench.out);
    // Committed after it was asked for what the read models are waited for to have.
    bench.session.receipt(bench.now_ms, &receipt(BEN, 9, 9), &mut bench.out);
    bench.session.stays(bench.now_ms, &[(ROOM, 0, 9)], &mut bench.out);
    bench.frames();
    bench.receipts_read(&[receipt(BEN, 5, 5), receipt(ANN, 6, 6)]);
    let told: Vec<_> = bench.frames().iter().map(|frame| frame["delivered_to"].as_u64()).collect();
    assert_eq!(told, [Some(6)]);
    // And for a while what is late.
    bench.session.receipt(bench.now_ms, &receipt(ANN, 5, 5), &mut bench.out);
    assert!(!bench.has("receipt"));
    assert!(bench.session.marks.is_some());
}
