//! What has to be installed: found by its programs, installed from Debian where we may, else named.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::workspace::run;

/// A Debian package and what tells that it, or its like, is there.
pub(crate) struct Package {
    name: &'static str,
    is_there: fn() -> bool,
}

/// The server programs, for private clusters and tests.
pub(crate) const POSTGRESQL: Package = Package {
    name: "postgresql",
    is_there: || {
        on_path("initdb")
            || fs::read_dir("/usr/lib/postgresql")
                .into_iter()
                .flatten()
                .flatten()
                .any(|version| version.path().join("bin/initdb").is_file())
    },
};

/// What fetches the conversations of the demo.
pub(crate) const PIP: Package = Package { name: "python3-pip", is_there: || on_path("pip3") || on_path("pip") };

/// What dependencies written in C are built with.
pub(crate) fn to_build() -> [Package; 2] {
    [
        Package { name: "gcc", is_there: || on_path("cc") },
        Package { name: "libc6-dev", is_there: || Path::new("/usr/include/stdio.h").exists() },
    ]
}

/// Installs those that are missing when we are root on a Debian, else names them.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !(package.is_there)()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !on_path("apt-get") {
        bail!("not installed: {names} (names of Debian's packages)");
    }
    if !is_root() {
        bail!("not installed: {names}; install with: sudo apt-get install {names}");
    }
    eprintln!("xtask: installing {names}");
    run(apt_get().args(["update", "--quiet"]))?;
    run(apt_get().args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(missing))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Without a dependency for it: our own entry in `/proc` belongs to whom we run as.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
