//! The `parlance` binary: subcommands that compose the roles.

mod audit;
mod commands;
mod database;
mod server;
#[cfg(test)]
mod surface;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use platform::config::{CommonFlags, ServeFlags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The messaging platform that never loses a message and can prove it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process; what is not configured is supplied
    Up {
        #[command(flatten)]
        common: CommonFlags,
        #[command(flatten)]
        serve: ServeFlags,
    },
    /// Run some of the roles; every engine is named by the environment
    Serve(commands::serve::Arguments),
    /// Bring the database up to date
    Migrate(commands::migrate::Arguments),
    /// Fill a read model anew from the log, while the server runs
    Rebuild(commands::rebuild::Arguments),
    /// Say who did what to what, when, from where
    Audit(commands::audit::Arguments),
    /// Give users roles, and take them
    Role(commands::role::Arguments),
    /// Prove that no event was changed, removed or reordered
    Verify(commands::verify::Arguments),
    /// Print events as CloudEvents, one a line, from Kafka where it is configured, else from the log
    Tail(commands::tail::Arguments),
    /// Tell which topics there are, how they have to be, and how they are in Kafka
    Topics(commands::topics::Arguments),
    /// Have records published to Kafka again
    Replay(commands::replay::Arguments),
    /// Tell servers of others what happens
    Webhook(commands::webhook::Arguments),
    /// Talk with someone, from a terminal
    Chat(commands::chat::Arguments),
    /// Print the settings that result from flags, environment and file
    Config {
        #[command(flatten)]
        common: CommonFlags,
        #[command(flatten)]
        serve: ServeFlags,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("parlance: the operating system gave no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("parlance: {error:#}");
            // What a start lacks is told apart from what went wrong later.
            if is_lack(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether something was missing that the process needs from outside.
fn is_lack(error: &anyhow::Error) -> bool {
    error.is::<server::Missing>()
        || error.is::<platform::postgres::ConnectError>()
        || error.is::<platform::redis::ConnectError>()
        || error.is::<platform::bus::KafkaError>()
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { common, serve } => commands::up::run(&common, &serve).await,
        Command::Serve(arguments) => commands::serve::run(&arguments).await,
        Command::Migrate(arguments) => commands::migrate::run(&arguments).await,
        Command::Rebuild(arguments) => commands::rebuild::run(&arguments).await,
        Command::Audit(arguments) => commands::audit::run(&arguments).await,
        Command::Role(arguments) => commands::role::run(&arguments).await,
        Command::Verify(arguments) => commands::verify::run(&arguments).await,
        Command::Tail(arguments) => commands::tail::run(&arguments).await,
        Command::Topics(arguments) => commands::topics::run(&arguments).await,
        Command::Replay(arguments) => commands::replay::run(&arguments).await,
        Command::Webhook(arguments) => commands::webhook::run(&arguments).await,
        Command::Chat(arguments) => commands::chat::run(&arguments).await,
        Command::Config { common, serve } => commands::config::run(&common, &serve),
    }
}
