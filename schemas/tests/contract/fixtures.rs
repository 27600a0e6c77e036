//! `fixtures/TYPE/VERSION/NAME.json`: records as they were written, for ever read by what is there today.
//!
//! A fixture is a record as Kafka has it (topic, partition, key, headers, data), not a CloudEvent in structured mode: that is
//! what stands on the topics for years, what `Record::from_binary_mode` reads, and what consumers elsewhere are handed.

use std::collections::BTreeSet;

use schemas::catalogue::{EVENT_TYPES, EventType, find};
use schemas::{Record, Topic};
use serde_json::Value;

use crate::files;

struct Fixture {
    name: String,
    kind: &'static EventType,
    version: u16,
    json: Value,
}

fn all() -> Vec<Fixture> {
    files::under("fixtures").into_iter().map(read).collect()
}

fn read(name: String) -> Fixture {
    let parts: Vec<_> = name.split('/').collect();
    let ["fixtures", kind, version, _] = parts[..] else { panic!("{name} is not at fixtures/TYPE/VERSION/NAME.json") };
    let kind = find(kind).unwrap_or_else(|| panic!("{name} is of no type that there is"));
    let version = version.parse().ok().filter(|version| kind.versions().contains(version));
    let version = version.unwrap_or_else(|| panic!("{name} is of no version that there is"));
    let json = serde_json::from_str(&files::read(&name).expect("it is there"));
    Fixture { json: json.unwrap_or_else(|error| panic!("{name}: {error}")), name, kind, version }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} is text"))
}

impl Fixture {
    fn record(&self) -> Record {
        let topic = Topic::ALL.into_iter().find(|topic| topic.name() == text(&self.json, "topic"));
        let topic = topic.unwrap_or_else(|| panic!("{} is of no topic", self.name));
        let shard = self.json["partition"].as_u64().and_then(|shard| shard.try_into().ok()).expect("a partition");
        let headers = self.json["headers"].as_object().expect("headers").iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str().expect("text").as_bytes()));
        let data = self.json["data"].to_string();
        Record::from_binary_mode(topic, shard, headers, data.as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

#[test]
fn every_version_of_every_type_has_one() {
    let found: BTreeSet<_> = all().into_iter().map(|fixture| (fixture.kind.name, fixture.version)).collect();
    let wanted: BTreeSet<_> =
        EVENT_TYPES.iter().flat_map(|kind| kind.versions().map(|version| (kind.name, version))).collect();
    assert_eq!(found, wanted);
    for kind in EVENT_TYPES {
        let own = all().into_iter().filter(|fixture| fixture.kind.name == kind.name);
        let newest = own.filter(|fixture| fixture.version == kind.version());
        let example: Value = serde_json::from_str(kind.example).unwrap();
        assert!(newest.map(|fixture| fixture.json).any(|json| json == example), "the example of {}", kind.name);
    }
}

#[test]
fn each_says_what_it_is() {
    for fixture in all() {
        let (name, headers) = (&fixture.name, &fixture.json["headers"]);
        assert_eq!(text(headers, "ce_type"), fixture.kind.name, "{name}");
        assert!(text(headers, "ce_dataschema").ends_with(&fixture.kind.path(fixture.version)), "{name}");
        assert_eq!(fixture.json["topic"], fixture.kind.topic.name(), "{name}");
        assert_eq!(fixture.json["key"], headers["ce_partitionkey"], "{name}");
        assert_eq!(fixture.json["data"][fixture.kind.topic.key()], fixture.json["key"], "{name}");
    }
}

#[test]
fn each_follows_every_version_of_its_schema() {
    for kind in EVENT_TYPES {
        for version in kind.versions() {
            let validator = jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .should_validate_formats(true)
                .build(&kind.schema(version))
                .unwrap();
            // Older ones follow newer versions, which gained only what is optional; newer ones older versions, which take
            // what they do not know.
            for fixture in all().into_iter().filter(|fixture| fixture.kind.name == kind.name) {
                let errors: Vec<_> =
                    validator.iter_errors(&fixture.json["data"]).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{} by version {version}: {errors:#?}", fixture.name);
            }
        }
    }
}

#[test]
fn each_is_read_today_and_written_again_without_loss() {
    for fixture in all() {
        let record = fixture.record();
        assert_eq!(record.event.event_type(), fixture.kind.name, "{}", fixture.name);
        let written = record.to_binary_mode("https://chat.example.org").unwrap();
        assert_eq!(fixture.json["key"], written.key, "{}", fixture.name);
        let headers = fixture.json["headers"].as_object().unwrap();
        for (name, value) in &written.headers {
            let expected = match *name {
                // By the newest version, whichever it was read by.
                "ce_dataschema" => format!("https://chat.example.org{}", fixture.kind.path(fixture.kind.version())),
                name => text(&fixture.json["headers"], name).to_owned(),
            };
            assert_eq!(*value, expected, "{} {name}", fixture.name);
        }
        // Who publishes a record again says so itself.
        let kept = written.headers.iter().map(|(name, _)| *name).chain(["ce_replay"]).collect::<BTreeSet<_>>();
        assert!(headers.keys().all(|name| kept.contains(name.as_str())), "{}", fixture.name);
        let data: Value = serde_json::from_slice(&written.data).unwrap();
        let (before, after) = (fixture.json["data"].as_object().unwrap(), data.as_object().unwrap());
        for (name, value) in before {
            assert_eq!(after.get(name), Some(value), "{} {name}", fixture.name);
        }
        for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            assert!(value.is_null(), "{}: {name} came from nowhere", fixture.name);
        }
    }
}

#[test]
fn its_headers_are_as_described_then_and_now() {
    for fixture in all() {
        let schema = schemas::asyncapi::headers(fixture.kind);
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let written = fixture.record().to_binary_mode("https://chat.example.org").unwrap();
        let written = written.headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        for headers in [&fixture.json["headers"], &Value::Object(written)] {
            let errors: Vec<_> = validator.iter_errors(headers).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", fixture.name);
            let described = |name: &String| schema["properties"][name].is_object();
            assert!(headers.as_object().unwrap().keys().all(described), "{}", fixture.name);
        }
    }
}

#[test]
fn whatever_a_member_may_be_stands_in_one() {
    for kind in EVENT_TYPES {
        let schema = kind.schema(kind.version());
        let data: Vec<_> = all()
            .into_iter()
            .filter(|fixture| fixture.kind.name == kind.name)
            .map(|mut fixture| fixture.json["data"].take())
            .collect();
        let has = |found: &dyn Fn(&Value) -> bool| data.iter().any(found);
        for (name, member) in schema["properties"].as_object().unwrap() {
            let nullable = member["type"].as_array().is_some_and(|types| types.contains(&"null".into()));
            assert!(!nullable || has(&|data| data[name].is_null()), "{}: no {name} is null", kind.name);
            let definition = member["$ref"].as_str().and_then(|target| schema.pointer(&target[1..]));
            for value in definition.unwrap_or(member)["enum"].as_array().into_iter().flatten() {
                assert!(has(&|data| data[name] == *value), "{}: no {name} is {value}", kind.name);
            }
        }
    }
}
