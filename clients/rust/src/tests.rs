//! The client against a peer over real sockets: lost connections and answers, refusals, tokens, back-pressure.

mod peer;

use std::{collections::HashMap, time::Duration};

use schemas::rest::SessionTokens;
use tokio::time::timeout;
use uuid::Uuid;

use self::peer::{Fault, Peer};
use crate::{AckPolicy, Backoff, Client, CloseReason, Error, FileStore, Server, SessionOptions, Update, Updates};

/// For any wait.
const BOUND: Duration = Duration::from_mins(1);

fn quick() -> Backoff {
    Backoff { base: Duration::from_millis(5), max: Duration::from_millis(50) }
}

fn options() -> SessionOptions {
    SessionOptions { backoff: quick(), ack_within: Duration::from_millis(10), ..SessionOptions::default() }
}

async fn log_in(peer: &Peer) -> Client {
    let server = Server::new(&peer.address()).expect("an address").with_retries(5, quick());
    server.log_in("ann", "correct horse", None).await.expect("logged in")
}

/// The next event; panics at the end of the session.
async fn next_event(updates: &mut Updates) -> (Uuid, u64) {
    loop {
        match timeout(BOUND, updates.next()).await.expect("in time") {
            Some(Update::Event(event)) => return (event.conversation_id, event.seq),
            Some(Update::Closed(reason)) => panic!("closed: {reason:?}"),
            Some(_) => {}
            None => panic!("over"),
        }
    }
}

async fn closing(updates: &mut Updates) -> CloseReason {
    loop {
        match timeout(BOUND, updates.next()).await.expect("in time") {
            Some(Update::Closed(reason)) => return reason,
            Some(_) => {}
            None => panic!("over without a reason"),
        }
    }
}

#[tokio::test]
async fn events_come_once_and_in_order_however_often_the_connection_is_lost() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let (_session, mut updates) = client.open_session(options()).await.expect("opened");
    for seq in 1..=300u64 {
        peer.commit(conversation, &format!("message {seq}"));
        if seq % 40 == 0 {
            peer.hang_up(None);
        }
        if seq % 30 == 0 {
            peer.repeat_last(conversation, 3);
        }
        if seq % 20 == 0 {
            for expected in seq - 19..=seq {
                assert_eq!(next_event(&mut updates).await, (conversation, expected));
            }
        }
    }
    // The application asks for more: with that the last one is acked.
    let more = tokio::spawn(async move { next_event(&mut updates).await });
    peer.wait(|state| state.acked.get(&conversation) == Some(&300)).await;
    more.abort();
}

#[tokio::test]
async fn a_message_whose_answer_is_lost_is_kept_once() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    peer.fault(Fault::HangUpInsteadOfAnswer);
    peer.fault(Fault::HangUpInsteadOfAnswer);
    let (session, _updates) = client.open_session(options()).await.expect("opened");
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(session.send(conversation, format!("message {n}")).await.expect("queued"));
    }
    let mut ids = Vec::new();
    for (pending, seq) in sent.into_iter().zip(1..) {
        ids.push(pending.message_id());
        assert_eq!(timeout(BOUND, pending.outcome()).await.expect("in time").expect("sent").seq, seq);
    }
    assert_eq!(peer.history(conversation), ids);
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again_and_one_for_good_is_told() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let (session, _updates) = client.open_session(options()).await.expect("opened");
    peer.fault(Fault::Refuse(429));
    peer.fault(Fault::Refuse(503));
    let first = session.send(conversation, "first").await.expect("queued");
    let second = session.send(conversation, "second").await.expect("queued");
    assert_eq!(first.outcome().await.expect("sent").seq, 1);
    assert_eq!(second.outcome().await.expect("sent").seq, 2);
    peer.fault(Fault::Refuse(403));
    let refused = session.send(conversation, "third").await.expect("queued").outcome().await;
    assert_eq!(refused.expect_err("refused").status(), Some(403));
    assert_eq!(session.send(conversation, "fourth").await.expect("queued").outcome().await.expect("sent").seq, 3);
}

#[tokio::test]
async fn a_read_is_told_until_it_is_answered_for_good() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let (session, _updates) = client.open_session(options()).await.expect("opened");
    for fault in [Fault::Refuse(503), Fault::HangUpInsteadOfAnswer, Fault::Refuse(429)] {
        peer.fault(fault);
    }
    session.read(conversation, 7);
    peer.wait(|state| state.read.get(&conversation) == Some(&7)).await;
    peer.fault(Fault::Refuse(403));
    session.read(conversation, 8);
    peer.wait(|state| !state.is_faulty()).await;
    session.read(conversation, 9);
    peer.wait(|state| state.read.get(&conversation) == Some(&9)).await;
}

