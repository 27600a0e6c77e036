//! Replays real conversations against a running server, compares the histories with them, and leaves accounts behind.

use std::process::ExitCode;

use anyhow::Context;
use bench::demo::{self, CITATION, PASSWORD};
use clap::Parser;

/// Replays real conversations through as many real clients against a running server.
#[derive(Debug, Parser)]
struct Options {
    /// The server.
    #[arg(default_value = "http://localhost:8080")]
    address: String,
    /// How many conversations.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2000))]
    conversations: u16,
    /// No more lines of each than this.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u16).range(2..=3000))]
    lines: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    println!("{CITATION}");
    let scripts = demo::scripts(options.conversations.into(), options.lines.into()).await?;
    let replayed = demo::replay(&options.address, &scripts)
        .await
        .with_context(|| format!("against {} (is a server running there? `cargo xtask up`)", options.address))?;
    println!(
        "{} conversations of {} people, {} lines: every history is the input, line by line",
        replayed.conversations,
        replayed.accounts.len(),
        replayed.lines
    );
    println!("log in with any of these, password {PASSWORD}:");
    for (name, conversations) in replayed.accounts.iter().take(10) {
        println!("  {name}  ({conversations} conversations)");
    }
    if let Some(more) = replayed.accounts.len().checked_sub(10).filter(|more| *more > 0) {
        println!("  and {more} more, named alike");
    }
    Ok(())
}
