//! The headers that answers carry, put into the document where they follow from what stands there already.

use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::{Content, Header, HeaderBuilder, OpenApi, RefOr, Response, schema};

/// What commands answer with that make no event.
const OF_NO_EVENT: [&str; 2] = ["Ticket", "PushSubscription"];

/// Describes the headers of every answer.
pub(super) fn describe(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let PathItem { get, put, post, delete, patch, .. } = item;
        if let Some(query) = get {
            let waits = parameters(query).any(|parameter| parameter.name == "Min-Position");
            answers(query, |status, response| {
                if waits && status == "200" {
                    insert(response, "Position", text("How far the answer goes."));
                    insert(response, "Position-Stale", text("`true`: `Min-Position` was not reached in time."));
                }
            });
        }
        for command in [put, post, delete, patch].into_iter().flatten() {
            answers(command, |status, response| {
                if status.starts_with('2') && !response.content.values().any(is_of_no_event) {
                    insert(response, "Position", text("Where its effect stands in the log, for `Min-Position`."));
                }
            });
        }
    }
}

fn parameters(operation: &Operation) -> impl Iterator<Item = &Parameter> {
    operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    })
}

/// Each answer with its status; those that ask for patience say how much.
fn answers(operation: &mut Operation, mut describe: impl FnMut(&str, &mut Response)) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if ["429", "503"].contains(&status.as_str()) {
            let seconds = schema::Object::with_type(schema::Type::Integer);
            let seconds = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds.")).build();
            insert(response, "Retry-After", seconds);
        }
        describe(status, response);
    }
}

fn is_of_no_event(content: &RefOr<Content>) -> bool {
    let RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) = content else { return false };
    OF_NO_EVENT.iter().any(|name| schema.ref_location.ends_with(&format!("/{name}")))
}

fn insert(response: &mut Response, name: &str, header: Header) {
    response.headers.insert(name.to_owned(), header.into());
}

fn text(description: &str) -> Header {
    let schema = schema::Object::with_type(schema::Type::String);
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
