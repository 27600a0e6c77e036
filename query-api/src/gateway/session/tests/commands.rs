//! What a client says and wants done.

use super::*;

#[test]
fn acks_move_the_cursor_and_the_watermark() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 9)]);
    bench.range();
    bench.page(1..=5);
    bench.frames();
    bench.actions();
    let kept = |acked| {
        let acked_at = Some(OffsetDateTime::UNIX_EPOCH);
        Action::Keep(Cursor { conversation_id: ROOM, joined: Some(0), acked, acked_at })
    };
    let advance = |seq, reference: Option<&str>, decides| {
        let (reference, delivered_to, read_to) = (reference.map(Into::into), Some(seq), None);
        Advance { reference, conversation_id: ROOM, delivered_to, read_to, decides }
    };
    bench.ack(3);
    assert_eq!(bench.actions(), [kept(3), Action::Advance(advance(3, None, false))]);
    // Stale ones are answered where an answer is wanted, and change nothing.
    bench.say(&json!({"type": "ack", "ref": "a", "conversation_id": ROOM, "seq": 2}));
    assert_eq!((bench.actions(), bench.frames()), (vec![], vec![json!({"type": "ok", "ref": "a"})]));
    // Beyond what was sent, but committed: taken, and not sent any more.
    bench.say(&json!({"type": "ack", "ref": "b", "conversation_id": ROOM, "seq": 7}));
    let acted = bench.actions();
    assert!(acted.contains(&kept(7)) && acted.contains(&Action::Advance(advance(7, Some("b"), false))), "{acted:?}");
    assert_eq!(bench.frames(), Vec::<Value>::new(), "answered when it is done");
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(7, Some("b"), false), Ok(()), &mut bench.out);
    assert_eq!(bench.frames(), [json!({"type": "ok", "ref": "b"})]);
    bench.page(8..=9);
    assert_eq!(bench.seqs(), [8, 9]);
    // Beyond what is known here: the log knows.
    bench.ack(10);
    assert_eq!(bench.actions(), [Action::Advance(advance(10, None, true))]);
    let refused = Err(problem(422));
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(10, None, true), refused, &mut bench.out);
    assert_eq!(bench.frames()[0]["problem"]["status"], 422);
    assert_eq!(bench.actions(), []);
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(10, None, true), Ok(()), &mut bench.out);
    assert_eq!(bench.actions(), [kept(10)]);
    bench.event(&event(10));
    assert_eq!(bench.seqs(), Vec::<u64>::new());
}

fn problem(status: u16) -> Problem {
    Problem {
        kind: "/problems/x".to_owned(),
        title: "x".to_owned(),
        status,
        detail: "x".to_owned(),
        retryable: matches!(status, 429 | 503),
        trace_id: "x".to_owned(),
        retry_after_s: None,
        errors: vec![],
    }
}

#[test]
fn an_ack_that_the_command_side_could_not_take_is_told_again() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 0)]);
    bench.event(&event(1));
    bench.ack(1);
    let Some(Action::Advance(advance)) = bench.take(|action| matches!(action, Action::Advance(_))) else {
        panic!("not told")
    };
    bench.frames();
    bench.actions();
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance, Err(problem(503)), &mut bench.out);
    assert!(bench.frames().is_empty());
    bench.pass(2 * RETRY_MS);
    assert_eq!(bench.actions(), [Action::Advance(advance)]);
}

