//! A schema's members as a table, and in a few words what each may be.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::html::{escape, list, map, text};

/// Bounds that a value has to keep, and how they are said.
const BOUNDS: [(&str, &str); 7] = [
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "characters at least"),
    ("maxLength", "characters at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
    ("pattern", "like"),
];

/// The members of an object, then those of each object that they refer to; `prefix` keeps the places of two schemas apart.
pub(super) fn table(html: &mut String, prefix: &str, schema: &Value, what: &str) {
    rows(html, prefix, schema, schema, "", what);
    for (name, definition) in map(&schema["$defs"]).filter(|(_, definition)| definition["type"] == "object") {
        let described = text(&definition["description"]);
        let (id, name) = (place(prefix, name), escape(name));
        let caption = format!("<caption id=\"{id}\"><b>{name}</b>: {described}</caption>");
        rows(html, prefix, schema, definition, &caption, "member");
    }
}

fn rows(html: &mut String, prefix: &str, document: &Value, object: &Value, caption: &str, what: &str) {
    // Writing to a string never fails.
    let _ = writeln!(html, "<div class=\"scroll\"><table>{caption}\n<tr><th>{what}<th>type<th>meaning");
    // In the order of the alphabet the important ones would be anywhere: what has to be there comes first.
    let required = list(&object["required"]);
    let is_required = |name: &str| required.iter().any(|one| one == name);
    let mut members: Vec<_> = map(&object["properties"]).collect();
    members.sort_by_key(|(name, _)| !is_required(name));
    for (name, member) in members {
        let optional = if is_required(name) { "" } else { ", optional" };
        let (name, shape) = (escape(name), shape(prefix, document, member));
        let _ = writeln!(html, "<tr><td><code>{name}</code><td>{shape}{optional}<td>{}", text(&member["description"]));
    }
    html.push_str("</table></div>\n");
}

fn place(prefix: &str, name: &str) -> String {
    escape(&format!("{prefix}-{name}"))
}

/// What a value may be.
fn shape(prefix: &str, document: &Value, schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let definition = target.strip_prefix('#').and_then(|target| document.pointer(target)).unwrap_or(&Value::Null);
        let name = target.rsplit('/').next().unwrap_or_default();
        return if definition["type"] == "object" {
            format!("<a href=\"#{}\">{}</a>", place(prefix, name), escape(name))
        } else {
            shape(prefix, document, definition)
        };
    }
    for choice in ["oneOf", "anyOf"] {
        if schema[choice].is_array() {
            return list(&schema[choice])
                .iter()
                .map(|one| shape(prefix, document, one))
                .collect::<Vec<_>>()
                .join(" or ");
        }
    }
    if let Some(only) = schema.get("const") {
        return format!("always {}", code(only));
    }
    if schema["enum"].is_array() {
        return list(&schema["enum"]).iter().map(code).collect::<Vec<_>>().join(", ");
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let mut said: Vec<_> = types
        .into_iter()
        .map(|one| match (one, schema["format"].as_str()) {
            ("array", _) => format!("list of {}", shape(prefix, document, &schema["items"])),
            ("string", Some("uuid")) => "UUID".to_owned(),
            ("string", Some("date-time")) => "time (RFC 3339)".to_owned(),
            ("string", Some(format)) => escape(format).to_uppercase(),
            ("string", None) => "text".to_owned(),
            (other, _) => escape(other),
        })
        .collect();
    // Null is the exception: it comes last.
    said.sort_by_key(|one| one == "null");
    let mut said = said.join(" or ");
    for (bound, words) in BOUNDS {
        if let Some(value) = schema.get(bound) {
            let _ = write!(said, ", {words} {}", code(value));
        }
    }
    said
}

fn code(value: &Value) -> String {
    let bare = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!("<code>{}</code>", escape(&bare))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shapes_are_said_in_a_few_words() {
        let document = json!({ "$defs": {
            "Role": { "type": "string", "enum": ["member", "owner"] },
            "Member": { "type": "object" },
        } });
        let said = |schema: Value| shape("x", &document, &schema);
        assert_eq!(said(json!({ "type": ["null", "string"], "format": "uuid" })), "UUID or null");
        assert_eq!(said(json!({ "type": "integer", "minimum": 1 })), "integer, at least <code>1</code>");
        assert_eq!(said(json!({ "$ref": "#/$defs/Role" })), "<code>member</code>, <code>owner</code>");
        let members = json!({ "type": "array", "items": { "$ref": "#/$defs/Member" } });
        assert_eq!(said(members), "list of <a href=\"#x-Member\">Member</a>");
        let maybe = json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/$defs/Role" }] });
        assert_eq!(said(maybe), "null or <code>member</code>, <code>owner</code>");
        assert_eq!(said(json!({ "type": "string", "const": "1.0" })), "always <code>1.0</code>");
        assert_eq!(said(json!({ "type": "string", "format": "date-time" })), "time (RFC 3339)");
    }

    #[test]
    fn what_may_be_missing_says_so_and_comes_last() {
        let schema =
            json!({ "required": ["b"], "properties": { "a": { "type": "string" }, "b": { "type": "string" } } });
        let mut html = String::new();
        table(&mut html, "x", &schema, "member");
        assert!(
            html.find("<td><code>b</code><td>text<td>").unwrap()
                < html.find("<td><code>a</code><td>text, optional").unwrap()
        );
    }
}
