//! `asyncapi.json`: what the types say, and valid by AsyncAPI's own parser.

use std::process::{Command, Output};

use schemas::asyncapi::document;
use schemas::catalogue::text;
use serde_json::{Value, json};

use crate::files;

const NAME: &str = "asyncapi.json";

fn made() -> Value {
    document(env!("CARGO_PKG_VERSION"))
}

/// What the parser says of a document, and whether it takes it.
fn parse(document: &Value) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join(NAME);
    std::fs::write(&path, document.to_string()).expect("it can be written");
    let script = files::root().join("asyncapi/validate.sh");
    let Output { status, stdout, stderr } =
        Command::new("sh").arg(script).arg(&path).output().expect("there is a shell");
    let told = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    // What keeps the parser from running is no verdict.
    assert!(matches!(status.code(), Some(0 | 1)), "{told}");
    (status.success(), told)
}

#[test]
fn the_document_is_what_the_types_say() {
    files::expect(NAME, &text(&made()));
}

#[test]
fn the_parser_takes_it_without_a_warning() {
    let (valid, told) = parse(&made());
    assert!(valid, "{told}");
}

#[test]
fn the_parser_refuses_what_is_wrong() {
    let broken: [(&str, Value); 3] = [
        ("/channels/socket/messages/client.hello", json!({ "$ref": "#/components/messages/nothing" })),
        ("/operations/sendFrame/action", json!("shout")),
        ("/components/schemas/message.sent/type", json!("thing")),
    ];
    for (pointer, value) in broken {
        let mut document = made();
        *document.pointer_mut(pointer).expect("it is there") = value;
        let (valid, told) = parse(&document);
        assert!(!valid, "{pointer}: {told}");
    }
}
