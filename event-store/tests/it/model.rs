//! A small world to try the store with: rooms, notes written in them, watermarks, people with unique names.

use std::collections::BTreeSet;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use domain::kernel::{LogTopic, Payload, Stored};
use event_store::{Command, Reads, Recorded, Workspace};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares an aggregate with one event enum, whose variants are stored under their names.
macro_rules! aggregate {
    ($state:ident, $code:literal, $topic:ident, latest_only: $latest:literal, $event:ident {
        $($name:literal v $version:literal => $variant:ident { $($field:ident: $type:ty),* }),+ $(,)?
    }) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        pub(crate) enum $event { $($variant { $($field: $type),* }),+ }

        impl DomainEvent for $event {
            fn event_type(&self) -> String { self.type_name().to_owned() }
            fn event_version(&self) -> String { self.version().to_string() }
        }

        impl Payload for $event {
            fn type_name(&self) -> &'static str { match self { $(Self::$variant { .. } => $name),+ } }
            fn version(&self) -> i16 { match self { $(Self::$variant { .. } => $version),+ } }
            fn encode(&self) -> serde_json::Result<String> { serde_json::to_string(self) }
            fn decode(type_name: &str, json: &str) -> serde_json::Result<Self> {
                match type_name {
                    $($name => {
                        #[derive(Deserialize)]
                        struct Body { $($field: $type),* }
                        let Body { $($field),* } = serde_json::from_str(json)?;
                        Ok(Self::$variant { $($field),* })
                    })+
                    other => Err(serde_json::Error::custom(format!("no such type: {other}"))),
                }
            }
            fn current_version(type_name: &str) -> Option<i16> {
                match type_name { $($name => Some($version),)+ _ => None }
            }
        }

        impl Aggregate for $state {
            const TYPE: &'static str = stringify!($state);
            type Command = Vec<$event>;
            type Event = $event;
            type Error = std::convert::Infallible;
            type Services = ();

            async fn handle(
                &mut self,
                events: Self::Command,
                (): &(),
                sink: &EventSink<Self>,
            ) -> Result<(), Self::Error> {
                for event in events {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: $event) { self.evolve(event); }
        }

        impl Stored for $state {
            const CODE: i16 = $code;
            const TOPIC: LogTopic = LogTopic::$topic;
            const LATEST_ONLY: bool = $latest;
        }
    };
}

/// A place to write in, while it is open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Room {
    pub(crate) open: bool,
    pub(crate) members: BTreeSet<Uuid>,
    pub(crate) changes: u32,
}

aggregate!(Room, 101, Conversations, latest_only: false, RoomEvent {
    "room.opened" v 2 => Opened { title: String },
    "room.joined" v 1 => Joined { who: Uuid },
    "room.left" v 1 => Left { gone: Uuid },
});

impl Room {
    #[expect(clippy::needless_pass_by_value, reason = "as all aggregates take their events")]
    fn evolve(&mut self, event: RoomEvent) {
        self.changes += 1;
        match event {
            RoomEvent::Opened { .. } => self.open = true,
            RoomEvent::Joined { who } => {
                self.members.insert(who);
            }
            RoomEvent::Left { gone } => {
                self.members.remove(&gone);
            }
        }
    }
}

/// What was written, under the id that its writer chose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) text: Option<String>,
}

aggregate!(Note, 102, Conversations, latest_only: false, NoteEvent {
    "note.written" v 1 => Written { by: Uuid, text: String },
});

impl Note {
    fn evolve(&mut self, NoteEvent::Written { text, .. }: NoteEvent) {
        self.text = Some(text);
    }
}

/// How far someone has got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) to: u64,
}

aggregate!(Mark, 103, Conversations, latest_only: true, MarkEvent {
    "mark.moved" v 1 => Moved { to: u64 },
});

impl Mark {
    fn evolve(&mut self, MarkEvent::Moved { to }: MarkEvent) {
        self.to = to;
    }
}

/// Someone with a name that no one else has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) name: Option<String>,
}

aggregate!(Person, 104, Users, latest_only: false, PersonEvent {
    "person.named" v 1 => Named { name: String },
});

impl Person {
    fn evolve(&mut self, PersonEvent::Named { name }: PersonEvent) {
        self.name = Some(name);
    }
}

/// Why a command of this world is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum No {
    Closed,
    NotThere,
    Differs,
    Taken,
    Changed,
}

