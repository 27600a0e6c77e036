//! Events of earlier versions: rewritten as they are read, never where they are stored.

use event_store::{Context, ExecuteError, Options, Upcasters};
use testkit::Database;
use uuid::Uuid;

use crate::model::{OpenRoom, Room, RoomEvent, Write};
use crate::open_with;

#[tokio::test]
async fn old_versions_are_rewritten_as_they_are_read() {
    let database = Database::new().await;
    let room = Uuid::now_v7();
    let store = open_with(database.options(), Options::default()).await;
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    store.close().await;
    // As an earlier release wrote it.
    sqlx::query(r#"UPDATE log.events SET event_version = 1, payload = '{"name":"a room"}'"#)
        .execute(database.pool())
        .await
        .unwrap();

    let store = open_with(database.options(), Options::default()).await;
    let unreadable = store.execute(Write::new(room, "too new"), Context::default()).await;
    assert!(matches!(unreadable, Err(ExecuteError::Unreadable(_))), "without an upcaster it is no room");
    let other = Uuid::now_v7();
    store.execute(OpenRoom(other), Context::default()).await.unwrap();

    let upcasters =
        Upcasters::default().with("room.opened", 1, |mut old| serde_json::json!({ "title": old["name"].take() }));
    let store = open_with(database.options(), Options { upcasters, ..Options::default() }).await;
    store.execute(Write::new(room, "hello"), Context::default()).await.unwrap();
    assert!(store.log().load::<Room>(room).await.unwrap().unwrap().0.open);
    let events = store.log().events::<Room>(room).await.unwrap();
    assert_eq!(
        events[0].decode::<Room>(store.log().upcasters()).unwrap(),
        RoomEvent::Opened { title: "a room".into() }
    );
    assert_eq!(&*events[0].payload, r#"{"name":"a room"}"#);
}
