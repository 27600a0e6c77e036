//! The surface described by itself: OpenAPI, AsyncAPI, and two pages to read.

mod events;
mod files;
mod headers;
mod html;
mod jwks;
mod page;
mod surface;
mod vapid;

use axum::body::Bytes;
use schemas::catalogue::text;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::QueryState;

pub use surface::merged;

/// The descriptions, made once for as long as the process runs.
#[derive(Clone, Debug)]
pub struct Documents {
    openapi: Bytes,
    asyncapi: Bytes,
    page: Bytes,
    events: Bytes,
}

impl Documents {
    /// The description of the surface that these parts make up together, such as command-api's and this crate's.
    ///
    /// # Errors
    /// None with documents that utoipa made; serde's signature has one.
    pub fn of(parts: impl IntoIterator<Item = OpenApi>) -> Result<Self, serde_json::Error> {
        let openapi = serde_json::to_value(merged(parts))?;
        Ok(Self {
            page: page::render(&openapi).into(),
            events: events::render().into(),
            openapi: serde_json::to_vec(&openapi)?.into(),
            asyncapi: text(&schemas::asyncapi::document(env!("CARGO_PKG_VERSION"))).into(),
        })
    }
}

pub(crate) fn router() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .routes(routes!(jwks::jwks))
        .routes(routes!(vapid::vapid_public_key))
        .routes(routes!(files::openapi))
        .routes(routes!(files::asyncapi))
        .routes(routes!(files::docs))
        .routes(routes!(files::event_docs))
        .routes(routes!(files::event_schema))
}
