//! The store under cqrs-es's framework.

use std::collections::HashMap;

use cqrs_es::{AggregateError, CqrsFramework, EventStore as _};
use event_store::{Context, CqrsStore};
use uuid::Uuid;

use crate::history::History;
use crate::model::{OpenRoom, Room, RoomEvent};
use crate::store;

#[tokio::test]
async fn the_framework_loads_commits_and_notices_conflicts() {
    let (_database, store) = store().await;
    let (room, who) = (Uuid::now_v7(), Uuid::now_v7());
    let cqrs_store = || CqrsStore::<Room>::new(store.clone());
    let framework = CqrsFramework::new(cqrs_store(), Vec::new(), ());
    let id = room.to_string();
    let opened = vec![RoomEvent::Opened { title: "by the framework".into() }];
    let metadata = HashMap::from([("correlation_id".to_owned(), "a request".to_owned())]);
    framework.execute_with_metadata(&id, opened.clone(), metadata.clone()).await.unwrap();
    framework.execute(&id, vec![RoomEvent::Joined { who }]).await.unwrap();
    assert!(!store.execute(OpenRoom(room), Context::default()).await.unwrap().changed, "the store's own way sees it");

    let stale = cqrs_store().load_aggregate(&id).await.unwrap();
    framework.execute(&id, vec![RoomEvent::Left { gone: who }]).await.unwrap();
    let late = cqrs_store().commit(vec![RoomEvent::Joined { who }], stale, HashMap::new()).await;
    assert!(matches!(late, Err(AggregateError::AggregateConflict)));

    let events = cqrs_store().load_events(&id).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&events[0].payload, &events[0].metadata), (&opened[0], &metadata));
    History::read(&store).await;
}
