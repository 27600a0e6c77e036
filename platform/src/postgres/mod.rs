//! PostgreSQL: the pool every role shares, and the private cluster that stands in where none is named.

mod installation;

pub use installation::{Account, Installation, InstallationError};
