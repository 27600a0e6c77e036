//! What a restart keeps, what stands beside what, and what refuses to start.

use std::{process::Output, time::Duration};

use parlance_client::Range;
use testkit::app::Place;
use tokio::time::timeout;

use crate::people::{PASSWORD, everywhere, name, person, place, register};

everywhere!(a_restart_keeps_everything);

async fn a_restart_keeps_everything(place: Place) {
    let mut app = place.start().await.unwrap();
    let (ann, ben) = (person(&app.server(), "ann").await, person(&app.server(), "ben").await);
    let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    let mut last = None;
    for n in 0..10 {
        last = Some(ann.send(conversation, &parlance_client::text_message(format!("message {n}"))).await.unwrap());
    }
    let position = last.unwrap().position;
    let before = ben.at_least(&position).strictly().history(conversation, 0).await.unwrap();
    assert_eq!(before.len(), 10);

    app.stop_and_restart().await.unwrap();
    assert_eq!(ben.at_least(&position).strictly().history(conversation, 0).await.unwrap(), before);
    app.kill_and_restart(true).await.unwrap();
    // Tokens, positions, direct conversations and numbers are what they were.
    assert_eq!(ben.at_least(&position).strictly().history(conversation, 0).await.unwrap(), before);
    assert_eq!(ben.open_direct(ann.user_id()).await.unwrap().conversation_id, conversation);
    assert_eq!(ben.send(conversation, &parlance_client::text_message("still here")).await.unwrap().seq, 12);
    let newest = ann.messages(conversation, Range::Newest, 1, None).await;
    assert_eq!(newest.unwrap().items.len(), 1);
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_installations_stand_beside_each_other() {
    let (one, other) = (place(), place());
    let (one, other) = tokio::join!(one.start(), other.start());
    let (one, other) = (one.unwrap(), other.unwrap());
    let ann = name("ann");
    register(&one.server(), &ann).await;
    assert!(one.server().log_in(&ann, PASSWORD, None).await.is_ok());
    let stranger = other.server().log_in(&ann, PASSWORD, None).await;
    assert_eq!(stranger.unwrap_err().status(), Some(401));
    register(&other.server(), &ann).await;
    assert!(one.stop().await.unwrap().success());
    assert!(other.server().log_in(&ann, PASSWORD, None).await.is_ok());
    assert!(other.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_in_use_is_refused() {
    let app = place().start().await.unwrap();
    let place = app.place().clone();
    let second = up(&place, &["up", "--listen", "127.0.0.1:0"]).await;
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&app.pid().unwrap().to_string()), "it does not say who holds it: {said}");

    let port = app.address().trim_start_matches("http://").to_owned();
    let elsewhere = crate::people::place();
    let second = up(&elsewhere, &["up", "--listen", &port]).await;
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&port), "it does not say which address is taken: {said}");

    // The first was not disturbed.
    assert!(app.server().log_in("nobody", PASSWORD, None).await.is_err_and(|error| error.status() == Some(401)));
    assert!(app.stop().await.unwrap().success());
}

async fn up(place: &testkit::app::Place, arguments: &[&str]) -> Output {
    timeout(Duration::from_secs(90), place.command(arguments).output()).await.expect("it ends").unwrap()
}
