//! `cargo xtask test`: all tests on one private PostgreSQL, and how many there were.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{packages, workspace::cargo};

/// The same cluster that a test process starts by itself where it was given none.
const CLUSTER: &str = include_str!("../../testkit/src/cluster.sh");

/// Runs the tests of the whole workspace, those in the documentation too.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    packages::ensure(&packages::to_build())?;
    packages::ensure(&[packages::POSTGRESQL])?;
    let (url, _lifeline) = start_cluster()?;
    let mut tests = cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments)
        .env("PARLANCE_TEST_DATABASE_URL", url)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut counts = Counts::default();
    let output = tests.stdout.take().context("the output is piped")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        counts.add(&line);
        println!("{line}");
    }
    let status = tests.wait()?;
    println!("{} passed, {} failed, {} ignored", counts.passed, counts.failed, counts.ignored);
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    Ok(())
}

/// A cluster that ends with us, however we end: it waits for the end of its input, which the kernel brings about.
fn start_cluster() -> Result<(String, ChildStdin)> {
    let mut supervisor = Command::new("/bin/sh")
        .args(["-c", CLUSTER, "cluster.sh"])
        .args(["fsync=off", "synchronous_commit=off", "full_page_writes=off"])
        .args(["max_connections=400", "max_wal_size=4GB", "jit=off"])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a PostgreSQL for the tests")?;
    let lifeline = supervisor.stdin.take().context("the input is piped")?;
    let mut report = String::new();
    BufReader::new(supervisor.stdout.take().context("the output is piped")?).read_line(&mut report)?;
    match report.trim_end().strip_prefix("ready ") {
        Some(folder) => Ok((format!("postgres://postgres@localhost/postgres?host={folder}"), lifeline)),
        None => bail!("no PostgreSQL for the tests: {report}"),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds what a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; …` says.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let mut words = result.split([' ', ';']).filter(|word| !word.is_empty());
        let mut last = words.next().unwrap_or_default();
        for word in words {
            let counter = match word {
                "passed" => &mut self.passed,
                "failed" => &mut self.failed,
                "ignored" => &mut self.ignored,
                _ => {
                    last = word;
                    continue;
                }
            };
            *counter += last.parse::<u64>().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut counts = Counts::default();
        counts.add("running 3 tests");
        counts.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.96s");
        counts.add("test result: FAILED. 36 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(counts, Counts { passed: 41, failed: 2, ignored: 1 });
    }
}
