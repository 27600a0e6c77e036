//! `cargo xtask test`: all tests on one private PostgreSQL and Kafka, and how many there were.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    consumers, packages,
    supervisor::Starting,
    workspace::{cache, cargo, root, run},
};

/// Runs AsyncAPI's own parser.
const ASYNCAPI: &str = "schemas/asyncapi/validate.sh";

/// Runs the tests of the whole workspace, those in the documentation too.
pub(crate) fn all(arguments: &[String]) -> Result<()> {
    packages::ensure(&packages::to_build())?;
    packages::ensure(&packages::ENGINES)?;
    packages::ensure(&[packages::NGINX, packages::PIP, packages::NODE, packages::NPM])?;
    let consumers = consumers::installed()?;
    // A test asks it; without a document it is only fetched, where it is not there yet.
    run(Command::new("sh").arg(root().join(ASYNCAPI)).env("PARLANCE_CACHE", cache()))?;
    // First, alone: an engine that waits takes a core from the compiler.
    run(cargo().args(["test", "--workspace", "--no-run", "--quiet"]).args(of_cargo(arguments)))?;
    // Side by side. A Redis starts so soon that each test has its own.
    let (postgres, kafka) = (Starting::postgres()?, Starting::kafka()?);
    let (folder, _postgres) = postgres.ready()?;
    let (brokers, _kafka) = kafka.ready()?;
    let mut tests = cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments)
        .env("PARLANCE_TEST_DATABASE_URL", format!("postgres://postgres@localhost/postgres?host={folder}"))
        .env("PARLANCE_TEST_KAFKA", brokers)
        .envs(consumers)
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

/// Those before `--`: the others are for the tests themselves.
fn of_cargo(arguments: &[String]) -> &[String] {
    arguments.split(|argument| argument == "--").next().unwrap_or_default()
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
    fn what_the_tests_are_told_is_not_for_cargo() {
        let arguments = ["-p", "relay", "--", "--nocapture"].map(str::to_owned);
        assert_eq!(of_cargo(&arguments), ["-p", "relay"]);
        assert_eq!(of_cargo(&[]), [""; 0]);
    }

    #[test]
    fn results_add_up() {
        let mut counts = Counts::default();
        counts.add("running 3 tests");
        counts.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.96s");
        counts.add("test result: FAILED. 36 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(counts, Counts { passed: 41, failed: 2, ignored: 1 });
    }
}
