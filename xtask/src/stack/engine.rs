//! What the engines of a stack have in common.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::{daemon::Daemon, ports::KeptPort, wait::until};

/// How long a start may take; one after a crash replays its log first.
const START_BOUND: Duration = Duration::from_mins(3);
/// How long a process that was killed just now may go on to hold its port.
const PORT_BOUND: Duration = Duration::from_secs(5);
/// How often a start is tried: somebody may take its port between its choice and its use.
const TRIES: usize = 3;

/// A server that the stack runs in a folder of its own.
pub(super) trait Engine {
    fn name(&self) -> &'static str;
    fn daemon(&self) -> Daemon;
    fn port(&self) -> KeptPort;

    /// The variable of the environment that names it to Parlance, and its value.
    fn variable(&self) -> Result<(&'static str, String)>;

    /// Gets what it needs beyond Debian's packages.
    fn install(&self) -> Result<()> {
        Ok(())
    }

    /// Starts its process, with its data made where there are none. Does not wait until it answers.
    fn start(&self) -> Result<()>;

    /// Whether it answers as it should, within a few seconds.
    fn is_healthy(&self) -> bool;

    /// How it is told to stop, more and more urgently.
    fn signals(&self) -> &'static [(Signal, Duration)];

    /// Removes what it keeps outside its folder.
    fn wipe(&self) -> Result<()> {
        Ok(())
    }

    /// Where it listens.
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port().get().unwrap_or_default())
    }
}

/// Starts an engine where none runs; says whether it did.
pub(super) async fn start(engine: &dyn Engine) -> Result<bool> {
    if engine.daemon().pid().is_some() {
        return Ok(false);
    }
    eprintln!("xtask: starting {}", engine.name());
    // Whoever was told the address before finds it there again.
    until(PORT_BOUND, async || engine.port().is_to_be_had()).await;
    engine.start()?;
    Ok(true)
}

/// Waits until it answers. One that ended meanwhile is started again, on another port where its own was taken.
pub(super) async fn await_healthy(engine: &dyn Engine) -> Result<()> {
    let daemon = engine.daemon();
    let mut tries = 1;
    loop {
        let settled = until(START_BOUND, async || daemon.pid().is_none() || engine.is_healthy()).await;
        match daemon.pid() {
            Some(pid) if settled => {
                eprintln!("xtask: {} answers at {} (process {pid})", engine.name(), engine.address());
                return Ok(());
            }
            None if tries < TRIES && is_about_the_port(&daemon) => {
                tries += 1;
                engine.port().forget()?;
                engine.start()?;
            }
            _ => bail!(
                "{} {}; {} ends with:\n{}",
                engine.name(),
                if settled { "ended at its start" } else { "does not answer" },
                daemon.log().display(),
                daemon.log_end()
            ),
        }
    }
}

fn is_about_the_port(daemon: &Daemon) -> bool {
    let said = daemon.log_end();
    ["Address already in use", "Failed to bind", "could not bind", "bind: "].iter().any(|words| said.contains(words))
}

/// Stops it, within the bounds of its signals.
pub(super) async fn stop(engine: &dyn Engine) -> Result<()> {
    let daemon = engine.daemon();
    let Some(pid) = daemon.pid() else {
        return Ok(());
    };
    eprintln!("xtask: stopping {} (process {pid})", engine.name());
    daemon.stop(engine.signals()).await
}

/// One line of `status`.
pub(super) fn describe(engine: &dyn Engine) -> (bool, String) {
    let state = match engine.daemon().pid() {
        None => return (false, format!("{:<9} stopped", engine.name())),
        Some(pid) if engine.is_healthy() => (true, format!("process {pid:<8} healthy")),
        Some(pid) => (false, format!("process {pid:<8} does not answer")),
    };
    (state.0, format!("{:<9} {:<16} {}", engine.name(), engine.address(), state.1))
}

/// Makes an engine's folder.
pub(super) fn folder(stack: &std::path::Path, name: &str) -> Result<PathBuf> {
    let folder = stack.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
