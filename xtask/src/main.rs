//! Developer commands: `cargo xtask --help` lists them.

mod check;
mod consumers;
mod fleet;
mod packages;
mod stack;
mod suite;
mod supervisor;
mod workspace;

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::workspace::{binary, build_server, cargo, run};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Parlance")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, build, and run the whole server: `parlance up` with these arguments; with --stack its
    /// roles apart, on real engines, behind nginx (`up --stack --help`)
    Up(Passed),
    /// Run real PostgreSQL, Redis and Kafka on this machine, as long as they are wanted
    Stack(stack::Arguments),
    /// Build, and run a command of the server's: `parlance` with these arguments
    Run(Passed),
    /// Install what is missing and run all tests; arguments go to `cargo test`
    Test(Passed),
    /// Measure: throughput, latency, memory, catch-up
    Bench(Passed),
    /// Replay real conversations through as many real clients
    Demo(Passed),
    /// Check what no compiler does: who may depend on whom, who may write what
    Check,
}

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Passed {
    /// Handed on as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up(Passed { arguments }) => up(&arguments),
        Command::Stack(arguments) => in_runtime(stack::run(arguments)),
        Command::Run(Passed { arguments }) => parlance(&arguments),
        Command::Test(Passed { arguments }) => suite::all(&arguments),
        Command::Bench(Passed { arguments }) => tool("bench", &arguments),
        Command::Demo(Passed { arguments }) => {
            packages::ensure(&[packages::PIP]).and_then(|()| tool("demo", &arguments))
        }
        Command::Check => check::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// For what watches processes. On this thread alone: the kernel ties the fleet's processes to it.
fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Runs the whole server, with a PostgreSQL to start where none is configured.
fn up(arguments: &[String]) -> Result<()> {
    if let Some(apart) = fleet::Arguments::of_the_stack(arguments) {
        return in_runtime(fleet::run(&apart));
    }
    if std::env::var_os("DATABASE_URL").is_none() {
        packages::ensure(&[packages::POSTGRESQL])?;
    }
    parlance(&[&["up".to_owned()], arguments].concat())
}

/// Builds the server and becomes it: signals and exit code are the server's own.
fn parlance(arguments: &[String]) -> Result<()> {
    packages::ensure(&packages::to_build())?;
    build_server()?;
    let error = std::process::Command::new(binary("parlance")).args(arguments).exec();
    Err(error).context("cannot run the server")
}

/// Builds a tool of the crate `bench`, and the server as it is shipped, and becomes the tool.
fn tool(name: &str, arguments: &[String]) -> Result<()> {
    packages::ensure(&packages::to_build())?;
    packages::ensure(&[packages::POSTGRESQL])?;
    if arguments.iter().any(|argument| argument == "--stack") {
        packages::ensure(&packages::ENGINES)?;
        packages::ensure(&[packages::NGINX])?;
    }
    build_server()?;
    run(cargo().args(["build", "--release", "--package", "bench", "--bin", name]))?;
    let error = std::process::Command::new(binary(name)).env("PARLANCE_BIN", binary("parlance")).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {name}"))
}
