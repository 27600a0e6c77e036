//! What processes cost, as the kernel counts it: CPU seconds and resident memory.

use std::{collections::BTreeMap, fs};

use anyhow::Context;
use rustix::process::{Resource, Rlimit};
use testkit::app::Watched;

/// CPU seconds, user and system together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// Of each kind of process that serves: its name and what all of it used.
    pub servers: BTreeMap<&'static str, f64>,
    /// Of each engine, with all it ever started, those that have ended too.
    pub engines: BTreeMap<&'static str, f64>,
    /// The load generator's: this process.
    pub load: f64,
}

impl Cpu {
    /// What was used since `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (used, before) in [(&mut self.servers, &before.servers), (&mut self.engines, &before.engines)] {
            for (name, seconds) in used {
                *seconds -= before.get(name).copied().unwrap_or_default();
            }
        }
        self.load -= before.load;
        self
    }

    /// All that serves, together.
    #[must_use]
    pub fn server(&self) -> f64 {
        self.servers.values().sum()
    }

    /// An engine's; 0 for one that there is not.
    #[must_use]
    pub fn engine(&self, name: &str) -> f64 {
        self.engines.get(name).copied().unwrap_or_default()
    }
}

/// The processes to watch.
#[derive(Debug, Clone)]
pub struct Watch(pub Vec<Watched>);

impl Watch {
    /// CPU seconds used so far.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut cpu = Cpu { load: Stat::of(std::process::id())?.own(), ..Cpu::default() };
        for Watched { name, pid, is_engine } in &self.0 {
            let (used, seconds) =
                if *is_engine { (&mut cpu.engines, family(*pid)?) } else { (&mut cpu.servers, Stat::of(*pid)?.own()) };
            *used.entry(name).or_default() += seconds;
        }
        Ok(cpu)
    }

    /// The resident memory of all that serves, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let servers = self.0.iter().filter(|watched| !watched.is_engine);
        servers.map(|watched| resident_kib(watched.pid)).sum()
    }
}

fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
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
        let ours = |is_engine| Watched { name: "ours", pid, is_engine };
        let watch = Watch(vec![ours(false), ours(true)]);
        assert!(watch.resident_kib().unwrap() > 100);
        let used = watch.cpu().unwrap().since(&watch.cpu().unwrap());
        assert!(used.server() <= 0.0 && used.engine("ours") <= 0.0 && used.engine("none") == 0.0);
    }
}