#[tokio::test]
async fn what_was_acked_is_known_to_the_server_once_the_session_is_closed() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    // More than sockets hold: while the peer writes it reads nothing.
    for n in 0..200 {
        peer.commit(conversation, &format!("{n:065000}"));
    }
    let options = SessionOptions { update_buffer: 1, acks: AckPolicy::Manual, ..options() };
    let (session, mut updates) = client.open_session(options).await.expect("opened");
    assert_eq!(next_event(&mut updates).await, (conversation, 1));
    session.ack(conversation, 1);
    timeout(BOUND, session.close()).await.expect("in time, though nobody takes updates");
    peer.wait(|state| state.acked.get(&conversation) == Some(&1)).await;
}

#[tokio::test]
async fn the_outbox_makes_callers_wait_and_keeps_one_message_an_id() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    peer.refuse_upgrades(true);
    let options = SessionOptions { outbox_capacity: 2, ..options() };
    let (session, _updates) = client.open_session(options).await.expect("opened");
    let message = crate::text_message("one");
    let first = session.send_message(conversation, message.clone()).await.expect("queued");
    let again = session.send_message(conversation, message).await.expect("taken").outcome().await;
    assert!(matches!(again, Err(Error::AlreadyQueued)));
    let second = session.send(conversation, "two").await.expect("queued");
    let third = session.send(conversation, "three");
    tokio::pin!(third);
    assert!(futures::poll!(&mut third).is_pending(), "the outbox is full");
    peer.refuse_upgrades(false);
    let third = timeout(BOUND, third).await.expect("in time").expect("queued");
    for (pending, seq) in [first, second, third].into_iter().zip(1..) {
        assert_eq!(pending.outcome().await.expect("sent").seq, seq);
    }
}

#[tokio::test]
async fn acks_wait_for_an_application_that_says_when() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let options = SessionOptions { acks: AckPolicy::Manual, ..options() };
    let (session, mut updates) = client.open_session(options).await.expect("opened");
    for n in 0..3 {
        peer.commit(conversation, &format!("message {n}"));
    }
    for seq in 1..=3 {
        assert_eq!(next_event(&mut updates).await.1, seq);
    }
    session.ack(conversation, 2);
    peer.wait(|state| state.acked.get(&conversation) == Some(&2)).await;
    // A new connection is not given again what the application holds, and its last ack is repeated.
    peer.hang_up(None);
    peer.wait(|state| state.hellos.last() == Some(&HashMap::from([(conversation, 3)]))).await;
    peer.commit(conversation, "message 3");
    assert_eq!(next_event(&mut updates).await.1, 4);
    session.ack(conversation, 4);
    session.read(conversation, 3);
    peer.wait(|state| state.acked.get(&conversation) == Some(&4) && state.read.get(&conversation) == Some(&3)).await;
    session.close().await;
    assert_eq!(closing(&mut updates).await, CloseReason::Asked);
    assert!(matches!(session.send(conversation, "late").await, Err(Error::Closed)));
}

#[tokio::test]
async fn closing_writes_the_acks_that_are_owed() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let options = SessionOptions { acks: AckPolicy::Manual, ack_within: Duration::from_mins(1), ..options() };
    let (session, mut updates) = client.open_session(options).await.expect("opened");
    peer.commit(conversation, "message");
    assert_eq!(next_event(&mut updates).await.1, 1);
    session.ack(conversation, 1);
    session.close().await;
    peer.wait(|state| state.acked.get(&conversation) == Some(&1)).await;
}

#[tokio::test]
async fn an_application_that_is_slow_loses_nothing() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let options = SessionOptions { update_buffer: 1, ..options() };
    let (session, mut updates) = client.open_session(options).await.expect("opened");
    peer.wait(|state| state.connected == 1).await;
    for n in 0..200 {
        peer.commit(conversation, &format!("message {n}"));
    }
    // What is sent goes out while nothing is read.
    let pending = session.send(conversation, "mine").await.expect("queued");
    peer.wait(|state| state.head(conversation) == 201).await;
    for seq in 1..=201 {
        assert_eq!(next_event(&mut updates).await.1, seq);
    }
    assert_eq!(pending.outcome().await.expect("sent").seq, 201);
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_for_all_calls() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    peer.revoke_access_tokens();
    let calls = futures::future::join_all((0..8).map(|_| client.me())).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(peer.refreshes(), 1);
    peer.revoke_everything();
    assert!(matches!(client.me().await, Err(Error::LoggedOut)));
    assert!(matches!(client.me().await, Err(Error::LoggedOut)));
}

