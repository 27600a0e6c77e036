//! Samples held against schemas, in tests.

use serde_json::{Value, json};

/// What is wrong with `value` by `schema`, whose references lead into `document`; nothing where all is well.
///
/// Members that no schema knows are wrong too: what is sent is to be described.
pub(crate) fn violations(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let whole = json!({ "components": document["components"], "allOf": [schema] });
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&whole)
        .expect("it is a schema");
    // What it says of a member that is wrong begins with the member itself.
    let mut found: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    if let Value::Object(members) = value {
        let known = properties(document, schema);
        found
            .extend(members.keys().filter(|name| !known.contains(name)).map(|name| format!("{name} is not described")));
    }
    found
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(target) => {
            let found = document.pointer(target.trim_start_matches('#'));
            resolve(document, found.unwrap_or_else(|| panic!("{target} leads nowhere")))
        }
        None => schema,
    }
}

fn properties(document: &Value, schema: &Value) -> Vec<String> {
    let schema = if schema["allOf"].is_array() { schema } else { resolve(document, schema) };
    let own = schema["properties"].as_object().into_iter().flat_map(|members| members.keys().cloned());
    let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| properties(document, part));
    own.chain(parts).collect()
}
