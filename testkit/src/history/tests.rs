//! The checker has to fail on each kind of corrupted history, and on nothing else.

use super::*;

const ANN: Uuid = Uuid::from_u128(0xa);
const BEN: Uuid = Uuid::from_u128(0xb);
const HERE: Uuid = Uuid::from_u128(0xc);

fn message(seq: u64) -> Uuid {
    Uuid::from_u128(u128::from(1000 + seq))
}

fn received(seq: u64) -> Received {
    Received { conversation_id: HERE, seq, message_id: (seq > 1).then(|| message(seq)) }
}

/// Ann sends 2 to 9 to Ben; Ben loses his connection once and is sent some again; Ann's last was not answered.
fn good() -> Run {
    let sends = (2..=9u64).map(|seq| Send {
        message_id: message(seq),
        conversation_id: HERE,
        sender: ANN,
        content: digest(&format!("message {seq}")),
        at: 10 * seq,
        answer: if seq == 9 { Answer::None } else { Answer::Acknowledged { seq, at: 10 * seq + 5 } },
    });
    let entries = (2..=9u64).map(|seq| Entry {
        seq,
        message_id: message(seq),
        sender: ANN,
        content: digest(&format!("message {seq}")),
    });
    let member = |user, unread, read_to| Member { user, unread, delivered_to: 9, read_to };
    let receipt = |delivered_to, read_to| Receipt { conversation_id: HERE, user: BEN, delivered_to, read_to };
    Run {
        sends: sends.collect(),
        devices: vec![
            Device {
                user: ANN,
                name: "ann/1".into(),
                connections: vec![(1..=9).map(received).collect()],
                receipts: vec![receipt(4, 0), receipt(4, 4), receipt(9, 4)],
                complete: true,
                ..Device::default()
            },
            Device {
                user: BEN,
                name: "ben/1".into(),
                starts: HashMap::from([(HERE, 0)]),
                connections: vec![
                    [1, 2, 3, 4, 2, 3, 5].map(received).to_vec(),
                    [3, 4, 5, 6, 7, 8, 9, 9].map(received).to_vec(),
                ],
                complete: true,
                ..Device::default()
            },
        ],
        conversations: vec![Conversation {
            conversation_id: HERE,
            head: 9,
            entries: entries.collect(),
            others: BTreeSet::from([1]),
            members: vec![member(ANN, 0, 0), member(BEN, 5, 4)],
        }],
    }
}

/// The violations of the good run once something was done to it.
fn after(corrupt: impl FnOnce(&mut Run)) -> Vec<Violation> {
    let mut run = good();
    corrupt(&mut run);
    check(&run).expect_err("the corruption is found").0
}

macro_rules! finds {
    ($name:ident, $pattern:pat, $corrupt:expr) => {
        #[test]
        fn $name() {
            let found = after($corrupt);
            assert!(found.iter().any(|violation| matches!(violation, $pattern)), "found only {found:?}");
            assert!(!found[0].to_string().is_empty());
        }
    };
}

#[test]
fn a_good_run_passes_and_is_counted() {
    let expected = Summary {
        sent: 8,
        acknowledged: 7,
        unanswered: 1,
        unanswered_kept: 1,
        kept: 8,
        received: 24,
        repeated: 6,
        receipts: 3,
    };
    assert_eq!(check(&good()), Ok(expected));
}

#[test]
fn an_unanswered_send_may_be_lost() {
    let mut run = good();
    run.sends.push(Send {
        message_id: message(77),
        conversation_id: HERE,
        sender: BEN,
        content: 0,
        at: 1,
        answer: Answer::None,
    });
    assert_eq!(check(&run).map(|summary| summary.unanswered_kept), Ok(1));
}

