//! Who may depend on whom: the edges between our own crates, and the libraries that pure crates stay away from.
//!
//! Tests may look everywhere: only what a crate is shipped with counts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace::cargo;

/// A crate, the crates of ours that it may be built on, and why no others. A crate that is not listed breaks the
/// rules: its place has to be thought of.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    ("domain", &[], "decisions are pure"),
    ("schemas", &[], "the public contract knows no private type"),
    ("migrations", &[], "SQL stands by itself"),
    ("event-store", &["domain"], "the log knows neither HTTP nor bus"),
    ("postgres-es-compat", &[], "it is a test of the event store"),
    ("platform", &["migrations", "schemas"], "business rules stand above it"),
    ("notary", &["domain", "event-store", "platform", "schemas"], "it vouches for the log, and writes no event"),
    ("relay", &["domain", "event-store", "platform", "schemas"], "it translates and decides nothing"),
    ("projectors", &["platform", "schemas"], "a projection reads the bus, and writes no event"),
    ("query-api", &["platform", "schemas"], "queries and gateway never read the event store"),
    ("command-api", &["domain", "event-store", "platform", "schemas"], "commands read no read model"),
    ("parlance-client", &["schemas"], "a client knows the public contract alone"),
    ("testkit", &["migrations", "parlance-client", "platform", "schemas"], "it sees the server from outside"),
    ("bench", &["parlance-client", "platform", "schemas", "testkit"], "it sees the server from outside"),
    ("xtask", &[], "it has to build before everything else"),
    (
        "parlance",
        &[
            "command-api",
            "domain",
            "event-store",
            "migrations",
            "notary",
            "parlance-client",
            "platform",
            "projectors",
            "query-api",
            "relay",
            "schemas",
        ],
        "what tests and measures is not shipped",
    ),
];

/// Libraries that a crate does without, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "domain",
        &["async-trait", "axum", "hyper", "rand", "reqwest", "sqlx", "tokio", "tokio-util", "tracing"],
        "decisions do no I/O and know neither clock nor chance",
    ),
    ("schemas", &["axum", "sqlx", "tokio"], "the contract is data"),
    ("event-store", &["axum", "hyper", "reqwest", "tower"], "the log knows no HTTP"),
    ("notary", &["axum"], "the notary knows no HTTP"),
    ("relay", &["axum"], "the relay knows no HTTP"),
    ("projectors", &["axum"], "projections serve nothing"),
];

/// What is built on what it must not be built on.
pub(super) fn breaches() -> Result<Vec<String>> {
    let shipped = dependencies()?;
    let mut breaches = Vec::new();
    for (name, dependencies) in &shipped {
        let Some((_, allowed, reason)) = ALLOWED.iter().find(|(known, ..)| known == name) else {
            breaches.push(format!("{name}: a new crate; say in xtask/src/check/edges.rs what it may be built on"));
            continue;
        };
        breaches.extend(
            dependencies
                .iter()
                .filter(|other| shipped.contains_key(*other) && !allowed.contains(&other.as_str()))
                .map(|other| format!("{name} is built on {other}: {reason}")),
        );
        for (_, forbidden, reason) in FORBIDDEN.iter().filter(|(known, ..)| known == name) {
            breaches.extend(
                dependencies
                    .iter()
                    .filter(|other| forbidden.contains(&other.as_str()))
                    .map(|other| format!("{name} is built on {other}: {reason}")),
            );
        }
    }
    Ok(breaches)
}

/// Our crates and what each is shipped with, by name.
fn dependencies() -> Result<BTreeMap<String, Vec<String>>> {
    let output = cargo().args(["metadata", "--format-version=1", "--no-deps"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    Ok(packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            (name(package), dependencies.filter(|dependency| dependency["kind"].is_null()).map(name).collect())
        })
        .collect())
}