#[test]
fn an_ack_before_the_start_that_the_command_side_could_not_take_is_told_at_the_start() {
    let mut bench = Bench::new();
    bench.say(&json!({"type": "hello", "cursors": {ROOM.to_string(): 7}}));
    let mut told = Vec::new();
    for seq in [7, 5] {
        bench.ack(seq);
        told.extend(bench.take(|action| matches!(action, Action::Advance(_))));
    }
    bench.frames();
    for action in told {
        let Action::Advance(advance) = action else { panic!("{action:?}") };
        assert!(advance.decides);
        bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance, Err(problem(503)), &mut bench.out);
    }
    assert_eq!(bench.frames(), Vec::<Value>::new(), "it is the server's to say it again");
    bench.start(Plan { flows: vec![begin(ROOM, 0, 7, 7)], ..Plan::default() });
    let again = bench.take(|action| matches!(action, Action::Advance(_)));
    let advance =
        |decides| Advance { reference: None, conversation_id: ROOM, delivered_to: Some(7), read_to: None, decides };
    assert_eq!(again, Some(Action::Advance(advance(false))));

    // One whose answer came only after the start.
    let mut bench = Bench::open(vec![begin(ROOM, 0, 3, 7)]);
    bench.actions();
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance(true), Err(problem(503)), &mut bench.out);
    assert!(bench.actions().contains(&Action::Advance(advance(false))));
    // What nobody here knows of, and what would not be taken another time, is refused.
    for (seq, status) in [(8, 503), (7, 422)] {
        let advance = Advance { delivered_to: Some(seq), ..advance(true) };
        bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance, Err(problem(status)), &mut bench.out);
        assert_eq!(bench.frames().last().map(|frame| frame["problem"]["status"].clone()), Some(json!(status)));
    }
}

#[test]
fn reads_and_sends_are_handed_on_and_answered() {
    let mut bench = Bench::open(vec![begin(ROOM, 0, 0, 5)]);
    bench.actions();
    bench.frames();
    bench.say(&json!({"type": "read", "ref": "r", "conversation_id": ROOM, "seq": 4}));
    let advance = Advance {
        reference: Some("r".into()),
        conversation_id: ROOM,
        delivered_to: None,
        read_to: Some(4),
        decides: false,
    };
    assert_eq!(bench.actions(), [Action::Advance(advance.clone())], "moves no cursor");
    bench.session.advanced(0, OffsetDateTime::UNIX_EPOCH, &advance, Ok(()), &mut bench.out);
    assert_eq!(bench.frames(), [json!({"type": "ok", "ref": "r"})]);

    let message_id = Uuid::from_u128(9);
    bench.say(&json!({"type": "send", "ref": "s", "conversation_id": ROOM, "message_id": message_id, "content": "hi"}));
    let Some(Action::Send { reference, conversation_id, message, .. }) = bench.actions().pop() else {
        panic!("no send")
    };
    assert_eq!((reference.as_deref(), conversation_id, &*message.content), (Some("s"), ROOM, "hi"));
    let position = schemas::Position { topic: schemas::Topic::Conversations, shard: 1, position: 2 }.into();
    let sent = MessageSent { message_id, conversation_id, seq: 6, sent_at: OffsetDateTime::UNIX_EPOCH, position };
    bench.session.sent(0, Some("s"), Ok(sent.clone()), &mut bench.out);
    bench.session.sent(0, None, Ok(sent), &mut bench.out);
    let frames = bench.frames();
    assert_eq!((frames.len(), &frames[0]["ref"], &frames[0]["seq"]), (1, &json!("s"), &json!(6)));
    bench.session.sent(0, None, Err(problem(403)), &mut bench.out);
    assert_eq!(bench.frames()[0]["problem"]["status"], 403, "errors are answered without a ref");
    bench.say(&json!({"type": "ping", "ref": "p"}));
    bench.say(&json!({"type": "typing", "ref": "t", "conversation_id": ROOM, "on": true}));
    let frames = bench.frames();
    assert_eq!(frames[0], json!({"type": "pong", "ref": "p"}));
    assert_eq!((&frames[1]["ref"], &frames[1]["problem"]["status"]), (&json!("t"), &json!(422)));
    assert_eq!(bench.closed(), None);
}

#[test]
fn a_hundred_refusals_in_ten_seconds_are_too_many() {
    let mut bench = Bench::open(vec![]);
    for count in 0..150_u64 {
        bench.now_ms = count * 102;
        bench.session.sent(bench.now_ms, None, Err(problem(429)), &mut bench.out);
    }
    assert_eq!(bench.closed(), None, "99 in any 10 s");
    bench.session.sent(bench.now_ms, None, Err(problem(429)), &mut bench.out);
    assert_eq!(bench.closed(), Some(close::RATE_LIMIT));
}
