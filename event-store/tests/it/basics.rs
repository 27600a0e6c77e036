//! One store, alone: what commands do, and what they leave.

use domain::kernel::LogTopic;
use event_store::{CommittedBatch, Context, ExecuteError};
use uuid::Uuid;

use crate::model::{Advance, Mark, No, Note, OpenRoom, Person, Room, SecondThoughts, TakeName, Write};
use crate::{open, store};

#[tokio::test]
async fn a_command_s_events_are_numbered_placed_and_loaded_again() {
    let (database, store) = store().await;
    let room = Uuid::now_v7();
    let opened = store.execute(OpenRoom(room), Context::default()).await.unwrap();
    assert_eq!((opened.output, opened.changed, opened.position.position), (1, true, 1));
    for n in 2..=5 {
        let written = store.execute(Write::new(room, "hello"), Context::default()).await.unwrap();
        assert_eq!((written.output.seq, written.position.position), (Some(n), n));
        assert_eq!(written.position.shard, store.log().shard_of(room));
    }
    let again = store.execute(OpenRoom(room), Context::default()).await.unwrap();
    assert_eq!((again.changed, again.position.position), (false, 5), "no event: the shard's head");
    assert_eq!(store.log().numbered_heads(&[room, Uuid::nil()]).await.unwrap(), [(room, 5), (Uuid::nil(), 0)].into());
    let (state, sequence) = store.log().load::<Room>(room).await.unwrap().unwrap();
    assert!(state.open && sequence == 1);

    // A store that knows nothing yet goes on where this one stopped.
    let other = open(&database).await;
    let written = other.execute(Write::new(room, "hello"), Context::default()).await.unwrap();
    assert_eq!((written.output.seq, written.position.position), (Some(6), 6));
    let written = store.execute(Write::new(room, "hello"), Context::default()).await.unwrap();
    assert_eq!((written.output.seq, written.position.position), (Some(7), 7));
    assert!(store.log().verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn a_known_id_is_answered_with_the_first_result() {
    let (database, store) = store().await;
    let room = Uuid::now_v7();
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    let write = Write::new(room, "once");
    let first = store.execute(write.clone(), Context::default()).await.unwrap();
    for store in [&store, &open(&database).await] {
        let again = store.execute(write.clone(), Context::default()).await.unwrap();
        assert_eq!((again.output, again.changed), (first.output, false));
        let other = Write { text: "twice".into(), ..write.clone() };
        assert!(matches!(store.execute(other, Context::default()).await, Err(ExecuteError::Refused(No::Differs))));
    }
    // The same id in another room: that is someone else's, known or not.
    let elsewhere = Uuid::now_v7();
    store.execute(OpenRoom(elsewhere), Context::default()).await.unwrap();
    let stolen = Write { room: elsewhere, ..write };
    assert!(matches!(store.execute(stolen, Context::default()).await, Err(ExecuteError::Refused(No::Differs))));
}

#[tokio::test]
async fn a_refused_or_defective_command_leaves_no_trace() {
    let (_database, store) = store().await;
    let room = Uuid::now_v7();
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    let refused = SecondThoughts { room, then: || Err(No::Changed) };
    let defective = SecondThoughts { room, then: || panic!("not today") };
    let (before, refused, defective, after) = tokio::join!(
        store.execute(Write::new(room, "before"), Context::default()),
        store.execute(refused, Context::default()),
        store.execute(defective, Context::default()),
        store.execute(Write::new(room, "after"), Context::default()),
    );
    assert!(matches!(refused, Err(ExecuteError::Refused(No::Changed))));
    assert!(matches!(defective, Err(ExecuteError::Defect(message)) if message == "not today"));
    assert_eq!((before.unwrap().output.seq, after.unwrap().output.seq), (Some(2), Some(3)));
    assert_eq!(store.log().load::<Room>(room).await.unwrap().unwrap().1, 1);
    assert_eq!(store.log().lookup("name", "second thoughts").await.unwrap(), None);
    assert!(store.log().exists::<Note>(&[room]).await.unwrap().is_empty());
    assert!(store.log().verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn an_aggregate_of_which_the_last_event_is_enough_goes_on_from_it() {
    let (database, store) = store().await;
    let (room, mark) = (Uuid::now_v7(), Uuid::now_v7());
    for (to, after) in [(3, 3), (2, 3), (7, 7)] {
        let moved = store.execute(Advance { room, mark, to }, Context::default()).await.unwrap();
        assert_eq!(moved.output, after);
    }
    let other = open(&database).await;
    let moved = other.execute(Advance { room, mark, to: 9 }, Context::default()).await.unwrap();
    assert_eq!((moved.output, moved.position.position), (9, 3));
    assert_eq!(store.log().load::<Mark>(mark).await.unwrap(), Some((Mark { to: 9 }, 3)));
}

#[tokio::test]
async fn names_are_unique_and_can_be_handed_on_in_one_batch() {
    let (_database, store) = store().await;
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let take = |person, name: &str| TakeName { person, name: name.into(), blindly: false };
    store.execute(take(ada, "ada"), Context::default()).await.unwrap();
    assert!(matches!(store.execute(take(bob, "ada"), Context::default()).await, Err(ExecuteError::Refused(No::Taken))));
    let (gave, took) = tokio::join!(
        store.execute(take(ada, "lady"), Context::default()),
        store.execute(take(bob, "ada"), Context::default())
    );
    gave.unwrap();
    took.unwrap();
    assert_eq!(store.log().lookup("name", "ada").await.unwrap(), Some(bob));
    assert_eq!(store.log().lookup_prefix("name", "l", 10).await.unwrap(), [("lady".to_owned(), ada)]);
    assert_eq!(store.log().load::<Person>(ada).await.unwrap().unwrap().0.name.as_deref(), Some("lady"));
}

#[tokio::test]
async fn a_command_that_the_database_rejects_fails_alone() {
    let (_database, store) = store().await;
    let (ada, room) = (Uuid::now_v7(), Uuid::now_v7());
    let blindly = |name: &str| TakeName { person: Uuid::now_v7(), name: name.into(), blindly: true };
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    store.execute(TakeName { person: ada, name: "ada".into(), blindly: false }, Context::default()).await.unwrap();
    // A name that is taken after all, and one that PostgreSQL cannot store.
    let (first, taken, second, unstorable, third) = tokio::join!(
        store.execute(Write::new(room, "1"), Context::default()),
        store.execute(blindly("ada"), Context::default()),
        store.execute(Write::new(room, "2"), Context::default()),
        store.execute(TakeName { person: ada, name: "a\0b".into(), blindly: false }, Context::default()),
        store.execute(Write::new(room, "3"), Context::default()),
    );
    assert!(matches!(taken, Err(ExecuteError::Rejected(_))));
    assert!(matches!(unstorable, Err(ExecuteError::Rejected(_))));
    assert_eq!([first, second, third].map(|written| written.unwrap().output.seq), [Some(2), Some(3), Some(4)]);
    assert!(store.log().verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn what_is_committed_is_handed_on_as_it_is_stored() {
    let (_database, store) = store().await;
    let mut committed = store.committed();
    let room = Uuid::now_v7();
    let context = Context { correlation_id: Some("request".into()), ..Context::default() };
    store.execute(OpenRoom(room), context.clone()).await.unwrap();
    store.execute(Write::new(room, "\u{0} and \u{1f600}"), Context::default()).await.unwrap();
    let mut events = Vec::new();
    while let Some(CommittedBatch::Events(batch)) = committed.try_next() {
        events.extend(batch.iter().cloned());
    }
    let stored = store.log().read(LogTopic::Conversations, store.log().shard_of(room), 0, 10).await.unwrap();
    assert_eq!(events, stored);
    assert_eq!(stored[0].metadata.as_deref(), Some(&context));
    store.close().await;
    assert!(matches!(store.execute(OpenRoom(room), context).await, Err(ExecuteError::Closed)));
}
