//! Users as others see them.

mod find;
mod me;
mod one;

use schemas::rest::User;
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::QueryState;

pub(crate) fn router() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(me::me)).routes(routes!(one::one)).routes(routes!(find::find))
}

/// The columns that [`user`] reads, in its order.
macro_rules! user_columns {
    () => {
        "user_id, username, display_name, avatar_file_id, created_at"
    };
}
use user_columns;

fn user(row: &PgRow) -> Result<User, sqlx::Error> {
    Ok(User {
        user_id: row.try_get(0)?,
        username: row.try_get(1)?,
        display_name: row.try_get(2)?,
        avatar_file_id: row.try_get(3)?,
        created_at: row.try_get(4)?,
        last_seen: None,
        email: None,
        roles: None,
    })
}
