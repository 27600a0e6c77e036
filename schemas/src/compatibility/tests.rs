//! Each change by itself; and whatever can be taken out of a schema of ours breaks.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalogue::EVENT_TYPES;

fn old() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://parlance.invalid/schemas/thing.made/1.json",
        "title": "thing.made",
        "type": "object",
        "required": ["id", "kind", "part"],
        "properties": {
            "id": { "type": "string", "format": "uuid", "description": "Which." },
            "name": { "type": ["string", "null"], "maxLength": 10 },
            "kind": { "$ref": "#/$defs/Kind" },
            "part": { "oneOf": [{ "type": "null" }, { "$ref": "#/$defs/Part" }] },
            "parts": { "type": "array", "items": { "$ref": "#/$defs/Part" } },
        },
        "$defs": {
            "Kind": { "type": "string", "enum": ["a", "b"] },
            "Part": { "type": "object", "required": ["seq"], "properties": {
                "seq": { "type": "integer", "minimum": 1 },
                "parts": { "type": "array", "items": { "$ref": "#/$defs/Part" } },
            } },
        },
    })
}

/// What is told of the old schema with one value of it set to another.
fn set(pointer: &str, value: Value) -> Vec<String> {
    let mut new = old();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    new.pointer_mut(parent).unwrap()[name] = value;
    told(&old(), &new)
}

fn told(old: &Value, new: &Value) -> Vec<String> {
    differences(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn an_added_optional_member_passes() {
    let mut new = old();
    new["properties"]["added"] = json!({ "type": ["string", "null"], "description": "Came later." });
    new["$defs"]["Part"]["properties"]["added"] = json!({ "type": "integer" });
    new["$id"] = "https://parlance.invalid/schemas/thing.made/2.json".into();
    assert_eq!(breaking(&old(), &new), []);
    assert_eq!(
        told(&old(), &new),
        ["/added is new, and optional", "/part/added is new, and optional", "/parts/*/added is new, and optional"]
    );
}

#[test]
fn words_may_change() {
    assert!(set("/title", "Another".into()).is_empty());
    assert!(set("/properties/id/description", "Which one.".into()).is_empty());
    assert!(set("/properties/id/examples", json!(["x"])).is_empty());
    assert!(set("/properties/name/type", json!(["null", "string"])).is_empty());
    assert!(set("/required", json!(["part", "kind", "id"])).is_empty());
}

#[test]
fn each_breaking_change_is_named() {
    let without = |name: &str| {
        let mut properties = old()["properties"].clone();
        properties.as_object_mut().unwrap().remove(name);
        properties
    };
    let cases = [
        ("/properties", without("name"), "/name is removed"),
        ("/properties", without("parts"), "/parts is removed"),
        ("/properties/name/type", "string".into(), "/name has another type"),
        ("/properties/id/type", json!(["string", "null"]), "/id has another type"),
        ("/properties/id/format", "uri".into(), "/id has another format"),
        ("/properties/id/pattern", "^0".into(), "/id has another `pattern`"),
        ("/properties/name/maxLength", 9.into(), "/name has another `maxLength`"),
        ("/properties/name/maxLength", 11.into(), "/name has another `maxLength`"),
        ("/properties/name/const", "x".into(), "/name has another `const`"),
        ("/properties/name/enum", json!(["x"]), "/name has another `enum`"),
        ("/required", json!(["id", "kind", "part", "name"]), "/name became required"),
        ("/required", json!(["id", "kind"]), "/part became optional"),
        ("/required", json!(["id", "kind", "part", "more"]), "/more is new, and required"),
        ("/$defs/Kind/enum", json!(["a", "b", "c"]), "/kind has new values"),
        ("/$defs/Kind/enum", json!(["a"]), "/kind lacks values that it had"),
        ("/$defs/Part/properties/seq/minimum", 0.into(), "/part/seq has another `minimum`"),
        ("/properties/part/oneOf", json!([{ "$ref": "#/$defs/Part" }]), "/part has other choices"),
        ("/properties/parts/items", true.into(), "/parts has another `items`"),
        ("/properties/parts/uniqueItems", true.into(), "/parts has another `uniqueItems`"),
        ("/additionalProperties", false.into(), "/ has another `additionalProperties`"),
        ("/$id", "https://parlance.invalid/schemas/other/1.json".into(), "/ has another `$id`"),
        ("/$schema", "http://json-schema.org/draft-07/schema#".into(), "/ has another `$schema`"),
        ("/x-unknown", 1.into(), "/ has another `x-unknown`"),
    ];
    for (pointer, value, named) in cases {
        let told = set(pointer, value);
        assert!(told.iter().any(|one| one == named), "{named}: {told:?}");
    }
}

#[test]
fn a_closed_object_cannot_gain() {
    for (keyword, value) in [("additionalProperties", false.into()), ("maxProperties", 5.into())] {
        let mut closed = old();
        closed[keyword] = value;
        let mut new = closed.clone();
        new["properties"]["added"] = json!({});
        assert_eq!(told(&closed, &new), ["/added is new where no other members are taken"]);
    }
}

#[test]
fn how_it_is_put_together_does_not_matter() {
    let mut new = old();
    let kind = new["$defs"]["Kind"].take();
    new["properties"]["kind"] = kind;
    let properties = new["properties"].take();
    new["properties"] = json!({});
    new["allOf"] = json!([{ "properties": properties }]);
    assert_eq!(told(&old(), &new), [""; 0]);
    assert_ne!(demands(&old()), demands(&new));
}

#[test]
fn demands_are_what_is_left_without_words() {
    let mut reworded = old();
    reworded["description"] = "New.".into();
    reworded["properties"]["id"]["description"] = "Which one.".into();
    reworded["required"] = json!(["part", "id", "kind"]);
    assert_eq!(demands(&reworded), demands(&old()));
    // A member may be called like a word.
    let named = |description| json!({ "properties": { "description": description } });
    assert_ne!(demands(&named(json!({ "type": "string" }))), demands(&named(json!({ "type": "null" }))));
}

/// Every place in a document but those within words.
fn places(value: &Value, at: &str, names: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| names || !is_word(name)) {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                places(member, &at, !names && maps_of_schemas(name), found);
                found.push(at);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let at = format!("{at}/{index}");
                places(item, &at, false, found);
                found.push(at);
            }
        }
        _ => {}
    }
}

