//! The `parlance` binary: subcommands that compose the roles.

fn main() {}
