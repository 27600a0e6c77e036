//! The descriptions say what is served.

use std::collections::BTreeSet;

use http::Method;
use platform::http::surface::SURFACE;
use serde_json::Value;

use super::World;

#[tokio::test]
async fn the_document_names_every_path_that_this_crate_serves() {
    let world = World::new().await;
    let document = world.send(Method::GET, "/openapi.json", &[]).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let served: BTreeSet<_> =
        SURFACE.iter().filter(|entry| entry.takes("GET")).map(|entry| entry.pattern.to_owned()).collect();
    assert_eq!(described, served);
    for entry in SURFACE.iter().filter(|entry| entry.takes("GET")) {
        let operation = &document["paths"][entry.pattern]["get"];
        assert_eq!(operation["security"].is_array(), !entry.is_open("GET"), "{}", entry.pattern);
        assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{}", entry.pattern);
        let placeholders: BTreeSet<_> =
            entry.pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path: BTreeSet<_> =
            parameters.iter().filter(|one| one["in"] == "path").filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(in_path, placeholders, "{}", entry.pattern);
        let names: Vec<_> = parameters.iter().map(|one| (&one["in"], &one["name"])).collect();
        let unique: BTreeSet<_> = names.iter().map(|(place, name)| format!("{place}{name}")).collect();
        assert_eq!(unique.len(), names.len(), "{}: {names:?}", entry.pattern);
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with('4') {
                let schema = &response["content"]["application/problem+json"]["schema"];
                assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{} {status}", entry.pattern);
            }
        }
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    for target in references {
        assert!(document.pointer(&target[1..]).is_some(), "{target}");
    }
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
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

#[tokio::test]
async fn descriptions_keys_health_and_figures_are_open() {
    let world = World::new().await;
    let get = async |path: &str| world.send(Method::GET, path, &[]).await;
    assert_eq!(get("/asyncapi.json").await.json()["asyncapi"], "3.0.0");
    for page in ["/docs", "/docs/events"] {
        assert!(get(page).await.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{page}");
    }
    let keys = get("/.well-known/jwks.json").await.json();
    assert_eq!(keys["keys"][0]["kty"], "OKP", "{keys}");
    for kind in schemas::catalogue::EVENT_TYPES {
        for version in kind.versions() {
            let served = get(&kind.path(version)).await;
            // To the byte, as it stands in the repository.
            let path = format!("{}/../schemas/json/{}/{version}.json", env!("CARGO_MANIFEST_DIR"), kind.name);
            assert_eq!(String::from_utf8(served.body).unwrap(), std::fs::read_to_string(path).unwrap());
        }
    }
    for unknown in ["/schemas/message.sent/99.json", "/schemas/message.sent/1", "/schemas/nothing/1.json"] {
        get(unknown).await.is_problem(404, None);
    }
    assert_eq!(get("/health/live").await.json()["status"], "ok");
    let ready = get("/health/ready").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["dependencies"]["postgres"]["status"]), (200, &"ok".into()));
    assert_eq!(get("/metrics").await.body, b"parlance_up 1\n");
    world.pool().close().await;
    let down = get("/health/ready").await;
    assert_eq!((down.status.as_u16(), &down.json()["status"]), (503, &"down".into()));
}
