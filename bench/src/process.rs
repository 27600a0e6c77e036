//! What processes cost, as the kernel counts it: CPU seconds and resident memory.

use std::fs;

use anyhow::Context;
use rustix::process::{Resource, Rlimit};

/// CPU seconds, user and system together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cpu {
    /// The server's own.
    pub server: f64,
    /// PostgreSQL's: its first process and all it ever started, those that have ended too.
    pub postgres: f64,
    /// The load generator's: this process.
    pub load: f64,
}

impl Cpu {
    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            server: self.server - before.server,
            postgres: self.postgres - before.postgres,
            load: self.load - before.load,
        }
    }
}

/// The processes to watch.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// The server.
    pub server: u32,
    /// PostgreSQL's first process.
    pub postmaster: u32,
}

impl Watch {
    /// CPU seconds used so far.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        Ok(Cpu {
            server: Stat::of(self.server)?.own(),
            postgres: family(self.postmaster)?,
            load: Stat::of(std::process::id())?.own(),
        })
    }

    /// The server's resident memory, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

/// Lets this process, and those that it starts, have as many files open as the system allows.
pub fn allow_open_files() -> anyhow::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

/// What one line of `/proc/PID/stat` says, in clock ticks.
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended and were waited for, and of theirs.
    ended: u64,
}

/// Clock ticks a second: what Linux tells userspace on every machine we run on.
const TICKS: f64 = 100.0;

impl Stat {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
        // The name stands in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let number = |index: usize| -> anyhow::Result<u64> { Ok(fields.get(index).context("too short")?.parse()?) };
        Ok(Self {
            parent: u32::try_from(number(1)?)?,
            own: number(11)? + number(12)?,
            ended: number(13)? + number(14)?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks of a few hours")]
    fn own(&self) -> f64 {
        self.own as f64 / TICKS
    }
}

/// A process and all its children, living and ended.
#[expect(clippy::cast_precision_loss, reason = "ticks of a few hours")]
fn family(first: u32) -> anyhow::Result<f64> {
    let root = Stat::of(first)?;
    let mut ticks = root.own + root.ended;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends while we look is counted by its parent the next time.
        let Ok(stat) = Stat::of(pid) else { continue };
        if stat.parent == first {
            ticks += stat.own + stat.ended;
        }
    }
    Ok(ticks as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_found() {
        let pid = std::process::id();
        let watch = Watch { server: pid, postmaster: pid };
        assert!(watch.resident_kib().unwrap() > 100);
        let before = watch.cpu().unwrap();
        assert!(watch.cpu().unwrap().since(before).server >= 0.0);
    }
}
