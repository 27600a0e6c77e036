//! As much of JSON Schema as the schemas here use, to hold samples against them in tests.

use serde_json::Value;

/// What is wrong with `value` by `schema`, whose references lead into `document`; nothing where all is well.
///
/// Members that no schema knows are wrong too: what is sent is to be described.
pub(crate) fn violations(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "", &mut found);
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

fn check(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(document, part, value, at, found);
    }
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().filter(|choice| {
            let mut wrong = Vec::new();
            check(document, choice, value, at, &mut wrong);
            wrong.is_empty()
        });
        if fits.count() != 1 {
            found.push(format!("{at} is not exactly one of the choices"));
        }
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&kind) {
        found.push(format!("{at} is a {kind}, not one of {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{at} is not one of {allowed:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{at} is not {}", schema["const"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{at}/{name} is missing"));
        }
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            check(document, member, value, &format!("{at}/{name}"), found);
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            check(document, &schema["items"], item, &format!("{at}/{index}"), found);
        }
    }
}
