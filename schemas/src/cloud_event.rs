//! Records as CloudEvents 1.0.

use serde::Serialize;
use serde_json::Value;

use crate::{Record, rfc3339_ms};

/// The start of schema addresses where no public URL is configured.
pub const DEFAULT_BASE: &str = "https://parlance.invalid";

/// A record in CloudEvents' structured mode: one JSON object.
///
/// Attributes follow the specification's version 1.0, with its extensions for partitioning, sequence and distributed
/// tracing; in Kafka's binary mode each stands in a header `ce_…`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CloudEvent {
    /// `1.0`
    pub specversion: &'static str,
    /// The event's id, the same however often it is published.
    pub id: String,
    /// `/parlance`
    pub source: &'static str,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// When it happened.
    pub time: String,
    /// The ordering key.
    pub subject: String,
    /// The ordering key.
    pub partitionkey: String,
    /// Where the schema of `data` is found.
    pub dataschema: String,
    /// The position in the shard, 20 digits.
    pub sequence: String,
    /// What all that one command caused has in common.
    pub correlationid: String,
    /// The event that caused it, else the correlation id.
    pub causationid: String,
    /// W3C trace context.
    pub traceparent: String,
    /// The session that the command came by, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessionid: Option<String>,
    /// `application/json`
    pub datacontenttype: &'static str,
    /// What happened.
    pub data: Value,
}

impl CloudEvent {
    /// The record as a CloudEvent, its schema found under `base`.
    ///
    /// # Errors
    /// None for the events there are; serde's signature has one.
    pub fn new(record: &Record, base: &str) -> serde_json::Result<Self> {
        let kind = record.event.event_type();
        Ok(Self {
            specversion: "1.0",
            id: record.event_id.to_string(),
            source: "/parlance",
            kind,
            time: rfc3339_ms::Display(record.at).to_string(),
            subject: record.key.to_string(),
            partitionkey: record.key.to_string(),
            dataschema: format!("{base}/schemas/{kind}/{}.json", record.event.version()),
            sequence: format!("{:020}", record.position),
            correlationid: record.correlation_id().into_owned(),
            causationid: record.causation_id().into_owned(),
            traceparent: record.traceparent().into_owned(),
            sessionid: record.session.map(|session| session.to_string()),
            datacontenttype: "application/json",
            data: record.event.data()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::{Event, Topic, UserChanged};

    #[test]
    fn carries_every_attribute() {
        let (user_id, at) = (Uuid::from_u128(1), datetime!(2026-01-02 03:04:05.006 UTC));
        let record = Record {
            topic: Topic::Users,
            shard: 3,
            position: 42,
            event_id: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            key: user_id,
            at,
            correlation: Some("request-1".into()),
            causation: None,
            trace: None,
            session: None,
            event: Event::UserPasswordChanged(UserChanged { user_id, at }),
        };
        let event = serde_json::to_value(CloudEvent::new(&record, DEFAULT_BASE).unwrap()).unwrap();
        assert_eq!(
            event,
            json!({
                "specversion": "1.0",
                "id": "01234567-89ab-cdef-0123-456789abcdef",
                "source": "/parlance",
                "type": "user.password_changed",
                "time": "2026-01-02T03:04:05.006Z",
                "subject": "00000000-0000-0000-0000-000000000001",
                "partitionkey": "00000000-0000-0000-0000-000000000001",
                "dataschema": "https://parlance.invalid/schemas/user.password_changed/1.json",
                "sequence": "00000000000000000042",
                "correlationid": "request-1",
                "causationid": "request-1",
                "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00",
                "datacontenttype": "application/json",
                "data": {"user_id": "00000000-0000-0000-0000-000000000001", "at": "2026-01-02T03:04:05.006Z"},
            })
        );
    }
}
