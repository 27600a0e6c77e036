//! A lane's own connection.
