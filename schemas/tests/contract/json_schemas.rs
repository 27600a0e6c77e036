//! `json/TYPE/VERSION.json`: every version of every type, each compatible with the one before it.

use std::collections::BTreeSet;

use schemas::DEFAULT_BASE;
use schemas::catalogue::{DIALECT, EVENT_TYPES, EventType, text};
use schemas::compatibility::{breaking, differences};
use serde_json::Value;

use crate::files;

/// The file of a version.
pub(crate) fn file(kind: &EventType, version: u16) -> String {
    format!("json/{}/{version}.json", kind.name)
}

/// What would change for consumers if `new` stood where `published` stands.
fn changes_in_place(published: &Value, new: &Value) -> Vec<String> {
    differences(published, new).iter().map(ToString::to_string).collect()
}

#[test]
fn the_newest_version_is_what_the_types_say() {
    for kind in EVENT_TYPES {
        let name = file(kind, kind.version());
        if let Some(published) = files::read(&name) {
            let published = serde_json::from_str(&published).expect("it is JSON");
            // Words may be mended in place; anything else is a new version, see CONTRIBUTING.
            let changes = changes_in_place(&published, &kind.json_schema());
            assert!(changes.is_empty(), "{name} is published, and the types say otherwise: {changes:#?}");
        }
        files::expect(&name, &kind.document(kind.version()));
    }
}

#[test]
fn there_is_a_file_for_each_version_and_no_other() {
    // The newest ones are being written by the test above.
    let wanted: BTreeSet<_> =
        EVENT_TYPES.iter().flat_map(|kind| kind.versions().map(|version| file(kind, version))).collect();
    let found: BTreeSet<_> = files::under("json").into_iter().collect();
    if !files::writing() {
        assert_eq!(found, wanted);
    }
    for kind in EVENT_TYPES {
        for version in kind.versions().filter(|version| *version < kind.version()) {
            assert_eq!(files::read(&file(kind, version)).as_deref(), Some(&*kind.document(version)));
        }
    }
}

#[test]
fn no_version_breaks_the_consumers_of_one_before_it() {
    for kind in EVENT_TYPES {
        for new in kind.versions() {
            for old in 1..new {
                let broken = breaking(&kind.schema(old), &kind.schema(new));
                assert!(broken.is_empty(), "{} {new} breaks consumers of {old}: {broken:#?}", kind.name);
            }
        }
    }
}

#[test]
fn the_gate_stops_a_break_and_lets_an_optional_member_into_a_new_version() {
    for kind in EVENT_TYPES {
        let published = kind.json_schema();
        let mut gained = published.clone();
        gained["properties"]["added"] = serde_json::json!({ "type": ["string", "null"] });
        assert_eq!(breaking(&published, &gained), [], "{}", kind.name);
        // But not into the version that is published.
        assert_eq!(changes_in_place(&published, &gained), ["/added is new, and optional"]);
        let mut broken = published.clone();
        broken["properties"]["at"]["type"] = "integer".into();
        assert_ne!(breaking(&published, &broken), [], "{}", kind.name);
        let mut reworded = published.clone();
        reworded["description"] = "In other words.".into();
        assert_eq!(changes_in_place(&published, &reworded), [""; 0]);
    }
}

#[test]
fn each_is_a_whole_document_of_the_dialect_that_leaves_room() {
    for kind in EVENT_TYPES {
        for version in kind.versions() {
            let schema = kind.schema(version);
            let name = file(kind, version);
            assert!(jsonschema::draft202012::meta::is_valid(&schema), "{name}");
            assert_eq!(schema["$schema"], DIALECT, "{name}");
            assert_eq!(schema["$id"], format!("{DEFAULT_BASE}{}", kind.path(version)), "{name}");
            assert_eq!(schema["title"], kind.name, "{name}");
            assert_eq!(text(&schema), kind.document(version), "{name} is not sorted");
            check(&schema, &schema, &name);
        }
    }
}

/// Every object says which members it has to have and takes others, every member says what it is, and every reference
/// stays within the document.
fn check(document: &Value, schema: &Value, at: &str) {
    if let Some(target) = schema["$ref"].as_str() {
        assert!(target.strip_prefix('#').and_then(|target| document.pointer(target)).is_some(), "{at}: {target}");
    }
    for closing in ["additionalProperties", "unevaluatedProperties", "propertyNames", "maxProperties"] {
        assert!(schema.get(closing).is_none(), "{at}: {closing}");
    }
    if schema["type"] == "object" {
        assert!(schema["description"].is_string() && schema["required"].is_array(), "{at}");
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        assert!(member["description"].is_string(), "{at}/{name} is not described");
        check(document, member, &format!("{at}/{name}"));
    }
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        check(document, definition, &format!("{at}/$defs/{name}"));
    }
    if schema["items"].is_object() {
        check(document, &schema["items"], &format!("{at}/*"));
    }
}
