//! Aggregates behind one type: what a lane needs to keep streams of any of them.

use std::any::Any;
use std::fmt;

use domain::kernel::{LogTopic, Payload, Stored};

use crate::upcast::Upcasters;

/// A state of some aggregate.
pub(crate) type AnyState = Box<dyn Any + Send + Sync>;

/// What is known of an aggregate without its type.
pub(crate) struct Kind {
    pub(crate) code: i16,
    pub(crate) topic: LogTopic,
    pub(crate) latest_only: bool,
    pub(crate) empty: fn() -> AnyState,
    pub(crate) duplicate: fn(&AnyState) -> AnyState,
    /// Applies a stored event: type, version, JSON.
    pub(crate) apply: fn(&mut AnyState, &str, i16, &str, &Upcasters) -> serde_json::Result<()>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("code", &self.code).finish_non_exhaustive()
    }
}

/// Gives an aggregate its [`Kind`].
pub(crate) trait KindOf: Stored {
    const KIND: &'static Kind;
}

impl<A: Stored> KindOf for A {
    const KIND: &'static Kind = &Kind {
        code: A::CODE,
        topic: A::TOPIC,
        latest_only: A::LATEST_ONLY,
        empty: || Box::new(A::default()),
        duplicate: |state| Box::new(typed::<A>(state).clone()),
        apply: |state, event_type, version, json, upcasters| {
            let event = decode::<A>(event_type, version, json, upcasters)?;
            typed_mut::<A>(state).apply(event);
            Ok(())
        },
    };
}

/// Reads a stored event, rewritten first where it is older than its type's current version.
pub(crate) fn decode<A: Stored>(
    event_type: &str,
    version: i16,
    json: &str,
    upcasters: &Upcasters,
) -> serde_json::Result<A::Event> {
    match A::Event::current_version(event_type) {
        Some(current) if version < current => {
            A::Event::decode(event_type, &upcasters.upcast(event_type, version, current, json)?)
        }
        _ => A::Event::decode(event_type, json),
    }
}

/// The state as what it is.
pub(crate) fn typed<A: Stored>(state: &AnyState) -> &A {
    state.downcast_ref().expect("an aggregate's code belongs to one type")
}

/// The state as what it is.
pub(crate) fn typed_mut<A: Stored>(state: &mut AnyState) -> &mut A {
    state.downcast_mut().expect("an aggregate's code belongs to one type")
}
