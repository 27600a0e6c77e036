//! One process of the binary under test: started, killed, held up, stopped.

use std::{
    collections::BTreeSet, ffi::OsStr, fs::File, path::Path, process::ExitStatus, process::Stdio, time::Duration,
};

use anyhow::{Context, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::eventually;

/// How long a start may take: a new cluster, or the recovery of one that was killed.
const START_BOUND: Duration = Duration::from_mins(2);
/// How long a stop may take: the contract's ten seconds, and some for a machine that is busy.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// How often a port that is not free yet is tried again.
const PORT_TRIES: usize = 20;

/// A command of this program: the kernel tells it to end (SIGTERM) if the thread that started it, and with it perhaps all of
/// us, ends without having stopped it.
pub(super) fn until_we_die(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// A process that serves, in a group of its own. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: Pid,
    port: u16,
}

impl Process {
    /// Starts `command`, which logs to `log`, and waits until it says that it is ready.
    pub(super) async fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", command.as_std().get_program().display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).context("it has no id")?;
        let stdout = child.stdout.take().context("it has no output")?;
        let mut process = Self { child, pid, port: 0 };
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("ready on ") {
                    let port = address.trim_end_matches('/').rsplit(':').next();
                    return port.and_then(|port| port.trim().parse().ok()).context("an address without a port");
                }
            }
            Err(anyhow!("it ended before it was ready"))
        };
        process.port = match timeout(START_BOUND, ready).await {
            Ok(Ok(port)) => port,
            Ok(Err(error)) => {
                let status = process.child.wait().await?;
                bail!("{error} ({status}); its log ends with:\n{}", end_of(log));
            }
            Err(_) => bail!("not ready within {START_BOUND:?}; its log ends with:\n{}", end_of(log)),
        };
        // Whatever else it says is read, so that it never waits for us.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(process)
    }

    /// The same on a port that it had before: one that somebody used for a moment meanwhile is tried again.
    pub(super) async fn start_on(port: u16, command: impl Fn() -> Command, log: &Path) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            match Self::start(command(), log).await {
                Ok(process) => return Ok(process),
                Err(error) if tries + 1 == PORT_TRIES => return Err(error),
                Err(_) if !port_is_free(port) => {
                    tries += 1;
                    eventually("the port is free again", STOP_BOUND, async || port_is_free(port)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The port it serves on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether its end was not seen yet.
    pub(super) fn is_running(&self) -> bool {
        self.child.id().is_some()
    }

    /// Kills it and what it started, in the middle of whatever it does.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().await?;
        Ok(())
    }

    /// Holds it up (SIGSTOP): its connections stay open, and nothing comes.
    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal to it and what it started.
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Tells it to stop, as a service manager would (SIGTERM), and says how it ended.
    pub(super) async fn stop(&mut self, log: &Path) -> anyhow::Result<ExitStatus> {
        signal_one(self.pid(), Signal::TERM);
        timeout(STOP_BOUND, self.child.wait())
            .await
            .with_context(|| format!("it did not stop within {STOP_BOUND:?}; its log ends with:\n{}", end_of(log)))?
            .context("its end was not seen")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
        }
    }
}

/// A port that was free a moment ago, for a process that comes back to it: below those that the kernel gives to outgoing
/// connections, and never the same twice.
pub(super) fn free_port() -> anyhow::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock();
    let port =
        (0..1000).map(|_| rand::random_range(10_000..32_000)).find(|port| !given.contains(port) && port_is_free(*port));
    let port = port.context("no port is free")?;
    given.insert(port);
    Ok(port)
}

fn port_is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

pub(super) fn signal_one(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The end of a log, for a message about what went wrong.
pub(super) fn end_of(log: &Path) -> String {
    let log = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(8000)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, thread};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn nothing_outlives_who_started_it() {
        let runtime = tokio::runtime::Handle::current();
        let started = thread::spawn(move || {
            runtime.block_on(async {
                let child = until_we_die("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
                let name = format!("/proc/{}/comm", child.id().unwrap());
                let runs = async || std::fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n");
                eventually("it runs", STOP_BOUND, runs).await;
                child
            })
        });
        let mut child = started.join().unwrap();
        let ended = timeout(STOP_BOUND, child.wait()).await.expect("it ends with its thread").unwrap();
        assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()));
    }
}
