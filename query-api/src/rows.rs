//! Reading columns by their place.

use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};

/// A column whose text names something.
pub(crate) fn named<T>(row: &PgRow, column: usize, of: impl Fn(&str) -> Option<T>) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    of(text).ok_or_else(|| sqlx::Error::ColumnDecode {
        index: column.to_string(),
        source: format!("`{text}` is not known").into(),
    })
}

/// Whether a column is null.
pub(crate) fn nothing(row: &PgRow, column: usize) -> Result<bool, sqlx::Error> {
    Ok(row.try_get_raw(column)?.is_null())
}
