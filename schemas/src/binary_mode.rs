//! Records as Kafka's: CloudEvents 1.0 in binary mode, attributes as headers and the data as they are.

use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::event::EventError;
pub use crate::identity::{HEAD, Head, Identity, REPLAY, Replayed, identity};
use crate::{Event, Record, Topic, rfc3339_ms};

/// A record as it stands in Kafka, apart from its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryMode {
    /// The ordering key.
    pub key: String,
    /// Every attribute, as a header.
    pub headers: Vec<(&'static str, String)>,
    /// What happened, as JSON.
    pub data: Vec<u8>,
}

/// The header with the event's id.
pub const ID: &str = "ce_id";
/// The header with the position in the shard.
pub const SEQUENCE: &str = "ce_sequence";

const SPECVERSION: &str = "ce_specversion";
const TYPE: &str = "ce_type";
const TIME: &str = "ce_time";
const PARTITIONKEY: &str = "ce_partitionkey";
const CORRELATIONID: &str = "ce_correlationid";
const CAUSATIONID: &str = "ce_causationid";
const TRACEPARENT: &str = "traceparent";
const SESSIONID: &str = "ce_sessionid";

/// Why a record is none of ours, or not one that can be read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A header is missing, or is not what it should be.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// What it carries is not an event.
    #[error("it carries no event")]
    Event(#[from] EventError),
}

impl Record {
    /// The record for Kafka, its schema found under `base`.
    ///
    /// # Errors
    /// None for the events there are; serde's signature has one.
    pub fn to_binary_mode(&self, base: &str) -> serde_json::Result<BinaryMode> {
        let kind = self.event.event_type();
        let key = self.key.to_string();
        let mut headers = vec![
            (SPECVERSION, "1.0".to_owned()),
            (ID, self.event_id.to_string()),
            ("ce_source", "/parlance".to_owned()),
            (TYPE, kind.to_owned()),
            (TIME, rfc3339_ms::Display(self.at).to_string()),
            ("ce_subject", key.clone()),
            (PARTITIONKEY, key.clone()),
            ("ce_dataschema", format!("{base}/schemas/{kind}/{}.json", self.event.version())),
            (SEQUENCE, format!("{:020}", self.position)),
            (CORRELATIONID, self.correlation_id().into_owned()),
            (CAUSATIONID, self.causation_id().into_owned()),
            (TRACEPARENT, self.traceparent().into_owned()),
            ("content-type", "application/json".to_owned()),
        ];
        headers.extend(self.session.map(|session| (SESSIONID, session.to_string())));
        Ok(BinaryMode { key, headers, data: self.event.to_json()? })
    }

