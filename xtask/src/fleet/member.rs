//! One process of the fleet: started, started again when it ends, and stopped, as a service manager would.

use std::{
    fs::File,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::stack::log_end;

/// The pause before one that ended is started again doubles from here…
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// …to here…
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// …and begins anew once it ran for this long.
const SETTLED: Duration = Duration::from_secs(30);

/// What a member is run by. Given the address that it served before, if any: it has to serve it again.
pub(super) type Recipe = Box<dyn Fn(Option<&str>) -> Command + Send + Sync>;

/// A process to keep running.
pub(super) struct Member {
    /// `command-api-1`
    pub(super) name: String,
    pub(super) recipe: Recipe,
    /// Where its standard error goes.
    pub(super) log: PathBuf,
    /// Whether it prints `ready on http://ADDRESS` once it serves.
    pub(super) announces: bool,
    /// How it is told to stop, more and more urgently; then it is killed.
    pub(super) signals: &'static [(Signal, Duration)],
}

impl Member {
    /// Keeps it running until `stop`, and tells where it serves. Fails if its first start does.
    pub(super) async fn keep(
        self,
        serves: watch::Sender<Option<String>>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let known = serves.borrow().clone();
            let (mut child, mut lines) = self.spawn(known.as_deref())?;
            let ended = tokio::select! {
                // Also one that is still starting.
                _ = stop.wait_for(|stop| *stop) => None,
                status = self.attend(&mut child, &mut lines, &serves) => Some(status?),
            };
            let Some(status) = ended else {
                return self.end(child).await;
            };
            if serves.borrow().is_none() {
                bail!("{} {status} at its start; {} ends with:\n{}", self.name, self.log.display(), log_end(&self.log));
            }
            if begun.elapsed() >= SETTLED {
                pause = FIRST_PAUSE;
            }
            eprintln!("xtask: {} {status}; it is started again in {} ms", self.name, pause.as_millis());
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn spawn(&self, address: Option<&str>) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = (self.recipe)(address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // A Ctrl-C in the terminal is for us, who stop all in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.name))?;
        let lines = BufReader::new(child.stdout.take().context("the output is piped")?).lines();
        Ok((child, lines))
    }

    /// Reads what it says until it ends.
    async fn attend(
        &self,
        child: &mut Child,
        lines: &mut Lines<BufReader<ChildStdout>>,
        serves: &watch::Sender<Option<String>>,
    ) -> Result<ExitStatus> {
        let pid = child.id().unwrap_or_default();
        if !self.announces {
            serves.send_replace(Some(String::new()));
        }
        while let Some(line) = lines.next_line().await? {
            if let Some(address) = line.strip_prefix("ready on http://") {
                eprintln!("xtask: {} serves at {address} (process {pid})", self.name);
                serves.send_replace(Some(address.trim_end().to_owned()));
            }
        }
        Ok(child.wait().await?)
    }

    async fn end(&self, mut child: Child) -> Result<()> {
        for (signal, bound) in self.signals {
            send(&child, *signal)?;
            if let Ok(ended) = timeout(*bound, child.wait()).await {
                let status = ended?;
                if !status.success() {
                    eprintln!("xtask: {} {status}; see {}", self.name, self.log.display());
                }
                return Ok(());
            }
        }
        eprintln!("xtask: {} does not stop and is killed; see {}", self.name, self.log.display());
        Ok(child.kill().await?)
    }
}

/// Our own child, which is not waited for yet: its id is nobody else's.
fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    match pid.map(|pid| kill_process(pid, signal)) {
        Some(Err(error)) if error != rustix::io::Errno::SRCH => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fleet::roles::until_we_die, stack::until};

    const BOUND: Duration = Duration::from_mins(1);

    /// A member that notes the addresses it was given, one a start, and then runs this script.
    fn member(folder: &tempfile::TempDir, script: &str) -> Member {
        let starts = folder.path().join("starts");
        let script = format!("echo \"$1\" >> '{}'; {script}", starts.display());
        Member {
            name: "one".to_owned(),
            recipe: Box::new(move |address| {
                let mut command = until_we_die("sh");
                command.args(["-c", &script, "sh", address.unwrap_or("none")]);
                command
            }),
            log: folder.path().join("log"),
            announces: true,
            signals: &[(Signal::TERM, BOUND)],
        }
    }

    fn starts(folder: &tempfile::TempDir) -> Vec<String> {
        let text = std::fs::read_to_string(folder.path().join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn one_that_ends_is_started_again_where_it_served() {
        let folder = tempfile::tempdir().unwrap();
        let member = member(&folder, "echo ready on http://127.0.0.1:7; [ \"$1\" = none ] && exit 3; exec sleep 1000");
        let (serves, mut address) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let kept = tokio::spawn(member.keep(serves, stopped));
        address.wait_for(Option::is_some).await.unwrap();
        assert!(until(BOUND, async || starts(&folder) == ["none", "127.0.0.1:7"]).await);
        stop.send_replace(true);
        timeout(BOUND, kept).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_first_start_that_fails_is_told_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let kept = member(&folder, "echo no such engine >&2; exit 2").keep(watch::channel(None).0, stopped);
        let error = timeout(BOUND, kept).await.unwrap().unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("no such engine"), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_heed_is_killed() {
        const IMPATIENT: &[(Signal, Duration)] = &[(Signal::TERM, Duration::from_millis(50))];
        let folder = tempfile::tempdir().unwrap();
        let deaf = "trap '' TERM; echo ready on http://127.0.0.1:7; while :; do read -r nothing < /dev/zero; done";
        let member = Member { signals: IMPATIENT, ..member(&folder, deaf) };
        let (serves, mut address) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let kept = tokio::spawn(member.keep(serves, stopped));
        address.wait_for(Option::is_some).await.unwrap();
        stop.send_replace(true);
        timeout(BOUND, kept).await.unwrap().unwrap().unwrap();
    }
}
