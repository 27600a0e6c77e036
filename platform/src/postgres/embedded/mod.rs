//! The private cluster of `parlance up`: a real PostgreSQL under the data directory, from the installed programs.
//!
//! It belongs to one process at a time (a lock says to which), is started by it, watched, started again should it
//! die, and stopped with it. What a killed process left behind is found and ended at the next start.

mod home;
mod lock;
mod server;
mod settings;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use thiserror::Error;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::{
    home::{Home, ROLE},
    lock::{Asked, FolderLock},
    server::{Server, stop_orphans},
};
use super::{Installation, InstallationError};
use crate::telemetry::chain;

/// The database of a private cluster.
const DATABASE: &str = "parlance";
/// After a crash the server first replays its log, which may take its time; each try is also told in the log.
const START_BOUND: Duration = Duration::from_mins(5);
/// How long another process that holds the data directory may take to get its server running.
const ATTACH_BOUND: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Why there is no private cluster; each says what to do about it.
#[derive(Debug, Error)]
pub enum EmbeddedError {
    /// No fitting server programs.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// Another instance has it.
    #[error(
        "the data directory {} is in use by {}: stop it, or choose another with --data-dir",
        data_dir.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The data directory, or the cluster's folder where two data directories point to one.
        data_dir: PathBuf,
        /// The process that holds it.
        holder: Option<u32>,
    },
    /// A file or folder that we need and cannot use.
    #[error("cannot use {}: make it writable for this user, or choose another with --data-dir", path.display())]
    Files {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cluster that stood elsewhere is gone.
    #[error(
        "{} says that the cluster stands in {}, and there is none: restore it, or remove that file to begin anew",
        pointer.display(), target.display()
    )]
    Lost {
        /// The file in the data directory.
        pointer: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// Somebody else made the folder that our socket would go into.
    #[error("{} is not a folder of this user's own: remove it, or choose a shorter --data-dir", folder.display())]
    ForeignSocketFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb ended with {status}: {said}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        said: String,
    },
    /// Processes of an earlier instance survive even SIGKILL.
    #[error("processes {pids:?} of an earlier instance do not end: end them, then start again")]
    Orphans {
        /// Their ids.
        pids: Vec<u32>,
    },
    /// The server ended, or took no connections in time.
    #[error("PostgreSQL did not start ({why}); {} ends with: {said}", log.display())]
    Start {
        /// What happened.
        why: String,
        /// The server's log.
        log: PathBuf,
        /// The end of that log.
        said: String,
    },
    /// The server takes connections but does not do as it is told.
    #[error("the private PostgreSQL cannot be prepared")]
    Prepare(#[from] sqlx::Error),
}

impl EmbeddedError {
    fn files(path: &Path, source: io::Error) -> Self {
        Self::Files { path: path.to_owned(), source }
    }
}

/// A private cluster that takes connections.
///
/// Ours is stopped by [`Embedded::stop`]; dropped without it, it is told to stop and not waited for. One that
/// another process runs is left alone.
#[derive(Debug)]
pub struct Embedded {
    options: PgConnectOptions,
    running: Option<Running>,
}

/// What goes with a server of our own.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    watch: JoinHandle<()>,
}

/// The data directory and the cluster's folder, which another data directory may point to after a copy.
#[derive(Debug)]
struct Locks {
    _data_dir: FolderLock,
    _home: FolderLock,
}