#[test]
fn whatever_is_taken_out_of_a_published_schema_breaks() {
    let mut tried = 0;
    for kind in EVENT_TYPES {
        let old = kind.schema(kind.version());
        assert_eq!(differences(&old, &old), []);
        let mut all = Vec::new();
        places(&old, "", false, &mut all);
        for place in all {
            let mut new = old.clone();
            let (parent, name) = place.rsplit_once('/').unwrap();
            match new.pointer_mut(parent).unwrap() {
                Value::Object(members) => drop(members.remove(name)),
                Value::Array(items) => drop(items.remove(name.parse().unwrap())),
                _ => unreachable!("{place} is in something"),
            }
            assert_ne!(breaking(&old, &new), [], "{} without {place}", kind.name);
            assert_ne!(demands(&old), demands(&new), "{} without {place}", kind.name);
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}

/// Some schema of an object, to a depth.
fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "string", "description": "words" })),
        Just(json!({ "type": ["integer", "null"], "minimum": 0 })),
        Just(json!({ "enum": ["a", "b"] })),
        Just(json!(true)),
    ];
    let schema = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|members| {
                let required: Vec<_> = members.keys().step_by(2).cloned().collect();
                json!({ "type": "object", "properties": members, "required": required })
            }),
        ]
    });
    prop::collection::btree_map("[a-d]", schema, 1..4)
        .prop_map(|members| json!({ "type": "object", "properties": members }))
}

proptest! {
    #[test]
    fn the_same_is_no_different_and_a_gain_is_a_gain(schema in object()) {
        prop_assert_eq!(differences(&schema, &schema), vec![]);
        let mut new = schema.clone();
        new["properties"]["later"] = json!({ "type": "string" });
        let gained = Difference { at: "/later".to_owned(), change: Change::Gained };
        prop_assert_eq!(differences(&schema, &new), vec![gained]);
        let removed = Difference { at: "/later".to_owned(), change: Change::Removed };
        prop_assert_eq!(differences(&new, &schema), vec![removed]);
    }

    #[test]
    fn two_schemas_without_a_difference_demand_the_same(one in object(), other in object()) {
        prop_assert_eq!(differences(&one, &other).is_empty(), demands(&one) == demands(&other));
    }
}
