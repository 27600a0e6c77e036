//! A process that outlives the command that started it. It is known again by its id *and* the moment of its birth: an
//! id that the system gave to somebody else meanwhile is never taken for it, and never killed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::wait::until;

/// How long a process that was killed may take to be gone.
const KILL_BOUND: Duration = Duration::from_secs(10);

/// One process and the folder that says which it is: `pid` and `log`.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    folder: PathBuf,
}

/// Which process it is, on this machine since it was booted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    pid: u32,
    /// Ticks between the boot and its start.
    born: u64,
    boot: String,
}

impl Daemon {
    pub(super) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The end of its log, for a message about what went wrong.
    pub(super) fn log_end(&self) -> String {
        log_end(&self.log())
    }

    /// The id of its process, if that runs.
    pub(super) fn pid(&self) -> Option<u32> {
        let recorded = self.recorded()?;
        (Identity::of(recorded.pid).as_ref() == Some(&recorded)).then_some(recorded.pid)
    }

    /// A command that becomes `program` in a session of its own, where nothing that ends a terminal reaches it.
    pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setsid");
        command.arg(program);
        command
    }

    /// Starts it, and writes down which process it is.
    pub(super) fn start(&self, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let identity = Identity::of(child.id())
            .with_context(|| format!("it ended at once; {} ends with:\n{}", self.log().display(), self.log_end()))?;
        let draft = self.folder.join("pid.new");
        fs::write(&draft, format!("{} {} {}\n", identity.pid, identity.born, identity.boot))?;
        fs::rename(draft, self.file())?;
        Ok(())
    }

    /// Sends the signals one after the other, each with its time to heed it, and at last kills.
    pub(super) async fn stop(&self, signals: &[(Signal, Duration)]) -> Result<()> {
        let killed = [(Signal::KILL, KILL_BOUND)];
        for (signal, bound) in signals.iter().chain(&killed) {
            let Some(pid) = self.pid() else {
                break;
            };
            self.send(pid, *signal)?;
            if until(*bound, async || self.pid().is_none()).await {
                break;
            }
        }
        if let Some(pid) = self.pid() {
            bail!("process {pid} does not end");
        }
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// By a handle of the process, looked at again once it is open: what ended meanwhile is not mistaken.
    fn send(&self, pid: u32, signal: Signal) -> Result<()> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("an id that is none")?;
        let handle = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.pid() != Some(pid) {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot stop process {pid}")),
        }
    }

    fn recorded(&self) -> Option<Identity> {
        let text = fs::read_to_string(self.file()).ok()?;
        let mut words = text.split_whitespace();
        let (pid, born) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Identity { pid, born, boot: words.next()?.to_owned() })
    }
}

impl Identity {
    /// That of a process that runs; one that ended and was not waited for does not.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, born) = state_and_birth(&stat)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        (!matches!(state, 'Z' | 'X')).then(|| Self { pid, born, boot: boot.trim().to_owned() })
    }
}

/// Fields 3 and 22 of a line such as `42 (any (name) 1) S 1 …`: those after the name's last parenthesis.
fn state_and_birth(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.chars().next()?, fields.nth(18)?.parse().ok()?))
}

/// The last lines of a file.
pub(crate) fn log_end(path: &Path) -> String {
    const SHOWN: usize = 2_000;
    let log = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(SHOWN)..]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon() -> (tempfile::TempDir, Daemon) {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::new(folder.path());
        (folder, daemon)
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "42 (a) S 9 (b) R 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9";
        assert_eq!(state_and_birth(stat), Some(('R', 777)));
    }

    #[tokio::test]
    async fn it_is_found_again_and_stopped() {
        let (_folder, daemon) = daemon();
        assert_eq!(daemon.pid(), None);
        let mut command = Daemon::command("sleep");
        command.arg("1000");
        daemon.start(command).unwrap();
        let pid = daemon.pid().unwrap();
        assert_eq!(Daemon::new(&daemon.folder).pid(), Some(pid));
        daemon.stop(&[(Signal::TERM, Duration::from_secs(10))]).await.unwrap();
        assert_eq!((daemon.pid(), daemon.file().exists()), (None, false));
        daemon.stop(&[]).await.unwrap();
    }

    #[tokio::test]
    async fn what_heeds_no_signal_is_killed() {
        let (_folder, daemon) = daemon();
        let mut command = Daemon::command("sh");
        command.args(["-c", "trap '' TERM; echo deaf; while :; do read -r nothing < /dev/zero; done"]);
        daemon.start(command).unwrap();
        assert!(until(Duration::from_secs(10), async || daemon.log_end() == "deaf").await);
        daemon.stop(&[(Signal::TERM, Duration::from_millis(100))]).await.unwrap();
        assert_eq!(daemon.pid(), None);
    }

    #[tokio::test]
    async fn an_id_that_somebody_else_has_now_is_left_alone() {
        let (_folder, daemon) = daemon();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = Identity::of(other.id()).unwrap();
        fs::write(daemon.file(), format!("{} {} {}", identity.pid, identity.born + 1, identity.boot)).unwrap();
        assert_eq!(daemon.pid(), None);
        daemon.stop(&[(Signal::KILL, Duration::from_secs(1))]).await.unwrap();
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