#[tokio::test]
async fn a_call_that_is_refused_for_now_is_made_again_and_a_problem_is_told() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    peer.fault(Fault::Refuse(429));
    peer.fault(Fault::Refuse(503));
    assert!(client.me().await.is_ok());
    peer.fault(Fault::Refuse(403));
    let error = client.me().await.expect_err("refused");
    assert_eq!(error.status(), Some(403));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_session_renews_its_token_in_band() {
    let peer = Peer::start().await;
    peer.tokens_live_for(Duration::from_millis(500));
    let client = log_in(&peer).await;
    let (_session, _updates) = client.open_session(options()).await.expect("opened");
    peer.wait(|state| state.renewals >= 2).await;
    assert_eq!(peer.hellos(), 1);
}

#[tokio::test]
async fn close_codes_are_honoured() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let (_session, mut updates) = client.open_session(options()).await.expect("opened");
    for (code, seq) in [(4010, 1), (4008, 2), (4001, 3), (1011, 4)] {
        peer.wait(|state| state.connected == 1).await;
        if code == 4001 {
            peer.revoke_access_tokens();
        }
        peer.hang_up(Some(code));
        peer.commit(conversation, "message");
        assert_eq!(next_event(&mut updates).await.1, seq, "after {code}");
    }
    assert_eq!(peer.refreshes(), 1);
    peer.wait(|state| state.connected == 1).await;
    peer.hang_up(Some(4009));
    assert_eq!(closing(&mut updates).await, CloseReason::Replaced);

    let (_session, mut updates) = client.open_session(options()).await.expect("opened");
    peer.wait(|state| state.connected == 1).await;
    peer.revoke_everything();
    peer.hang_up(Some(4001));
    assert_eq!(closing(&mut updates).await, CloseReason::LoggedOut);
    assert!(updates.next().await.is_none());
}

#[tokio::test]
async fn a_gap_is_never_handed_on() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let (_session, mut updates) = client.open_session(options()).await.expect("opened");
    peer.commit(conversation, "first");
    assert_eq!(next_event(&mut updates).await.1, 1);
    peer.commit_unseen(conversation, "second");
    peer.commit(conversation, "third");
    // The connection is dropped, and the next one begins where the application is.
    assert_eq!(next_event(&mut updates).await.1, 2);
    assert_eq!(next_event(&mut updates).await.1, 3);
    assert_eq!(peer.hellos(), 2);
}

#[tokio::test]
async fn leaving_and_joining_again_begins_anew() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let (_session, mut updates) = client.open_session(options()).await.expect("opened");
    peer.commit(conversation, "first");
    assert_eq!(next_event(&mut updates).await.1, 1);
    peer.leave(conversation);
    for _ in 0..3 {
        peer.commit_unseen(conversation, "without ann");
    }
    peer.commit(conversation, "with ann again");
    assert_eq!(next_event(&mut updates).await.1, 5);
}

#[tokio::test]
async fn an_outbox_in_a_file_survives_a_restart_of_the_application() {
    let peer = Peer::start().await;
    let client = log_in(&peer).await;
    let conversation = Uuid::now_v7();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("outbox");
    peer.refuse_upgrades(true);
    let store = FileStore::open(&path).expect("a file");
    let (session, updates) = client.open_session_with(options(), store).await.expect("opened");
    let pending = session.send(conversation, "kept").await.expect("queued");
    let id = pending.message_id();
    drop(updates);
    assert!(matches!(pending.outcome().await, Err(Error::Closed)));

    peer.refuse_upgrades(false);
    let store = FileStore::open(&path).expect("a file");
    let (_session, mut updates) = client.open_session_with(options(), store).await.expect("opened");
    loop {
        match timeout(BOUND, updates.next()).await.expect("in time") {
            Some(Update::Sent(sent)) => break assert_eq!((sent.message_id, sent.seq), (id, 1)),
            Some(_) => {}
            None => panic!("over"),
        }
    }
    assert_eq!(peer.history(conversation), [id]);
}

#[tokio::test]
async fn tokens_of_an_earlier_run_go_on() {
    let peer = Peer::start().await;
    let tokens: SessionTokens = log_in(&peer).await.tokens().await;
    let server = Server::new(&peer.address()).expect("an address");
    let client = Client::resume(server, tokens);
    assert!(client.me().await.is_ok());
    assert!(!format!("{client:?}").contains("access"), "tokens are not shown");
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_an_error_and_no_panic() {
    let peer = Peer::start().await;
    let tokens = log_in(&peer).await.tokens().await;
    let server = Server::new(&peer.address().replace("http://", "https://")).expect("an address");
    let client = Client::resume(server, tokens);
    let (_session, mut updates) = client.open_session(options()).await.expect("opened");
    assert!(matches!(timeout(BOUND, updates.next()).await.expect("in time"), Some(Update::Offline { .. })));
}
