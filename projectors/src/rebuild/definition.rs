//! The tables that a projection is rebuilt in.

use sqlx::PgConnection;

use super::run;
use crate::database::LIVE;

/// Makes an empty table like the live one: its columns, options, indexes and constraints, all under the same names.
pub(super) async fn copy(connection: &mut PgConnection, schema: &str, table: &str) -> Result<(), sqlx::Error> {
    let options: Option<String> =
        sqlx::query_scalar("SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass($1)")
            .bind(format!("{LIVE}.{table}"))
            .fetch_one(&mut *connection)
            .await?;
    let options = options.map(|options| format!(" WITH ({options})")).unwrap_or_default();
    // LIKE would name the indexes itself, and later migrations could not find them.
    let like = format!("LIKE {LIVE}.{table} INCLUDING ALL EXCLUDING INDEXES");
    run(connection, format!("CREATE TABLE {schema}.{table} ({like}){options}")).await?;
    let indexes: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), \
                CASE c.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' END \
           FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u') \
          WHERE i.indrelid = to_regclass($1) ORDER BY i.indexrelid",
    )
    .bind(format!("{LIVE}.{table}"))
    .fetch_all(&mut *connection)
    .await?;
    for (name, definition, constraint) in indexes {
        let name = name.rsplit('.').next().unwrap_or(&name);
        let definition = definition.replace(&format!(" ON {LIVE}.{table} "), &format!(" ON {schema}.{table} "));
        run(connection, definition).await?;
        if let Some(constraint) = constraint {
            let add = format!("ALTER TABLE {schema}.{table} ADD CONSTRAINT {name} {constraint} USING INDEX {name}");
            run(connection, add).await?;
        }
    }
    Ok(())
}
