//! The OpenAPI document as a page that fetches nothing and runs nothing.

use std::fmt::Write as _;

use serde_json::Value;

use super::html::{escape, head, list, map, paragraphs, text};

/// The methods in the order in which they are shown.
const METHODS: [&str; 6] = ["get", "post", "put", "patch", "delete", "head"];

/// Renders an OpenAPI document.
pub(super) fn render(openapi: &Value) -> String {
    let mut html = head("Parlance");
    // Writing to a string never fails.
    let _ =
        write!(html, "<h1>{}</h1>\n{}", text(&openapi["info"]["title"]), paragraphs(&openapi["info"]["description"]));
    html.push_str(
        "<p>What is told to other systems: <a href=\"/docs/events\">events</a>. As files: \
         <a href=\"/openapi.json\">OpenAPI</a>, <a href=\"/asyncapi.json\">AsyncAPI</a>.</p>\n",
    );
    for tag in list(&openapi["tags"]) {
        let _ = write!(html, "<h2>{}</h2>\n<p>{}</p>\n", text(&tag["name"]), text(&tag["description"]));
        for (path, item) in map(&openapi["paths"]) {
            for method in METHODS {
                let operation = &item[method];
                if list(&operation["tags"]).contains(&tag["name"]) {
                    render_operation(&mut html, method, path, operation);
                }
            }
        }
    }
    html.push_str("<h2>schemas</h2>\n");
    for (name, schema) in map(&openapi["components"]["schemas"]) {
        let pretty = serde_json::to_string_pretty(schema).unwrap_or_default();
        let name = escape(name);
        let _ = write!(
            html,
            "<details id=\"schema-{name}\"><summary><code>{name}</code></summary>\n<pre>{}</pre></details>\n",
            escape(&pretty)
        );
    }
    html.push_str("</html>\n");
    html
}

fn render_operation(html: &mut String, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        html,
        "<details id=\"{}\"><summary><b>{}</b><code>{}</code> — {}</summary>\n{}",
        text(&operation["operationId"]),
        method.to_uppercase(),
        escape(path),
        text(&operation["summary"]),
        paragraphs(&operation["description"]),
    );
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        html.push_str("<table><tr><th>parameter<th>in<th>type<th>meaning\n");
        for parameter in parameters {
            let required = if parameter["required"] == true { ", required" } else { "" };
            let _ = writeln!(
                html,
                "<tr><td><code>{}</code><td>{}{required}<td>{}<td>{}",
                text(&parameter["name"]),
                text(&parameter["in"]),
                shape(&parameter["schema"]),
                text(&parameter["description"]),
            );
        }
        html.push_str("</table>\n");
    }
    for (kind, body) in map(&operation["requestBody"]["content"]) {
        let _ = writeln!(html, "<p>Body: <code>{}</code> {}</p>", escape(kind), shape(&body["schema"]));
    }
    html.push_str("<table><tr><th>status<th>body<th>meaning\n");
    for (status, response) in map(&operation["responses"]) {
        let bodies: Vec<_> = map(&response["content"]).map(|(_, body)| shape(&body["schema"])).collect();
        let _ =
            writeln!(html, "<tr><td>{}<td>{}<td>{}", escape(status), bodies.join(" "), text(&response["description"]));
    }
    html.push_str("</table></details>\n");
}

/// A schema in a few words: its name with a link, or its type.
fn shape(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\"><code>{name}</code></a>");
    }
    let of = |schema: &Value| match &schema["type"] {
        Value::String(one) => escape(one),
        Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join(" or "),
        _ => String::new(),
    };
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", shape(&schema["items"])),
        _ => match schema["format"].as_str() {
            Some(format) => format!("{} ({})", of(schema), escape(format)),
            None => of(schema),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_shown_and_nothing_is_fetched() {
        let openapi = serde_json::to_value(super::super::merged([crate::openapi()])).unwrap();
        let html = render(&openapi);
        for (_, item) in map(&openapi["paths"]) {
            for (_, operation) in map(item).filter(|(_, operation)| operation.is_object()) {
                let id = format!("<details id=\"{}\">", operation["operationId"].as_str().unwrap());
                assert!(html.contains(&id), "{id}");
            }
        }
        assert_eq!(super::super::html::fetched(&html), None);
    }
}