    /// The record of a partition of Kafka's, from its headers and its data.
    ///
    /// What [`Record::correlation_id`] and its like answer is what the headers say.
    ///
    /// # Errors
    /// A record that is not one of ours.
    pub fn from_binary_mode<'a>(
        topic: Topic,
        shard: u16,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        data: &[u8],
    ) -> Result<Self, RecordError> {
        let mut found: [(&'static str, Option<&str>); 9] =
            [ID, TYPE, TIME, PARTITIONKEY, SEQUENCE, CORRELATIONID, CAUSATIONID, TRACEPARENT, SESSIONID]
                .map(|name| (name, None));
        for (name, value) in headers {
            if let Some(place) = found.iter_mut().find(|(wanted, _)| *wanted == name) {
                place.1 = str::from_utf8(value).ok();
            }
        }
        let [id, kind, time, key, sequence, correlation, causation, trace, session] = found;
        let at = OffsetDateTime::parse(text(time)?, &Rfc3339).map_err(|_| RecordError::Header(TIME))?;
        let mut record = Self {
            topic,
            shard,
            position: parsed(sequence)?,
            event_id: parsed(id)?,
            key: parsed(key)?,
            at,
            correlation: None,
            causation: None,
            trace: None,
            session: session.1.is_some().then(|| parsed(session)).transpose()?,
            event: Event::from_json(text(kind)?, data)?,
        };
        let (correlation, causation, trace) = (text(correlation)?, text(causation)?, text(trace)?);
        // What follows from the rest is not kept twice.
        if record.correlation_id() != correlation {
            record.correlation = Some(correlation.into());
        }
        if causation != correlation {
            record.causation = Some(causation.parse().map_err(|_| RecordError::Header(CAUSATIONID))?);
        }
        if record.traceparent() != trace {
            record.trace = Some(trace.into());
        }
        Ok(record)
    }
}

fn text<'a>((name, value): (&'static str, Option<&'a str>)) -> Result<&'a str, RecordError> {
    value.ok_or(RecordError::Header(name))
}

fn parsed<T: FromStr>(header: (&'static str, Option<&str>)) -> Result<T, RecordError> {
    text(header)?.parse().map_err(|_| RecordError::Header(header.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::catalogue::tests::samples;
    use crate::{CloudEvent, DEFAULT_BASE};

    fn record(event: Event) -> Record {
        Record {
            topic: event.topic(),
            shard: 3,
            position: 42,
            event_id: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            key: Uuid::from_u128(7),
            at: datetime!(2026-01-02 03:04:05.006 UTC),
            correlation: None,
            causation: None,
            trace: None,
            session: None,
            event,
        }
    }

    fn back(record: &Record) -> Result<Record, RecordError> {
        let binary = record.to_binary_mode(DEFAULT_BASE).unwrap();
        let headers = binary.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Record::from_binary_mode(record.topic, record.shard, headers, &binary.data)
    }

    #[test]
    fn every_record_comes_back() {
        for event in samples() {
            let bare = record(event);
            assert_eq!(back(&bare), Ok(bare.clone()));
            let full = Record {
                correlation: Some("request 7".into()),
                causation: Some(Uuid::from_u128(9)),
                trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
                session: Some(Uuid::from_u128(11)),
                ..bare
            };
            assert_eq!(back(&full), Ok(full.clone()));
        }
    }

    #[test]
    fn says_what_structured_mode_says() {
        for event in samples() {
            let record = record(event);
            let structured = serde_json::to_value(CloudEvent::new(&record, DEFAULT_BASE).unwrap()).unwrap();
            let binary = record.to_binary_mode(DEFAULT_BASE).unwrap();
            for (name, value) in &binary.headers {
                let attribute = match *name {
                    "content-type" => "datacontenttype",
                    name => name.strip_prefix("ce_").unwrap_or(name),
                };
                assert_eq!(structured[attribute], **value, "{name}");
            }
            // And nothing but the data beside them.
            assert_eq!(structured.as_object().unwrap().len(), binary.headers.len() + 1);
            assert_eq!(structured["data"], serde_json::from_slice::<serde_json::Value>(&binary.data).unwrap());
        }
    }

    #[test]
    fn a_record_without_a_header_names_it() {
        let record = record(samples().remove(0));
        let binary = record.to_binary_mode(DEFAULT_BASE).unwrap();
        for missing in [ID, TYPE, TIME, PARTITIONKEY, SEQUENCE, CORRELATIONID, CAUSATIONID, TRACEPARENT] {
            let headers = binary.headers.iter().filter(|(name, _)| *name != missing);
            let headers = headers.map(|(name, value)| (*name, value.as_bytes()));
            let error = Record::from_binary_mode(record.topic, record.shard, headers, &binary.data).unwrap_err();
            assert_eq!(error, RecordError::Header(missing));
        }
        let headers = binary.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let identity = identity(headers).unwrap();
        assert_eq!((identity.event_id, identity.position), (record.event_id, record.position));
    }

    proptest! {
        #[test]
        fn never_panics_on_what_others_wrote(
            headers in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            data in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let names = [ID, SEQUENCE, TIME, HEAD];
            let headers = || headers.iter().map(|(name, value)| (names[*name], value.as_slice()));
            let _ = Record::from_binary_mode(Topic::Users, 0, headers(), &data);
            let _ = identity(headers());
        }
    }
}
