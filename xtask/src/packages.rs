//! What has to be installed: found by its programs, installed from Debian where we may, else named.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::workspace::run;

/// A Debian package and what tells that it, or its like, is there.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    name: &'static str,
    is_there: fn() -> bool,
    /// What it starts by itself once it is installed, and what nobody asked for here.
    service: Option<&'static str>,
}

impl Package {
    const fn new(name: &'static str, is_there: fn() -> bool) -> Self {
        Self { name, is_there, service: None }
    }
}

/// The server programs, for private clusters and tests.
pub(crate) const POSTGRESQL: Package = Package::new("postgresql", || {
    on_path("initdb").is_some()
        || fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .any(|version| version.path().join("bin/initdb").is_file())
});

/// Serves caches and the live bus.
pub(crate) const REDIS: Package =
    Package { service: Some("redis-server"), ..Package::new("redis-server", || on_path("redis-server").is_some()) };

/// Runs Kafka.
pub(crate) const JAVA: Package = Package::new("default-jre-headless", || on_path("java").is_some());

/// Fetches Kafka.
pub(crate) const MAVEN: Package = Package::new("maven", || on_path("mvn").is_some());

/// Stands before the roles. Its folder is not on everybody's PATH.
pub(crate) const NGINX: Package = Package {
    service: Some("nginx"),
    ..Package::new("nginx-light", || on_path("nginx").is_some() || Path::new("/usr/sbin/nginx").is_file())
};

/// What fetches the conversations of the demo.
pub(crate) const PIP: Package = Package::new("python3-pip", || on_path("pip3").is_some() || on_path("pip").is_some());

/// Runs the consumer in `docs/consumers/python`, with what it is built on.
pub(crate) const PYTHON: Package = Package::new("python3-venv", || {
    let script = "import ensurepip, sqlite3, venv";
    Command::new("python3").args(["-c", script]).output().is_ok_and(|output| output.status.success())
});

/// Runs the consumer in `docs/consumers/node`, and AsyncAPI's own parser.
pub(crate) const NODE: Package = Package::new("nodejs", || on_path("node").is_some());

/// Installs what those are built on.
pub(crate) const NPM: Package = Package::new("npm", || on_path("npm").is_some());

/// What dependencies written in C are built with: librdkafka is made by its own `configure` and `Makefile`.
pub(crate) fn to_build() -> [Package; 5] {
    [
        Package::new("gcc", || on_path("cc").is_some()),
        Package::new("g++", || on_path("c++").is_some() || on_path("g++").is_some()),
        Package::new("libc6-dev", || Path::new("/usr/include/stdio.h").exists()),
        Package::new("make", || on_path("make").is_some()),
        Package::new("bash", || on_path("bash").is_some()),
    ]
}

/// What the real engines are run by.
pub(crate) const ENGINES: [Package; 4] = [POSTGRESQL, REDIS, JAVA, MAVEN];

/// Installs those that are missing when we are root on a Debian, else names them.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !(package.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let names = names.join(" ");
    if on_path("apt-get").is_none() {
        bail!("not installed: {names} (names of Debian's packages)");
    }
    if !is_root() {
        bail!("not installed: {names}; install with: sudo apt-get install {names}");
    }
    eprintln!("xtask: installing {names}");
    run(apt_get().args(["update", "--quiet"]))?;
    let quietly = ["install", "--yes", "--quiet", "--no-install-recommends"];
    run(apt_get().args(quietly).args(names.split(' ')))?;
    for service in missing.iter().filter_map(|package| package.service) {
        stop(service);
    }
    Ok(())
}

/// Ends a service that came with its package. Where none runs, there is nothing to end.
fn stop(service: &str) {
    let mut command = if Path::new("/run/systemd/system").is_dir() {
        let mut command = Command::new("systemctl");
        command.args(["disable", "--now", service]);
        command
    } else {
        let mut command = Command::new("service");
        command.args([service, "stop"]);
        command
    };
    if command.output().is_ok_and(|output| output.status.success()) {
        eprintln!("xtask: stopped the service {service}, which came with its package");
    }
}

/// What it says goes where our own remarks go: standard output is for what was asked for.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
    command
}

/// Where a program is found, if it is.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether we may do anything; but PostgreSQL does not run so.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
