//! REST queries and the WebSocket gateway: the side of Parlance that shows.
//!
//! Queries read the read models, and nothing else. Each endpoint is one file: its statement, its handler, its
//! description.

mod access;
mod again;
pub mod audit;
mod checkpoints;
mod conversations;
mod documents;
mod first_page;
mod freshness;
pub mod gateway;
mod messages;
mod operations;
mod page;
mod push_subscriptions;
mod reads;
mod refusals;
mod rows;
mod sessions;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod users;

use axum::{Router, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use checkpoints::follow_checkpoints;
pub use documents::{Documents, merged};
pub use operations::{Checked, Dependency, Operations};
pub use reads::Reads;
pub use state::{Dependencies, QueryState, steady_plans};

/// The routes of all queries.
pub fn router(state: QueryState) -> Router {
    let queries: Router = queries().with_state(state.clone()).into();
    let of_the_primary: Router = of_the_primary().with_state(state.clone()).into();
    queries.layer(middleware::from_fn_with_state(state, again::again)).merge(of_the_primary)
}

/// The routes of health and figures, which every process serves.
pub fn operations_router(operations: Operations) -> Router {
    operations::router().with_state(operations).into()
}

/// The description of what [`router`] and [`operations_router`] serve.
pub fn openapi() -> OpenApi {
    let mut described = queries().into_openapi();
    described.merge(of_the_primary().into_openapi());
    described.merge(operations::router().into_openapi());
    described
}

fn queries() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .merge(users::router())
        .merge(sessions::router())
        .merge(conversations::router())
        .merge(messages::router())
        .merge(documents::router())
}

/// What no replica is asked, and nobody twice: an audit that takes down each reading, and state that is no read model.
fn of_the_primary() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().merge(audit::router()).merge(push_subscriptions::router())
}
