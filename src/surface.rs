//! The parts' descriptions put together are that of the whole surface.

use std::collections::BTreeSet;

use platform::http::surface::SURFACE;
use query_api::merged;
use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(merged([command_api::openapi(), query_api::openapi()])).unwrap()
}

/// Every call of the document: path, method, operation.
fn calls(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().iter().filter(|(_, operation)| operation["responses"].is_object());
        methods.map(|(method, call)| (path.clone(), method.to_uppercase(), call.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let described: BTreeSet<_> = calls(&document()).into_iter().map(|(path, method, _)| (path, method)).collect();
    let served: BTreeSet<_> = SURFACE
        .iter()
        .flat_map(|entry| entry.allow.split(", ").map(|method| (entry.pattern.to_owned(), method.to_owned())))
        // HEAD is taken wherever GET is, which the document says once.
        .filter(|(_, method)| method != "HEAD")
        .collect();
    assert_eq!(described, served);
}

#[test]
fn every_call_says_who_may_and_what_may_go_wrong() {
    let document = document();
    for (path, method, call) in calls(&document) {
        let entry = SURFACE.iter().find(|entry| entry.pattern == path).unwrap();
        assert_eq!(call["security"].is_array(), !entry.is_open(&method), "{method} {path}");
        let responses = call["responses"].as_object().unwrap();
        for (status, response) in responses {
            let health = path.starts_with("/health/");
            if status.as_str() >= "400" && !health {
                let schema = &response["content"]["application/problem+json"]["schema"];
                assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
        let header = |status: &str, name: &str| responses[status]["headers"][name]["schema"].is_object();
        if call["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "Min-Position")) {
            assert!(header("200", "Position") && header("200", "Position-Stale"), "{method} {path}");
        }
        assert!(!responses.contains_key("503") || header("503", "Retry-After"), "{method} {path} 503");
        let answered = responses.keys().find(|status| status.starts_with('2')).map(String::as_str);
        let is_event = method != "GET" && path != "/v1/ws-tickets" && !path.contains("/push-subscriptions/");
        assert!(!is_event || answered.is_some_and(|status| header(status, "Position")), "{method} {path} Position");
        let documented = |status: &str| responses.contains_key(status);
        assert!(entry.is_open(&method) || documented("401"), "{method} {path} 401");
        if call["requestBody"].is_object() {
            for status in ["400", "413", "415", "422"] {
                assert!(documented(status), "{method} {path} {status}");
            }
        }
        if path.contains("{conversation_id}") {
            assert!(documented("403") && documented("404"), "{method} {path} 403, 404");
        }
        assert!(call["summary"].is_string() && call["operationId"].is_string(), "{method} {path}");
    }
}

#[test]
fn operation_ids_are_unique_and_references_lead_somewhere() {
    let document = document();
    let ids: Vec<_> = calls(&document).iter().map(|(.., call)| call["operationId"].clone()).collect();
    let unique: BTreeSet<_> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(unique.len(), ids.len());
    let known: BTreeSet<_> = document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].to_string()).collect();
    for (path, method, call) in calls(&document) {
        let tags = call["tags"].as_array().unwrap();
        assert!(tags.iter().all(|tag| known.contains(&tag.to_string())), "{method} {path}: {tags:?}");
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    for target in references {
        assert!(document.pointer(&target[1..]).is_some(), "{target}");
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" => found.push(target.clone()),
                    other => collect(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}
