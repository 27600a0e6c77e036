//! The workspace, and cargo in it: what it builds is cached outside, so that a fresh clone does not begin anew.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// `cargo` in the root of the workspace, with the shared target folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    // Set for us by the `cargo run` that started us; they would make build scripts run again.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(variable);
    }
    command
}

/// A program built by `cargo build --release`.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Builds the server as it is shipped.
pub(crate) fn build_server() -> Result<()> {
    run(cargo().args(["build", "--release", "--package", "parlance", "--bin", "parlance"]))
}

/// Runs a command to its end, and fails as it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(())
}

/// `CARGO_TARGET_DIR`, else a folder of the cache that all clones share.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), |folder| root().join(folder))
}

/// `PARLANCE_CACHE`, else `~/.cache/parlance`; without a home the workspace itself.
pub(crate) fn cache() -> PathBuf {
    match (env::var_os("PARLANCE_CACHE"), env::home_dir()) {
        (Some(folder), _) => folder.into(),
        (None, Some(home)) => home.join(".cache/parlance"),
        (None, None) => root().join("target/cache"),
    }
}
