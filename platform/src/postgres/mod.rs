//! PostgreSQL: the pool every role shares, and the private cluster that stands in where none is named.

mod connect;
mod embedded;
mod installation;

pub use connect::{ConnectError, PoolSettings, connect, connect_lazily, parse_url};
pub use embedded::{Embedded, EmbeddedError};
pub use installation::{Account, Installation, InstallationError};