/// Opens a room; opening it again changes nothing.
#[derive(Clone)]
pub(crate) struct OpenRoom(pub(crate) Uuid);

impl Command for OpenRoom {
    type Output = u32;
    type Refusal = No;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.0
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Room>(self.0);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<u32, No> {
        if !work.stream::<Room>(self.0).state.open {
            work.emit_numbered::<Room>(self.0, RoomEvent::Opened { title: "a room".into() });
        }
        Ok(work.stream::<Room>(self.0).sequence)
    }
}

/// Lets someone in or out.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) room: Uuid,
    pub(crate) who: Uuid,
    pub(crate) present: bool,
}

impl Command for Membership {
    type Output = ();
    type Refusal = No;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.room
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Room>(self.room);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), No> {
        let room = work.stream::<Room>(self.room).state;
        if !room.open {
            return Err(No::Closed);
        }
        if room.members.contains(&self.who) != self.present {
            let event =
                if self.present { RoomEvent::Joined { who: self.who } } else { RoomEvent::Left { gone: self.who } };
            work.emit_numbered::<Room>(self.room, event);
        }
        Ok(())
    }
}

/// Writes a note, once; by a member, where `by` is given.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) room: Uuid,
    pub(crate) note: Uuid,
    pub(crate) text: String,
    pub(crate) by: Option<Uuid>,
}

impl Write {
    pub(crate) fn new(room: Uuid, text: impl Into<String>) -> Self {
        Self { room, note: Uuid::now_v7(), text: text.into(), by: None }
    }
}

impl Command for Write {
    type Output = Recorded;
    type Refusal = No;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.room
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Room>(self.room);
        reads.fresh::<Note>(self.note);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Recorded, No> {
        let note = work.stream::<Note>(self.note);
        if let Some(first) = note.first {
            let same = first.key == self.room && note.state.text.as_deref() == Some(&*self.text);
            return if same { Ok(first) } else { Err(No::Differs) };
        }
        let room = work.stream::<Room>(self.room).state;
        if !room.open {
            return Err(No::Closed);
        }
        if self.by.is_some_and(|by| !room.members.contains(&by)) {
            return Err(No::NotThere);
        }
        let event = NoteEvent::Written { by: self.by.unwrap_or_default(), text: self.text.clone() };
        Ok(work.emit_numbered::<Note>(self.note, event))
    }
}

/// Moves a watermark, only forward.
pub(crate) struct Advance {
    pub(crate) room: Uuid,
    pub(crate) mark: Uuid,
    pub(crate) to: u64,
}

impl Command for Advance {
    type Output = u64;
    type Refusal = No;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.room
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Mark>(self.mark);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<u64, No> {
        if work.stream::<Mark>(self.mark).state.to < self.to {
            work.emit::<Mark>(self.mark, MarkEvent::Moved { to: self.to });
        }
        Ok(work.stream::<Mark>(self.mark).state.to)
    }
}

/// Takes a name, giving up the one before.
pub(crate) struct TakeName {
    pub(crate) person: Uuid,
    pub(crate) name: String,
    /// Claims without looking first.
    pub(crate) blindly: bool,
}

impl Command for TakeName {
    type Output = ();
    type Refusal = No;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.person
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Person>(self.person);
        if !self.blindly {
            reads.lookup("name", self.name.as_str());
        }
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), No> {
        if !self.blindly
            && let Some(owner) = work.lookup("name", &self.name)
        {
            return if owner == self.person { Ok(()) } else { Err(No::Taken) };
        }
        if let Some(before) = work.stream::<Person>(self.person).state.name.clone() {
            work.release("name", before);
        }
        work.claim("name", self.name.as_str(), self.person);
        work.emit::<Person>(self.person, PersonEvent::Named { name: self.name.clone() });
        Ok(())
    }
}

/// Emits, puts a key, and then thinks better of it, as `then` says.
pub(crate) struct SecondThoughts {
    pub(crate) room: Uuid,
    pub(crate) then: fn() -> Result<(), No>,
}

impl Command for SecondThoughts {
    type Output = ();
    type Refusal = No;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.room
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Room>(self.room);
        reads.fresh::<Note>(self.room);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), No> {
        work.emit_numbered::<Room>(self.room, RoomEvent::Joined { who: Uuid::nil() });
        work.emit::<Note>(self.room, NoteEvent::Written { by: Uuid::nil(), text: "no".into() });
        work.put("name", "second thoughts", self.room);
        (self.then)()
    }
}
