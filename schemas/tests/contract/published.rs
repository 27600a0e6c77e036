//! `published.txt`: what consumers may have built on, each with a hash. It only grows.
//!
//! A schema's hash is of what it asks of data, so that its words may be mended; a fixture's is of its bytes.

use std::collections::BTreeMap;

use schemas::catalogue::{EVENT_TYPES, text};
use schemas::compatibility::demands;
use sha2::{Digest, Sha256};

use crate::{files, json_schemas};

/// The list, from the root of the repository.
pub(crate) const PATH: &str = "schemas/published.txt";
const NAME: &str = "published.txt";

/// What is published, by its file's name.
pub(crate) fn parse(list: &str) -> BTreeMap<&str, &str> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
}

/// What of one list another one lacks, or has otherwise.
pub(crate) fn lost(before: &str, now: &str) -> Vec<String> {
    let now = parse(now);
    let told = |(name, hash): (&str, &str)| match now.get(name) {
        Some(found) if *found == hash => None,
        Some(_) => Some(format!("{name} is published, and was changed")),
        None => Some(format!("{name} is published, and was removed")),
    };
    parse(before).into_iter().filter_map(told).collect()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The list that describes what is there.
fn list() -> String {
    let mut lines: Vec<_> = files::under("fixtures")
        .into_iter()
        .map(|name| format!("{name} {}", hash(files::read(&name).expect("it is there").as_bytes())))
        .collect();
    for kind in EVENT_TYPES {
        let of = |version| hash(text(&demands(&kind.schema(version))).as_bytes());
        lines.extend(kind.versions().map(|version| format!("{} {}", json_schemas::file(kind, version), of(version))));
    }
    lines.sort_unstable();
    let head = "# What consumers may have built on: lines are added, and never changed or removed. See CONTRIBUTING.\n";
    format!("{head}{}\n", lines.join("\n"))
}

#[test]
fn what_is_published_is_there_unchanged_and_all_that_is_there_is_listed() {
    let now = list();
    let published = files::read(NAME).unwrap_or_default();
    let lost = lost(&published, &now);
    assert!(lost.is_empty(), "{lost:#?}");
    files::expect(NAME, &now);
}

#[test]
fn a_change_and_a_removal_are_told_and_an_addition_is_not() {
    let before = "# head\na 1\nb 2\n";
    assert_eq!(lost(before, "# another\na 1\nb 2\nc 3\n"), [""; 0]);
    assert_eq!(lost(before, "b 3\n"), ["a is published, and was removed", "b is published, and was changed"]);
}
