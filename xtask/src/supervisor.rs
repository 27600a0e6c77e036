//! Engines for the tests: each is run by a script that ends it, and removes its data, once we are gone.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::workspace::{cache, root};

/// A script that was started, and has not said yet whether its engine is up.
pub(crate) struct Starting {
    engine: &'static str,
    script: Child,
}

/// Held as long as the engine is wanted: its script waits for the end of its input, which the kernel brings about
/// however we end.
pub(crate) struct Lifeline {
    _input: ChildStdin,
}

impl Starting {
    /// PostgreSQL whose commits survive nothing and cost nothing.
    pub(crate) fn postgres() -> Result<Self> {
        let settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
        let sizes = ["max_connections=400", "max_wal_size=4GB", "jit=off"];
        Self::run("PostgreSQL", script("cluster.sh").args(settings).args(sizes))
    }

    /// Kafka, broker and controller in one.
    pub(crate) fn kafka() -> Result<Self> {
        let pom = root().join("deploy/kafka/pom.xml");
        Self::run("Kafka", script("kafka.sh").arg(pom).env("PARLANCE_CACHE", cache()))
    }

    fn run(engine: &'static str, script: &mut Command) -> Result<Self> {
        let script = script
            // A Ctrl-C in the terminal ends the tests, and these after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start a {engine} for the tests"))?;
        Ok(Self { engine, script })
    }

    /// Waits for `ready …`, and hands on what follows it.
    pub(crate) fn ready(mut self) -> Result<(String, Lifeline)> {
        let input = self.script.stdin.take().context("the input is piped")?;
        let mut report = String::new();
        BufReader::new(self.script.stdout.take().context("the output is piped")?).read_line(&mut report)?;
        match report.trim_end().strip_prefix("ready") {
            Some(place) => Ok((place.trim_start().to_owned(), Lifeline { _input: input })),
            None => bail!("no {} for the tests: {}", self.engine, report.trim_end()),
        }
    }
}

fn script(name: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg(root().join("testkit/src").join(name));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starting(script: &str) -> Starting {
        Starting::run("engine", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn what_it_says_tells_where_it_is_or_why_not() {
        let (place, lifeline) = starting("echo ready /here; cat").ready().unwrap();
        assert_eq!(place, "/here");
        drop(lifeline);
        let refused = starting("echo failed: no such program").ready();
        assert_eq!(refused.err().unwrap().to_string(), "no engine for the tests: failed: no such program");
    }
}
