//! The server process of a private cluster: started, watched, stopped, and never left to two masters.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{EmbeddedError, home::Home, settings::SETTINGS};
use crate::postgres::Installation;

/// How our own server is stopped, and how long each way may take: 4 s of the 10 that a process has to end.
/// "Fast" ends sessions and writes a checkpoint; "immediate" writes nothing, and the next start recovers.
const STOP: [(Signal, Duration); 2] = [(Signal::INT, Duration::from_secs(3)), (Signal::QUIT, Duration::from_secs(1))];
/// How another's server is stopped that nobody runs any more; nothing presses.
const STOP_ORPHAN: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];
const PAUSE: Duration = Duration::from_millis(20);

/// A running server. Dropped without [`Server::stop`], it is told to stop and not waited for.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts the server; it does not take connections yet.
    pub(super) fn spawn(home: &Home, installation: &Installation) -> io::Result<Self> {
        let log = home.log();
        if log.exists() {
            fs::rename(&log, log.with_extension("log.old"))?;
        }
        let log = File::create(log)?;
        let mut command = installation.program("postgres");
        command
            .arg("-D")
            .arg(home.data())
            .arg("-c")
            .arg(format!("unix_socket_directories={}", quoted(&home.socket_folder())))
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            // Ctrl-C in a terminal is ours to handle: the server stops after the roles that use it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Self { child: Command::from(command).spawn()? })
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end, which nobody asked for.
    pub(super) async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Its end, if it has come already.
    pub(super) fn try_exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Stops it: fast, then immediately, then by force; in little more than 4 s.
    pub(super) async fn stop(mut self) -> io::Result<()> {
        for (signal, bound) in STOP {
            self.signal(signal);
            if let Ok(ended) = timeout(bound, self.child.wait()).await {
                return ended.map(drop);
            }
            tracing::warn!(?signal, bound_ms = bound.as_millis(), "PostgreSQL did not stop in time");
        }
        self.child.kill().await
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            send(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No id is known once the child was waited for.
        self.signal(Signal::INT);
    }
}

/// Ends what a killed instance left running in this cluster. The caller holds the home's lock, so that no other
/// instance can be using it; only processes that work in this very folder are touched.
pub(super) async fn stop_orphans(home: &Home) -> Result<(), EmbeddedError> {
    let data = home.data();
    let Ok(data) = data.canonicalize() else {
        return Ok(());
    };
    for (signal, bound) in STOP_ORPHAN {
        let orphans = processes_in(&data);
        if orphans.is_empty() {
            break;
        }
        tracing::warn!(?orphans, ?signal, "stopping what a killed instance left of PostgreSQL");
        let postmaster = postmaster(&data).filter(|pid| orphans.contains(pid));
        match (signal, postmaster) {
            // A fast stop is the postmaster's to organise; to one of its children the signal means less.
            (Signal::INT, Some(postmaster)) => send(postmaster, signal),
            (Signal::INT, None) => continue,
            _ => orphans.iter().for_each(|pid| send(*pid, signal)),
        }
        let deadline = Instant::now() + bound;
        while !processes_in(&data).is_empty() && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
    }
    let left = processes_in(&data);
    if !left.is_empty() {
        return Err(EmbeddedError::Orphans { pids: left });
    }
    // Nobody works here, so a file that names a process names one of the past, or by now somebody else's.
    for stale in [data.join("postmaster.pid"), home.socket_folder().join(".s.PGSQL.5432.lock")] {
        match fs::remove_file(&stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EmbeddedError::files(&stale, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The server's processes all work in the folder of their cluster.
fn processes_in(data: &Path) -> Vec<u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            let ours = fs::read_link(process.join("cwd")).ok()? == data
                && fs::read_to_string(process.join("comm")).ok()?.trim_end() == "postgres";
            ours.then_some(pid)
        })
        .collect()
}

fn postmaster(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

fn send(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = kill_process(pid, signal) {
        tracing::debug!(pid = pid.as_raw_nonzero().get(), ?signal, %error, "the process is gone");
    }
}

/// As an element of a list setting: commas and spaces in a path stay part of it.
fn quoted(folder: &Path) -> String {
    format!("\"{}\"", folder.display().to_string().replace('"', "\"\""))
}