impl Embedded {
    /// Starts the cluster of this data directory, making either where there is none; fails at once when another
    /// process has it.
    pub async fn start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = make_data_dir(data_dir)?;
        let lock = match ask(&data_dir)? {
            Asked::Got(lock) => lock,
            Asked::Held(holder) => return Err(EmbeddedError::InUse { data_dir, holder }),
        };
        Self::start_locked(&data_dir, lock).await
    }

    /// Uses the cluster that another process runs on this data directory, or starts it when none does: for
    /// commands that work beside a live server.
    pub async fn attach_or_start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = make_data_dir(data_dir)?;
        let deadline = Instant::now() + ATTACH_BOUND;
        loop {
            // Asked again each time: the other may be on its way up, or down.
            let holder = match ask(&data_dir)? {
                Asked::Got(lock) => return Self::start_locked(&data_dir, lock).await,
                Asked::Held(holder) => holder,
            };
            if let Some(home) = Home::find(&data_dir)? {
                let options = options(&home);
                if PgConnection::connect_with(&options).await.is_ok() {
                    return Ok(Self { options, running: None });
                }
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::InUse { data_dir, holder });
            }
            sleep(PAUSE).await;
        }
    }

    /// How to connect to its database, as the role that owns it.
    #[must_use]
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// The same as a URL; there is no password in it.
    #[must_use]
    pub fn url(&self) -> String {
        self.options.to_url_lossy().into()
    }

    /// Whether another process runs it.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.running.is_none()
    }

    /// Stops the server if it is ours, in little more than 4 s, and lets go of the data directory.
    pub async fn stop(mut self) {
        if let Some(Running { stop, watch }) = self.running.take() {
            stop.cancel();
            if let Err(error) = watch.await {
                tracing::error!(%error, "the watch over PostgreSQL ended badly");
            }
        }
    }

    async fn start_locked(data_dir: &Path, lock: FolderLock) -> Result<Self, EmbeddedError> {
        let version = Home::find(data_dir)?.and_then(|home| home.version());
        let installation = Installation::find(version)?;
        let home = Home::find_or_make(data_dir, &installation)?;
        let locks = match ask(home.folder())? {
            Asked::Got(home) => Locks { _data_dir: lock, _home: home },
            Asked::Held(holder) => {
                let data_dir = home.folder().to_owned();
                return Err(EmbeddedError::InUse { data_dir, holder });
            }
        };
        let cluster = Cluster { home, installation, _locks: locks };
        let server = cluster.start().await?;
        let options = options(&cluster.home);
        make_database(&options).await?;
        tracing::info!(
            home = %cluster.home.folder().display(), programs = %cluster.installation.bin().display(),
            "the private PostgreSQL cluster in {} takes connections", cluster.home.folder().display(),
        );
        let stop = CancellationToken::new();
        let watch = tokio::spawn(cluster.watch(server, stop.clone()));
        Ok(Self { options, running: Some(Running { stop, watch }) })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
    }
}

/// A cluster that is ours to run.
#[derive(Debug)]
struct Cluster {
    home: Home,
    installation: Installation,
    _locks: Locks,
}

impl Cluster {
    /// From whatever state to one that takes connections.
    async fn start(&self) -> Result<Server, EmbeddedError> {
        self.home.initialise(&self.installation).await?;
        stop_orphans(&self.home).await?;
        self.home.make_socket_folder(&self.installation)?;
        let mut server = Server::spawn(&self.home, &self.installation)
            .map_err(|error| EmbeddedError::files(self.home.folder(), error))?;
        let options = options(&self.home).database("postgres");
        let deadline = Instant::now() + START_BOUND;
        loop {
            let Err(error) = PgConnection::connect_with(&options).await else {
                return Ok(server);
            };
            match server.try_exited() {
                Ok(None) if Instant::now() < deadline => sleep(PAUSE).await,
                Ok(None) => return Err(self.start_error(error.to_string())),
                Ok(Some(status)) => return Err(self.start_error(status.to_string())),
                Err(error) => return Err(self.start_error(error.to_string())),
            }
        }
    }

    /// Starts the server again whenever it dies, until told to stop it.
    async fn watch(self, mut server: Server, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                ended = server.exited() => {
                    let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    tracing::error!(status, said = self.log_end(), "PostgreSQL ended; starting it again");
                }
            }
            server = loop {
                match self.start().await {
                    Ok(server) => break server,
                    Err(error) => {
                        tracing::error!(error = chain(&error), "PostgreSQL does not start; trying again");
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(RESTART_PAUSE) => {}
                }
            };
        }
        if let Err(error) = server.stop().await {
            tracing::error!(%error, "PostgreSQL cannot be stopped");
        }
    }

    fn start_error(&self, why: String) -> EmbeddedError {
        EmbeddedError::Start { why, log: self.home.log(), said: self.log_end() }
    }

    fn log_end(&self) -> String {
        last_lines(&fs::read_to_string(self.home.log()).unwrap_or_default())
    }
}

fn options(home: &Home) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(home.socket_folder())
        .port(5432)
        .username(ROLE)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

/// Whoever holds the lock is alone here: no race between looking and making.
async fn make_database(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(&options.clone().database("postgres")).await?;
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !known {
        sqlx::raw_sql("CREATE DATABASE parlance").execute(&mut connection).await?;
    }
    connection.close().await
}

/// The data directory, made where it is missing: enterable for the server's account when we are root.
fn make_data_dir(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(data_dir)
        .and_then(|()| data_dir.canonicalize())
        .map_err(|error| EmbeddedError::files(data_dir, error))
}

fn ask(folder: &Path) -> Result<Asked, EmbeddedError> {
    FolderLock::ask(folder).map_err(|error| EmbeddedError::files(folder, error))
}

/// The end of a program's output, short enough for an error's text.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

#[cfg(test)]
mod tests;
