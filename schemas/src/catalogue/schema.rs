//! Schemas made from the types.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::Schemer;

/// The dialect that the documents are written in.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

const COMPONENTS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/$defs/";

/// A document as text: its members sorted, whatever serde's features are, so that it is the same from every build.
pub fn text(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(&sorted(document)).expect("a value is always text");
    text.push('\n');
    text
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.keys().collect();
            names.sort_unstable();
            names.into_iter().map(|name| (name.clone(), sorted(&members[name]))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A reference to a type among the schemas of a document.
pub(crate) fn reference(name: &str) -> String {
    format!("{COMPONENTS}{name}")
}

/// The reference to a type, which is added to `schemas` with all that it refers to.
pub(crate) fn named<T: ToSchema>(schemas: &mut Map<String, Value>) -> Value {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    for (name, schema) in found {
        // Plain data of utoipa's own types, which JSON always takes.
        schemas.entry(name).or_insert_with(|| complete(serde_json::to_value(schema).unwrap_or_default()));
    }
    json!({ "$ref": reference(&T::name()) })
}

/// What is sent has all its members: absent values are null, not missing.
fn complete(mut schema: Value) -> Value {
    if let Some(members) = schema["properties"].as_object() {
        schema["required"] = members.keys().cloned().collect();
    }
    schema
}

/// The schema of a record's data: an object, with its body's members and, of a numbered event, where and when it happened.
///
/// `before` is the version before it: what that one did not have is optional, for records that were written by it stay.
pub(super) fn of_data(body: Schemer, numbered: bool, before: Option<&Value>) -> Value {
    let mut definitions = Map::new();
    let target = body(&mut definitions);
    let name = target["$ref"].as_str().and_then(|target| target.strip_prefix(COMPONENTS)).expect("it is a named type");
    let mut root = definitions.remove(name).expect("it was just added");
    if numbered {
        for (name, member) in place() {
            let described = root["properties"][&name]["description"].take();
            root["properties"][&name] = member;
            if described.is_string() {
                root["properties"][&name]["description"] = described;
            }
        }
        root = complete(root);
    }
    if !definitions.is_empty() {
        root["$defs"] = definitions.into();
    }
    let mut root = plain(root);
    if let Some(before) = before {
        keep_optional(&mut root, before);
        let old = before["$defs"].as_object().into_iter().flatten();
        for (name, definition) in old {
            if let Some(new) = root["$defs"].get_mut(name) {
                keep_optional(new, definition);
            }
        }
    }
    root
}

/// Where and when a numbered event happened.
fn place() -> [(String, Value); 3] {
    let id = json!({ "type": "string", "format": "uuid", "description": "The conversation." });
    let seq = json!({ "type": "integer", "minimum": 1,
                      "description": "Counts the conversation's numbered events from 1, without a gap." });
    let at = json!({ "type": "string", "format": "date-time", "description": "When." });
    [("conversation_id".to_owned(), id), ("seq".to_owned(), seq), ("at".to_owned(), at)]
}

/// Only what the version before already required is required.
fn keep_optional(schema: &mut Value, before: &Value) {
    if let (Some(now), Some(before)) = (schema["required"].as_array_mut(), before["required"].as_array()) {
        now.retain(|name| before.contains(name));
    }
}

/// Moves every reference from the components of an API to the document's own definitions, and leaves out formats that
/// only APIs know.
fn plain(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            if members.get("format").is_some_and(|format| format == "int64" || format == "int32") {
                members.remove("format");
            }
            for (name, member) in members.iter_mut() {
                match member {
                    Value::String(target) if name == "$ref" => *target = target.replace(COMPONENTS, DEFINITIONS),
                    other => *other = plain(other.take()),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = plain(item.take())),
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Serialize, ToSchema)]
    struct Thing {
        /// Known from the beginning.
        by: u64,
        /// A part.
        part: Part,
        /// Came later.
        added: Option<String>,
    }

    #[derive(Serialize, ToSchema)]
    struct Part {
        old: String,
        new: Option<u64>,
    }

    #[test]
    fn a_first_version_has_all_its_members() {
        let schema = of_data(named::<Thing>, true, None);
        assert_eq!(schema["required"], json!(["added", "at", "by", "conversation_id", "part", "seq"]));
        assert_eq!(schema["$defs"]["Part"]["required"], json!(["new", "old"]));
        assert_eq!(schema["properties"]["part"]["$ref"], "#/$defs/Part");
        assert!(!text(&schema).contains("int64"));
    }

    #[test]
    fn a_later_version_requires_only_what_the_one_before_it_did() {
        let before = json!({ "required": ["by", "part"], "$defs": { "Part": { "required": ["old"] } } });
        let schema = of_data(named::<Thing>, false, Some(&before));
        assert_eq!(schema["required"], json!(["by", "part"]));
        assert_eq!(schema["$defs"]["Part"]["required"], json!(["old"]));
        assert!(schema["properties"]["added"].is_object());
    }

    #[test]
    fn text_is_sorted_and_ends_its_last_line() {
        assert_eq!(
            text(&json!({ "b": [{ "d": 1, "c": 2 }], "a": null })),
            "{\n  \"a\": null,\n  \"b\": [\n    {\n      \"c\": 2,\n      \"d\": 1\n    }\n  ]\n}\n"
        );
    }
}
