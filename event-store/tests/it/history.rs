//! Reads the whole log back and checks what must hold of any history, whatever happened while it was written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::kernel::{LogTopic, Stored};
use event_store::{EventStore, Recorded, StoredEvent, Upcasters};
use uuid::Uuid;

use crate::model::{Mark, Note, NoteEvent, Person, Room, RoomEvent};

/// The log, checked.
pub(crate) struct History {
    pub(crate) events: Vec<StoredEvent>,
    notes: HashMap<Uuid, Recorded>,
}

impl History {
    /// Reads it: every shard in pages, in position order.
    pub(crate) async fn read(store: &EventStore) -> Self {
        let log = store.log();
        let mut events = Vec::new();
        for head in log.heads().await.unwrap() {
            let mut after = 0;
            while after < head.head {
                let page = log.read(head.topic, head.shard, after, 100).await.unwrap();
                after = page.last().expect("events up to the head").position;
                events.extend(page);
            }
            assert_eq!(after, head.head);
        }
        assert!(log.verify().await.unwrap().is_sound());
        let notes = events.iter().filter(|event| event.aggregate_type == Note::CODE);
        let notes = notes.map(|event| (event.aggregate_id, event.into())).collect();
        let history = Self { events, notes };
        history.check();
        history
    }

    fn check(&self) {
        let mut positions: BTreeMap<(LogTopic, u16), u64> = BTreeMap::new();
        let mut numbers: HashMap<Uuid, u64> = HashMap::new();
        let mut sequences: HashMap<(i16, Uuid), u32> = HashMap::new();
        let mut times: HashMap<(LogTopic, u16), time::OffsetDateTime> = HashMap::new();
        let mut ids = HashSet::new();
        let mut rooms: HashMap<Uuid, (bool, BTreeSet<Uuid>)> = HashMap::new();
        for event in &self.events {
            let position = positions.entry((event.topic, event.shard)).or_default();
            *position += 1;
            assert_eq!(event.position, *position, "positions are dense");
            if let Some(seq) = event.seq {
                let number = numbers.entry(event.key).or_default();
                *number += 1;
                assert_eq!(seq, *number, "numbers are dense within a key");
            }
            let sequence = sequences.entry((event.aggregate_type, event.aggregate_id)).or_default();
            *sequence += 1;
            assert_eq!(event.sequence, *sequence, "sequences are dense within an aggregate");
            assert!(ids.insert(event.event_id), "event ids are unique");
            assert_eq!(event.event_id.get_version_num(), 7);
            times.insert((event.topic, event.shard), event.at);
            let (open, members) = rooms.entry(event.key).or_default();
            let upcasters = Upcasters::default();
            match event.aggregate_type {
                Room::CODE => match event.decode::<Room>(&upcasters).unwrap() {
                    RoomEvent::Opened { .. } => assert!(!std::mem::replace(open, true), "a room is opened once"),
                    RoomEvent::Joined { who } => assert!(*open && members.insert(who), "a member joins once"),
                    RoomEvent::Left { gone } => assert!(*open && members.remove(&gone), "a member leaves once"),
                },
                Note::CODE => {
                    let NoteEvent::Written { by, .. } = event.decode::<Note>(&upcasters).unwrap();
                    assert!(*open && (by.is_nil() || members.contains(&by)), "a note is by a member at its time");
                }
                code => assert!([Mark::CODE, Person::CODE].contains(&code)),
            }
        }
    }

    /// That these notes, as their writers were told, are just where they were told.
    pub(crate) fn has(&self, told: impl IntoIterator<Item = (Uuid, Recorded)>) {
        for (note, recorded) in told {
            assert_eq!(self.notes.get(&note), Some(&recorded), "note {note} is where its writer was told");
        }
    }

    /// How many notes there are.
    pub(crate) fn notes(&self) -> usize {
        self.notes.len()
    }
}