finds!(a_lost_message, Violation::Lost { seq: 5, .. }, |run| {
    run.conversations[0].entries.remove(3);
});
finds!(a_moved_message, Violation::Moved { promised: 4, seq: 5, .. }, |run| {
    run.conversations[0].entries[2].seq = 5;
    run.conversations[0].entries[3].seq = 4;
    run.conversations[0].entries.swap(2, 3);
});
finds!(a_message_kept_twice, Violation::Twice { .. }, |run| {
    let again = Entry { seq: 10, ..run.conversations[0].entries[3] };
    run.conversations[0].entries.push(again);
    run.conversations[0].head = 10;
});
finds!(an_unanswered_message_kept_twice, Violation::Twice { .. }, |run| {
    let again = Entry { seq: 10, ..run.conversations[0].entries[7] };
    run.conversations[0].entries.push(again);
    run.conversations[0].head = 10;
});
finds!(a_changed_content, Violation::Changed { seq: 3, .. }, |run| {
    run.conversations[0].entries[1].content ^= 1;
});
finds!(a_changed_sender, Violation::Changed { seq: 3, .. }, |run| {
    run.conversations[0].entries[1].sender = BEN;
});
finds!(a_refused_message_in_the_history, Violation::RefusedYetKept { seq: 9, .. }, |run| {
    run.sends[7].answer = Answer::Refused;
});
finds!(a_message_that_nobody_sent, Violation::NeverSent { seq: 9, .. }, |run| {
    run.sends.pop();
});
finds!(a_history_out_of_order, Violation::HistoryOutOfOrder { .. }, |run| {
    run.conversations[0].entries.swap(2, 3);
});
finds!(a_hole_in_the_numbers, Violation::SeqMissing { seq: 1, .. }, |run| {
    run.conversations[0].others.clear();
});
finds!(a_number_given_twice, Violation::SeqTwice { seq: 2, .. }, |run| {
    run.conversations[0].others.insert(2);
});
finds!(a_head_that_lags, Violation::BeyondHead { seq: 9, head: 8, .. }, |run| {
    run.conversations[0].head = 8;
});
finds!(a_message_that_overtook, Violation::Overtaken { .. }, |run| {
    run.sends[1].at = 1000;
});
finds!(an_event_never_delivered, Violation::NotDelivered { has: 8, head: 9, .. }, |run| {
    run.devices[1].connections[1].retain(|received| received.seq != 9);
});
finds!(a_device_that_got_nothing, Violation::NotDelivered { has: 0, head: 9, .. }, |run| {
    run.devices[0].connections.clear();
});
finds!(a_gap_on_a_connection, Violation::Gap { after: 3, seq: 5, .. }, |run| {
    run.devices[1].connections[0].remove(3);
});
finds!(a_gap_that_another_connection_had_closed, Violation::Gap { after: 3, seq: 5, .. }, |run| {
    run.devices[1].connections[1].remove(1);
});
finds!(a_gap_between_connections, Violation::Gap { after: 5, seq: 8, .. }, |run| {
    run.devices[1].connections[1].drain(..5);
});
finds!(a_gap_at_the_start, Violation::Gap { after: 0, seq: 2, .. }, |run| {
    run.devices[1].connections[0].remove(0);
});
finds!(a_device_that_saw_another_order, Violation::OtherMessage { seq: 2, .. }, |run| {
    run.devices[0].connections[0][1].message_id = Some(message(3));
});
finds!(an_event_of_nowhere, Violation::UnknownConversation { .. }, |run| {
    run.devices[0].connections[0][0].conversation_id = ANN;
});
finds!(delivered_going_back, Violation::ReceiptWentBack { before: (9, 4), after: (8, 4), .. }, |run| {
    run.devices[0].receipts.push(Receipt { conversation_id: HERE, user: BEN, delivered_to: 8, read_to: 4 });
});
finds!(read_going_back, Violation::ReceiptWentBack { before: (9, 4), after: (9, 3), .. }, |run| {
    run.devices[0].receipts.push(Receipt { conversation_id: HERE, user: BEN, delivered_to: 9, read_to: 3 });
});
finds!(a_receipt_beyond_what_is_stored, Violation::Watermarks { read_to: 6, .. }, |run| {
    run.devices[0].receipts.push(Receipt { conversation_id: HERE, user: BEN, delivered_to: 9, read_to: 6 });
});
finds!(delivered_beyond_the_head, Violation::Watermarks { delivered_to: 10, .. }, |run| {
    run.conversations[0].members[1].delivered_to = 10;
});
finds!(a_wrong_unread, Violation::Unread { told: 6, counted: 5, .. }, |run| {
    run.conversations[0].members[1].unread = 6;
});
