//! Schemas with their references followed and their parts put together.

use serde_json::{Map, Value};

/// What references within a schema lead into.
#[derive(Clone, Copy)]
pub(super) struct Document<'a>(pub(super) &'a Value);

/// How often a reference may lead to a reference, or a part have parts.
const DEEPEST: usize = 32;

/// Where a schema's reference leads, if it has one.
pub(super) fn target(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

/// Keywords that hold schemas by name.
pub(super) fn maps_of_schemas(keyword: &str) -> bool {
    ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"].contains(&keyword)
}

/// Keywords that hold several schemas.
pub(super) fn lists_of_schemas(keyword: &str) -> bool {
    ["allOf", "anyOf", "oneOf", "prefixItems"].contains(&keyword)
}

/// Keywords that hold a schema.
pub(super) fn schemas(keyword: &str) -> bool {
    let known = ["items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames"];
    known.contains(&keyword) || keyword.starts_with("unevaluated")
}

impl Document<'_> {
    /// The schema with the keywords of what it refers to and of all its parts.
    ///
    /// References out of the document stay as they are.
    pub(super) fn resolved(self, schema: &Value) -> Value {
        self.within(schema, DEEPEST)
    }

    fn within(self, schema: &Value, left: usize) -> Value {
        let (Value::Object(keywords), Some(left)) = (schema, left.checked_sub(1)) else { return schema.clone() };
        let mut whole = keywords.clone();
        if let Some(found) = target(schema).and_then(|target| self.0.pointer(target.strip_prefix('#')?)) {
            whole.remove("$ref");
            join(&mut whole, self.within(found, left));
        }
        if let Some(Value::Array(parts)) = whole.remove("allOf") {
            for part in &parts {
                join(&mut whole, self.within(part, left));
            }
        }
        Value::Object(whole)
    }
}

/// Adds the keywords of a part: data have to satisfy both.
fn join(whole: &mut Map<String, Value>, part: Value) {
    let Value::Object(part) = part else {
        // `true` asks for nothing; `false` refuses everything.
        if part == Value::Bool(false) {
            whole.insert("not".to_owned(), Value::Bool(true));
        }
        return;
    };
    for (name, added) in part {
        let Some(there) = whole.get_mut(&name) else {
            whole.insert(name, added);
            continue;
        };
        if *there == added {
            continue;
        }
        match (there, added) {
            (Value::Object(there), Value::Object(added)) if name == "properties" => {
                for (member, schema) in added {
                    match there.get_mut(&member) {
                        Some(both) if *both != schema => *both = both_of(both.take(), schema),
                        Some(_) => {}
                        None => {
                            there.insert(member, schema);
                        }
                    }
                }
            }
            (Value::Array(there), Value::Array(added)) if name == "required" => {
                there.extend(added.into_iter().filter(|one| !there.contains(one)).collect::<Vec<_>>());
            }
            // Words: those nearest to the reader.
            (_, _) if super::is_word(&name) => {}
            // Two of one keyword cannot be told apart from a change of either: kept side by side, and compared so.
            (there, added) => *there = Value::Array(vec![there.take(), added]),
        }
    }
}

fn both_of(one: Value, other: Value) -> Value {
    Value::Object(Map::from_iter([("allOf".to_owned(), Value::Array(vec![one, other]))]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_and_parts_become_one() {
        let document = json!({
            "$defs": {
                "Named": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" } } },
                "Numbered": { "required": ["seq", "name"], "properties": { "seq": {}, "name": { "minLength": 1 } } },
            },
            "description": "mine",
            "allOf": [{ "$ref": "#/$defs/Named", "description": "its" }, { "$ref": "#/$defs/Numbered" }],
        });
        let mut resolved = Document(&document).resolved(&document);
        resolved.as_object_mut().unwrap().remove("$defs");
        assert_eq!(
            resolved,
            json!({
                "description": "mine",
                "type": "object",
                "required": ["name", "seq"],
                "properties": { "seq": {}, "name": { "allOf": [{ "type": "string" }, { "minLength": 1 }] } },
            })
        );
    }

    #[test]
    fn what_leads_out_or_round_and_round_is_left() {
        let document = json!({ "$ref": "#/$defs/A", "$defs": { "A": { "$ref": "#/$defs/A" } } });
        assert!(Document(&document).resolved(&document).is_object());
        let outside = json!({ "$ref": "https://example.org/other.json", "type": "string" });
        assert_eq!(Document(&outside).resolved(&outside), outside);
    }
}
