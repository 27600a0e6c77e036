//! Everything in one process, with the PostgreSQL that it brings along.

use std::{fs, path::Path, path::PathBuf, process::ExitStatus};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use super::{
    Place,
    process::{Process, signal_one},
};

#[derive(Debug)]
pub(super) struct OneProcess {
    process: Process,
    data_dir: PathBuf,
}

impl OneProcess {
    pub(super) async fn start(place: &Place) -> anyhow::Result<Self> {
        let command = place.command(&["up", "--listen", "127.0.0.1:0"]);
        Ok(Self { process: Process::start(command, &place.log()).await?, data_dir: place.data_dir() })
    }

    async fn start_again(&mut self, place: &Place) -> anyhow::Result<()> {
        let port = self.process.port();
        let listen = format!("127.0.0.1:{port}");
        let command = || place.command(&["up", "--listen", &listen]);
        self.process = Process::start_on(port, command, &place.log()).await?;
        Ok(())
    }

    pub(super) fn port(&self) -> u16 {
        self.process.port()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) async fn kill_and_restart(&mut self, place: &Place, with_postgres: bool) -> anyhow::Result<()> {
        let postmaster = postmaster(&self.data_dir)?;
        self.process.signal(Signal::KILL);
        if with_postgres {
            signal_one(postmaster, Signal::KILL);
        }
        self.process.kill().await?;
        self.start_again(place).await
    }

    pub(super) async fn stop(mut self, place: &Place) -> anyhow::Result<ExitStatus> {
        self.process.stop(&place.log()).await
    }

    pub(super) async fn stop_and_restart(&mut self, place: &Place) -> anyhow::Result<()> {
        let status = self.process.stop(&place.log()).await?;
        ensure!(status.success(), "it ended with {status}; its log ends with:\n{}", place.log_end());
        self.start_again(place).await
    }
}

impl Drop for OneProcess {
    fn drop(&mut self) {
        // Ended already, if its end was seen: then what it left running, if anything, is not ours to judge.
        if self.process.is_running() {
            self.process.signal(Signal::KILL);
            if let Ok(postmaster) = postmaster(&self.data_dir) {
                signal_one(postmaster, Signal::QUIT);
            }
        }
    }
}

/// The first process of the private cluster of a data directory.
pub(super) fn postmaster(data_dir: &Path) -> anyhow::Result<u32> {
    let home = match fs::read_to_string(data_dir.join("postgres.location")) {
        Ok(elsewhere) => PathBuf::from(elsewhere.trim_end()),
        Err(_) => data_dir.join("postgres"),
    };
    let file = home.join("data/postmaster.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    text.lines().next().and_then(|line| line.trim().parse().ok()).context("postmaster.pid begins with no id")
}
