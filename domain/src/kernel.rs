//! What every aggregate shares with the store that keeps it: how events are written down, and what a stream is.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

/// The log's topics; an event's topic follows from its aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "i16", try_from = "i16")]
#[repr(i16)]
pub enum LogTopic {
    /// Users and their sessions, ordered by user.
    Users = 0,
    /// Everything in a conversation, ordered by conversation.
    Conversations = 1,
}

impl LogTopic {
    /// Every topic, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Users, Self::Conversations];

    /// The code under which the topic is stored.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The topic stored under `code`.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.code() == code)
    }
}

impl From<LogTopic> for i16 {
    fn from(topic: LogTopic) -> Self {
        topic.code()
    }
}

impl TryFrom<i16> for LogTopic {
    type Error = &'static str;

    fn try_from(code: i16) -> Result<Self, Self::Error> {
        Self::from_code(code).ok_or("no topic has this code")
    }
}

/// How an event is written down: its type and version stand in columns, the JSON holds the rest.
pub trait Payload: DomainEvent {
    /// The type, as it stands in the `event_type` column.
    fn type_name(&self) -> &'static str;

    /// The version of the type's JSON that [`Payload::encode`] writes.
    fn version(&self) -> i16;

    /// The event's JSON, without its type and without what the row's columns say.
    ///
    /// # Errors
    /// None for events made of plain data; serde's signature has one.
    fn encode(&self) -> serde_json::Result<String>;

    /// The event that `encode` wrote.
    ///
    /// # Errors
    /// An unknown type, or JSON that does not fit it.
    fn decode(type_name: &str, json: &str) -> serde_json::Result<Self>;

    /// The current version of `type_name`, or `None` for a type that this aggregate does not have.
    fn current_version(type_name: &str) -> Option<i16>;
}

/// An aggregate that the log keeps.
pub trait Stored: cqrs_es::Aggregate<Event: Payload> + Clone + 'static {
    /// The code in the `aggregate_type` column, never used again for another aggregate.
    const CODE: i16;

    /// Where its events go.
    const TOPIC: LogTopic;

    /// Whether each event carries the whole state, so that loading the last one is enough.
    const LATEST_ONLY: bool = false;
}

/// Declares an aggregate's event enum: a line a type, with the name and version it is stored under.
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $type_name:literal, $version:literal => $variant:ident($body:ty), )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[$variant_meta])* #[serde(rename = $type_name)] $variant($body), )+
        }

        impl cqrs_es::DomainEvent for $name {
            fn event_type(&self) -> String {
                $crate::kernel::Payload::type_name(self).to_owned()
            }
            fn event_version(&self) -> String {
                $crate::kernel::Payload::version(self).to_string()
            }
        }

        impl $crate::kernel::Payload for $name {
            fn type_name(&self) -> &'static str {
                match self { $( Self::$variant(_) => $type_name, )+ }
            }
            fn version(&self) -> i16 {
                match self { $( Self::$variant(_) => $version, )+ }
            }
            fn encode(&self) -> serde_json::Result<String> {
                match self { $( Self::$variant(body) => serde_json::to_string(body), )+ }
            }
            fn decode(type_name: &str, json: &str) -> serde_json::Result<Self> {
                match type_name {
                    $( $type_name => serde_json::from_str(json).map(Self::$variant), )+
                    other => Err(serde::de::Error::custom(format_args!("unknown event type {other:?}"))),
                }
            }
            fn current_version(type_name: &str) -> Option<i16> {
                match type_name { $( $type_name => Some($version), )+ _ => None }
            }
        }

    };
}
pub(crate) use events;

/// Makes events out of their bodies, where each body belongs to one type.
macro_rules! from_bodies {
    ($event:ident: $($body:ident),+ $(,)?) => {
        $(
            impl From<$body> for $event {
                fn from(body: $body) -> Self {
                    Self::$body(body)
                }
            }
        )+
    };
}
pub(crate) use from_bodies;

/// Implements `cqrs_es::Aggregate` and [`Stored`] by the aggregate's own `apply` and `decide`.
///
/// The only place that follows cqrs-es when it changes its traits.
macro_rules! aggregate {
    ($state:ty { name: $name:literal, code: $code:literal, topic: $topic:ident, latest_only: $latest:literal,
                 command: $command:ty, event: $event:ty, refusal: $refusal:ty $(,)? }) => {
        impl cqrs_es::Aggregate for $state {
            const TYPE: &'static str = $name;
            type Command = $command;
            type Event = $event;
            type Error = $refusal;
            type Services = ();

            async fn handle(
                &mut self,
                command: Self::Command,
                (): &Self::Services,
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), Self::Error> {
                for event in self.decide(command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                self.evolve(event);
            }
        }

        impl $crate::kernel::Stored for $state {
            const CODE: i16 = $code;
            const TOPIC: $crate::kernel::LogTopic = $crate::kernel::LogTopic::$topic;
            const LATEST_ONLY: bool = $latest;
        }
    };
}
pub(crate) use aggregate;
