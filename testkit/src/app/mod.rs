//! Runs the real `parlance` binary, everything in one process or as roles apart on real engines: starts it, kills it,
//! starts it again, stops it.

mod embedded;
mod front;
mod process;
mod stack;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use parlance_client::{Backoff, Server};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::process::Command;

pub use self::stack::{Blow, Engines, Role, RolesApart};
use self::{embedded::OneProcess, process::Process};

/// A place for the data of one installation, gone when dropped; it outlives each [`App`] that runs on it.
#[derive(Debug, Clone)]
pub struct Place {
    binary: PathBuf,
    folder: Arc<Folder>,
    environment: Vec<(String, String)>,
    /// Engines of the test's own; `None` where the process brings its own.
    engines: Option<Arc<Engines>>,
}

impl Place {
    /// An empty place for this binary, which supplies everything by itself. Rate limits are off: tests and load do what
    /// no person does.
    pub fn new(binary: impl Into<PathBuf>) -> anyhow::Result<Self> {
        // The account that runs PostgreSQL for root may pass through, so that everything lies in here.
        let folder = tempfile::Builder::new()
            .prefix("parlance-app-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()
            .context("no temporary folder")?;
        let data_dir = folder.path().join("data");
        let data_dir = data_dir.to_str().context("a temporary folder with a name that is no text")?.to_owned();
        let place =
            Self { binary: binary.into(), folder: Arc::new(Folder(folder)), environment: Vec::new(), engines: None };
        Ok(place.with("PARLANCE_RATE_LIMITS", "off").with("PARLANCE_DATA_DIR", &data_dir))
    }

    /// An empty place on real engines, which start with it and end with it: PostgreSQL, Kafka and Redis.
    pub async fn on_stack(binary: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let engines = Engines::start().await?;
        let mut place = Self::new(binary)?;
        for (name, value) in engines.environment() {
            place = place.with(name, &value);
        }
        Ok(Self { engines: Some(Arc::new(engines)), ..place })
    }

    /// The same place, with another variable in the environment of what runs there.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same place, without that variable in the environment of what runs there.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The engines, where they are the test's own.
    pub fn engines(&self) -> Option<&Engines> {
        self.engines.as_deref()
    }

    /// What the processes write to their standard error, over all starts.
    pub fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// The end of that, for a message about what went wrong.
    pub fn log_end(&self) -> String {
        process::end_of(&self.log())
    }

    /// A command of the binary, with the place's environment and none of ours that it would listen to.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::until_we_die(&self.binary);
        for (name, _) in std::env::vars() {
            let listened_to = name.starts_with("PARLANCE_")
                || name.starts_with("OTEL_")
                || ["DATABASE_URL", "DATABASE_READ_URL", "KAFKA_BROKERS", "REDIS_URL"].contains(&name.as_str());
            if listened_to {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts an installation, on a port that is free: everything in one process, or roles apart on the place's engines.
    pub async fn start(&self) -> anyhow::Result<App> {
        let processes = if self.engines.is_some() {
            Processes::Apart(RolesApart::start(self).await?)
        } else {
            Processes::One(OneProcess::start(self).await?)
        };
        Ok(App { place: self.clone(), processes })
    }

    /// Starts one process by these arguments, which serves on a port that is free.
    pub async fn serve(&self, arguments: &[&str]) -> anyhow::Result<Serving> {
        let arguments = [arguments, &["--listen", "127.0.0.1:0"]].concat();
        Ok(Serving { process: Process::start(self.command(&arguments), &self.log()).await?, place: self.clone() })
    }

    fn folder(&self) -> &Path {
        self.folder.0.path()
    }
}

/// All that a place keeps. Where a test fails, it says at last how the log ended.
#[derive(Debug)]
struct Folder(TempDir);

impl Folder {
    fn log(&self) -> PathBuf {
        self.0.path().join("parlance.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log ended with:\n{}", process::end_of(&self.log()));
        }
    }
}

/// One process that serves, whatever its roles. Dropped, it is killed.
#[derive(Debug)]
pub struct Serving {
    process: Process,
    place: Place,
}

impl Serving {
    /// What it serves, for clients that do not wait long before they try again.
    pub fn server(&self) -> Server {
        server(&format!("http://127.0.0.1:{}", self.process.port()))
    }

    /// Stops it as a service manager would (SIGTERM), and says how it ended.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.process.stop(&self.place.log()).await
    }
}

fn server(address: &str) -> Server {
    let backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_millis(500) };
    Server::new(address).expect("an address").with_retries(40, backoff)
}

