//! `cargo xtask stack`: real PostgreSQL, Redis and Kafka on this machine, as processes that outlive the command.
//!
//! Everything lies in one folder, each engine in a folder of its own: its data, `pid`, `port`, `log`, its password.

mod daemon;
mod engine;
mod kafka;
mod ports;
mod postgres;
mod redis;
mod secrets;
mod wait;

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

pub(crate) use self::{daemon::log_end, ports::free as free_port, wait::until};
use self::{engine::Engine, kafka::Kafka, postgres::Postgres, redis::Redis};
use crate::{packages, workspace::cache};

/// In the folder: makes it ours, so that `--wipe` removes no other.
const MARK: &str = "parlance-stack";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Which stack.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Where everything lies that the engines keep [default: stack, in the cache]
    #[arg(long, value_name = "DIR", global = true)]
    folder: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, start what does not run, wait until all answer, print the environment to export
    Up,
    /// Stop the engines, in order; their data stay
    Down {
        /// Then remove the data too
        #[arg(long)]
        wipe: bool,
    },
    /// Show each engine: its address, its process, whether it answers
    Status,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Up => {
            let stack = Stack::open(&arguments.place)?;
            stack.up(&mut Vec::new()).await?;
            for (name, value) in stack.environment()? {
                println!("export {name}='{value}'");
            }
            Ok(())
        }
        Command::Down { wipe } => {
            let Some(stack) = Stack::find(&arguments.place)? else {
                eprintln!("xtask: there is no stack in {}", arguments.place.path().display());
                return Ok(());
            };
            stack.down().await?;
            if wipe { stack.wipe() } else { Ok(()) }
        }
        Command::Status => {
            let Some(stack) = Stack::find(&arguments.place)? else {
                bail!("there is no stack in {}", arguments.place.path().display());
            };
            stack.status()
        }
    }
}

impl Place {
    fn path(&self) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| cache().join("stack"))
    }
}

/// The engines of one folder, held for this command: another one waits for its end.
pub(crate) struct Stack {
    folder: PathBuf,
    engines: [Box<dyn Engine>; 3],
    lock: File,
}

impl Stack {
    /// That of the place, made where there is none.
    pub(crate) fn open(place: &Place) -> Result<Self> {
        let folder = place.path();
        if !folder.join(MARK).exists() {
            let is_empty = fs::read_dir(&folder).map_or(true, |mut entries| entries.next().is_none());
            ensure!(is_empty, "{} is neither empty nor a stack", folder.display());
            DirBuilder::new().recursive(true).mode(0o711).create(&folder)?;
            fs::write(
                folder.join(MARK),
                "Engines that `cargo xtask stack` runs; `cargo xtask stack down --wipe` removes this.\n",
            )?;
        }
        Self::at(&folder)
    }

    fn find(place: &Place) -> Result<Option<Self>> {
        let folder = place.path();
        if folder.join(MARK).exists() { Self::at(&folder).map(Some) } else { Ok(None) }
    }

    fn at(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize()?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("xtask: waiting for another command that is at {}", folder.display());
            lock.lock().context("cannot lock the stack")?;
        }
        let engines: [Box<dyn Engine>; 3] = [
            // The slowest to start comes first.
            Box::new(Kafka::new(engine::folder(&folder, "kafka")?)),
            Box::new(Postgres::new(engine::folder(&folder, "postgres")?)),
            Box::new(Redis::new(engine::folder(&folder, "redis")?)),
        ];
        Ok(Self { folder, engines, lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts what does not run, notes which engines these are, and waits until all answer.
    pub(crate) async fn up(&self, started: &mut Vec<&'static str>) -> Result<()> {
        packages::ensure(&packages::ENGINES)?;
        for engine in &self.engines {
            engine.install()?;
            if engine::start(engine.as_ref()).await? {
                started.push(engine.name());
            }
        }
        for engine in &self.engines {
            engine::await_healthy(engine.as_ref()).await?;
        }
        Ok(())
    }

    /// Lets other commands at the stack while its engines are used.
    pub(crate) fn unlock(&self) -> Result<()> {
        Ok(self.lock.unlock()?)
    }

    /// What Parlance has to be told.
    pub(crate) fn environment(&self) -> Result<Vec<(&'static str, String)>> {
        let mut variables = self.engines.iter().map(|engine| engine.variable()).collect::<Result<Vec<_>>>()?;
        variables.push(("PARLANCE_MASTER_KEY", secrets::kept(&self.folder.join("master-key"))?));
        variables.sort_unstable();
        Ok(variables)
    }

    /// Stops all engines: those that others stand on last.
    pub(crate) async fn down(&self) -> Result<()> {
        self.stop(|_| true).await
    }

    /// Stops those of these names.
    pub(crate) async fn stop(&self, chosen: impl Fn(&str) -> bool) -> Result<()> {
        let mut failed = Vec::new();
        for engine in self.engines.iter().filter(|engine| chosen(engine.name())) {
            if let Err(error) = engine::stop(engine.as_ref()).await {
                failed.push(format!("{}: {error:#}", engine.name()));
            }
        }
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }

    fn status(&self) -> Result<()> {
        let mut all = true;
        for engine in &self.engines {
            let (healthy, line) = engine::describe(engine.as_ref());
            all &= healthy;
            println!("{line}");
        }
        ensure!(all, "not all engines are up");
        Ok(())
    }

    fn wipe(&self) -> Result<()> {
        for engine in &self.engines {
            engine.wipe()?;
        }
        fs::remove_dir_all(&self.folder)?;
        eprintln!("xtask: removed {}", self.folder.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
