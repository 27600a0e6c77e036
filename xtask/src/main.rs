//! Developer commands: `cargo xtask --help` lists them.

fn main() {}