/// A process whose cost is of interest.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What it is: `parlance`, a role, or an engine.
    pub name: &'static str,
    /// Its id.
    pub pid: u32,
    /// Whether it is an engine, which counts with all that it started.
    pub is_engine: bool,
}

impl Watched {
    fn server(name: &'static str, pid: u32) -> Self {
        Self { name, pid, is_engine: false }
    }

    fn engine(name: &'static str, pid: u32) -> Self {
        Self { name, pid, is_engine: true }
    }
}

/// A running installation. Dropped, it is killed, its PostgreSQL too.
#[derive(Debug)]
pub struct App {
    place: Place,
    processes: Processes,
}

#[derive(Debug)]
enum Processes {
    One(OneProcess),
    Apart(RolesApart),
}

impl App {
    /// The address it serves, such as `http://127.0.0.1:40123`.
    pub fn address(&self) -> String {
        let port = match &self.processes {
            Processes::One(process) => process.port(),
            Processes::Apart(roles) => roles.port(),
        };
        format!("http://127.0.0.1:{port}")
    }

    /// The server, for clients that do not wait long before they try again.
    pub fn server(&self) -> Server {
        server(&self.address())
    }

    /// The place it runs in.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The id of the process that is everything.
    pub fn pid(&self) -> anyhow::Result<u32> {
        match &self.processes {
            Processes::One(process) => Ok(process.pid()),
            Processes::Apart(_) => anyhow::bail!("it is several processes"),
        }
    }

    /// Every process that serves, by what it is, and the first process of PostgreSQL.
    pub fn watched(&self) -> anyhow::Result<Vec<Watched>> {
        let mut watched = match &self.processes {
            Processes::One(process) => vec![Watched::server("parlance", process.pid())],
            Processes::Apart(roles) => roles.watched(),
        };
        watched.extend(match self.place.engines() {
            Some(engines) => engines.watched()?,
            None => vec![Watched::engine("postgres", embedded::postmaster(&self.place.data_dir())?)],
        });
        Ok(watched)
    }

    /// How to connect to its database.
    pub async fn database(&self) -> anyhow::Result<PgConnectOptions> {
        if let Some(engines) = self.place.engines() {
            return Ok(engines.database().clone());
        }
        let cluster = platform::postgres::Embedded::attach_or_start(&self.place.data_dir()).await?;
        ensure!(cluster.is_attached(), "the server was gone: its cluster was started by us");
        Ok(cluster.options().clone())
    }

    /// The roles apart, to strike at single ones; `None` where all is one process.
    pub fn roles(&mut self) -> Option<&mut RolesApart> {
        match &mut self.processes {
            Processes::One(_) => None,
            Processes::Apart(roles) => Some(roles),
        }
    }

    /// Kills the server (SIGKILL) in the middle of whatever it does, PostgreSQL's first process with it if asked, and
    /// starts it again on the same data and the same port.
    pub async fn kill_and_restart(&mut self, with_postgres: bool) -> anyhow::Result<()> {
        match &mut self.processes {
            Processes::One(process) => process.kill_and_restart(&self.place, with_postgres).await,
            Processes::Apart(roles) => {
                let blow = if with_postgres { Blow::EverythingAndPostgres } else { Blow::Everything };
                roles.strike(&self.place, blow).await
            }
        }
    }

    /// Stops the server as a service manager would (SIGTERM), and says how it ended.
    pub async fn stop(self) -> anyhow::Result<ExitStatus> {
        match self.processes {
            Processes::One(process) => process.stop(&self.place).await,
            Processes::Apart(roles) => roles.stop(&self.place).await,
        }
    }

    /// The same, then starts it again on the same data and the same port.
    pub async fn stop_and_restart(&mut self) -> anyhow::Result<()> {
        match &mut self.processes {
            Processes::One(process) => process.stop_and_restart(&self.place).await,
            Processes::Apart(roles) => roles.restart_all(&self.place).await,
        }
    }
}
