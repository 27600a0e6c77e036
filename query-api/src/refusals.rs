//! The problems that queries answer with, for the description of the surface.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

type Responses = BTreeMap<String, RefOr<Response>>;

fn problems(described: &[(&str, &str)]) -> Responses {
    let problem = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(description).content("application/problem+json", content).build()
    };
    described.iter().map(|&(status, description)| (status.to_owned(), problem(description).into())).collect()
}

/// What any query of a signed-in user may be refused with.
pub(crate) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> Responses {
        problems(&[
            ("401", "No, bad, expired or revoked token."),
            ("422", "A bad parameter, header or cursor."),
            ("503", "A dependency is away; or `Min-Position` was not reached and `Prefer: strict` asked for."),
        ])
    }
}

/// What a query of one thing may be refused with besides.
pub(crate) struct NotThere;

impl IntoResponses for NotThere {
    fn responses() -> Responses {
        problems(&[("404", "Unknown, or not visible to the caller.")])
    }
}

/// What a query of operators may be refused with besides.
pub(crate) struct NotOperator;

impl IntoResponses for NotOperator {
    fn responses() -> Responses {
        problems(&[("403", "Not an operator.")])
    }
}

/// What a query within a conversation may be refused with besides.
pub(crate) struct NotMember;

impl IntoResponses for NotMember {
    fn responses() -> Responses {
        problems(&[
            ("403", "A former member."),
            ("404", "Unknown, or a conversation that the caller never was a member of."),
        ])
    }
}
