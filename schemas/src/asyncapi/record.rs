//! The topics as channels, and their records as messages.

use serde_json::{Map, Value, json};

use super::{USUAL_PARTITIONS, all, at, id};
use crate::Topic;
use crate::catalogue::{EventType, reference};

/// The version of the bindings for Kafka.
const BINDING: &str = "0.5.0";

/// A topic.
pub(super) fn channel(topic: Topic, messages: &Map<String, Value>) -> Value {
    let settings: Map<_, _> = topic
        .settings()
        .iter()
        .map(|setting| {
            let value = match setting.value.parse::<i64>() {
                Ok(number) => json!(number),
                Err(_) => json!([setting.value]),
            };
            (setting.name.to_owned(), value)
        })
        .collect();
    json!({
        "address": topic.name(),
        "title": topic.name(),
        "summary": topic.summary(),
        "description": format!(
            "CloudEvents 1.0 in binary mode. Key: the `{}`. Partitions: {}; {USUAL_PARTITIONS} where nothing else was \
             chosen, which never changes. In a partition `ce_sequence` begins at 1 and none exceeds the highest before it \
             by more than one; an event may come twice, with the same `ce_id` and `ce_sequence`: drop what is not higher \
             than the last. Everything is explained at `/docs/events`.",
            topic.key(),
            Topic::PARTITIONS_REASON,
        ),
        "messages": messages,
        "bindings": { "kafka": {
            "topic": topic.name(),
            "partitions": USUAL_PARTITIONS,
            "topicConfiguration": settings,
            "bindingVersion": BINDING,
        } },
    })
}

/// A type of event as a record. Adds the schema of its data to `schemas`, under the type's name.
pub(super) fn message(kind: &EventType, schemas: &mut Map<String, Value>) -> Value {
    schemas.insert(kind.name.to_owned(), data(kind));
    json!({
        "name": kind.name,
        "title": kind.name,
        "summary": kind.summary,
        "contentType": "application/json",
        "correlationId": {
            "description": "What all that one command caused has in common.",
            "location": "$message.header#/ce_correlationid",
        },
        "headers": headers(kind),
        "payload": { "$ref": reference(kind.name) },
        "bindings": { "kafka": { "key": id(), "bindingVersion": BINDING } },
        "examples": [example(kind)],
    })
}

/// The newest version's schema, as it is published, but where this document has it.
fn data(kind: &EventType) -> Value {
    let mut schema = kind.json_schema();
    if let Value::Object(keywords) = &mut schema {
        keywords.remove("$schema");
        keywords.remove("$id");
    }
    moved(schema, &format!("{}/$defs/", reference(kind.name)))
}

fn moved(value: Value, to: &str) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, member)| match member {
                Value::String(target) if name == "$ref" => (name, target.replace("#/$defs/", to).into()),
                other => (name, moved(other, to)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(|item| moved(item, to)).collect(),
        other => other,
    }
}

/// The schema of a type's headers in Kafka.
pub fn headers(kind: &EventType) -> Value {
    let told = |mut schema: Value, description: &str| {
        schema["description"] = description.into();
        schema
    };
    let text = || json!({ "type": "string" });
    let versions: Vec<_> = kind.versions().map(|version| version.to_string()).collect();
    let schemas = format!("/schemas/{}/({})\\.json$", kind.name.replace('.', "\\."), versions.join("|"));
    let key = format!("The ordering key: the `{}`.", kind.topic.key());
    let mut headers = all(&json!({
        "ce_specversion": { "type": "string", "const": "1.0" },
        "ce_id": told(id(), "The event's, the same however often it is published."),
        "ce_source": { "type": "string", "const": "/parlance" },
        "ce_type": { "type": "string", "const": kind.name },
        "ce_time": told(at(), "When it happened."),
        "ce_subject": told(id(), &key),
        "ce_partitionkey": told(id(), &key),
        "ce_dataschema": told(
            json!({ "type": "string", "format": "uri", "pattern": schemas }),
            "Where the schema is served that the data were written by.",
        ),
        "ce_sequence": told(
            json!({ "type": "string", "pattern": "^[0-9]{20}$" }),
            "The position in the partition: from 1, without a gap.",
        ),
        "ce_correlationid": told(text(), "What all that one command caused has in common."),
        "ce_causationid": told(text(), "The event that caused it, else the correlation id."),
        "traceparent": told(
            json!({ "type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}" }),
            "W3C trace context.",
        ),
        "content-type": { "type": "string", "const": "application/json" },
    }));
    headers["properties"]["ce_sessionid"] = told(id(), "The session that the command came by, where it is known.");
    headers["properties"]["ce_replay"] = told(text(), "Which replay published it again, where one did.");
    headers
}

fn example(kind: &EventType) -> Value {
    let record: Value = serde_json::from_str(kind.example).expect("fixtures are JSON");
    json!({ "name": kind.name, "headers": record["headers"], "payload": record["data"] })
}
