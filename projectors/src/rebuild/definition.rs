//! The tables that a projection is rebuilt in, and the views that stand on them.

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

/// A view as it can be said anew.
pub(super) struct View {
    pub(super) name: String,
    options: Option<String>,
    query: String,
}

impl View {
    /// Puts it on whatever stands under the names of its tables now. Who may read it, and what is said of it, stays.
    pub(super) fn replace(&self) -> String {
        let options = self.options.as_ref().map(|options| format!(" WITH ({options})")).unwrap_or_default();
        format!("CREATE OR REPLACE VIEW {}{options} AS {}", self.name, self.query)
    }
}

/// The views that stand on live tables, whoever made them. Their names are qualified where the live schema is not in
/// the search path.
pub(super) async fn views(connection: &mut PgConnection, tables: &[&str]) -> Result<Vec<View>, sqlx::Error> {
    let tables: Vec<String> = tables.iter().map(|table| format!("{LIVE}.{table}")).collect();
    let rows: Vec<(String, Option<String>, String)> = sqlx::query_as(
        "SELECT oid::regclass::text, array_to_string(reloptions, ', '), pg_get_viewdef(oid) FROM pg_class \
          WHERE relkind = 'v' AND oid IN ( \
                SELECT ev_class FROM pg_rewrite r \
                  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
                 WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1::text[]::regclass[]::oid[])) \
          ORDER BY oid",
    )
    .bind(tables)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(name, options, query)| View { name, options, query }).collect())
}
