//! Spans of what is done with a record: published, applied, told, pushed.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use schemas::{Position, Record};
use uuid::Uuid;

use super::span::Tracer;
use super::{Kind, TRACER, TraceContext, is_on};

/// A record whose trace somebody looks at: what its spans are made from, without what it says.
#[derive(Clone, Debug)]
pub struct Traced {
    parent: TraceContext,
    event_id: Uuid,
    event_type: &'static str,
    key: Uuid,
    place: Position,
}

impl Traced {
    /// `None` where nobody looks, which costs nothing.
    pub fn of(record: &Record) -> Option<Self> {
        if !is_on() {
            return None;
        }
        let parent = TraceContext::of_sampled(record.trace.as_deref()?)?;
        let Record { event_id, key, .. } = *record;
        Some(Self { parent, event_id, event_type: record.event.event_type(), key, place: record.place() })
    }

    /// Those of a batch; an empty list holds no memory.
    pub fn all(records: &[Arc<Record>]) -> Vec<Self> {
        if is_on() { records.iter().filter_map(|record| Self::of(record)).collect() } else { Vec::new() }
    }

    /// The record's place in the log.
    pub fn place(&self) -> Position {
        self.place
    }

    /// Something was done with it from then to now: `does` to (or by) `what`.
    pub fn done(&self, kind: Kind, does: &'static str, what: &str, from: SystemTime, more: Vec<KeyValue>) {
        self.passed(kind, does, what, (from, SystemTime::now()), more);
    }

    /// The same between two times.
    pub fn passed(
        &self,
        kind: Kind,
        does: &'static str,
        what: &str,
        times: (SystemTime, SystemTime),
        more: Vec<KeyValue>,
    ) {
        let Some(tracer) = TRACER.get() else { return };
        self.tell(tracer, kind, does, what, times, more);
    }

    fn tell(
        &self,
        tracer: &Tracer,
        kind: Kind,
        does: &'static str,
        what: &str,
        times: (SystemTime, SystemTime),
        more: Vec<KeyValue>,
    ) {
        let mut attributes = more;
        attributes.extend([
            KeyValue::new("messaging.system", "parlance"),
            KeyValue::new("messaging.operation.name", does),
            KeyValue::new("messaging.operation.type", if kind == Kind::Consumer { "process" } else { "send" }),
            KeyValue::new("messaging.destination.name", self.place.topic.name()),
            KeyValue::new("messaging.destination.partition.id", self.place.shard.to_string()),
            KeyValue::new("messaging.message.id", self.event_id.to_string()),
            KeyValue::new("parlance.event_type", self.event_type),
            KeyValue::new("parlance.key", self.key.to_string()),
            KeyValue::new("parlance.position", self.place.to_string()),
        ]);
        let name = if what.is_empty() { does.into() } else { format!("{does} {what}").into() };
        tracer.passed(name, kind, self.parent, times, attributes);
    }
}
