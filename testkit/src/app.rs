//! Runs the real `parlance` binary on a data directory of its own: starts it, kills it, starts it again, stops it.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use parlance_client::{Backoff, Server};
use rustix::process::{Pid, Signal};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::eventually;

/// How long a start may take: a new cluster, or the recovery of one that was killed.
const START_BOUND: Duration = Duration::from_mins(2);
/// How long a stop may take: the contract's ten seconds, and some for a machine that is busy.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// How often a port that is not free yet is tried again.
const PORT_TRIES: usize = 20;

/// A place for the data of one installation, gone when dropped; it outlives each [`App`] that runs on it.
#[derive(Debug, Clone)]
pub struct Place {
    binary: PathBuf,
    folder: Arc<TempDir>,
    environment: Vec<(String, String)>,
}

impl Place {
    /// An empty place for this binary. Rate limits are off: tests and load do what no person does.
    pub fn new(binary: impl Into<PathBuf>) -> anyhow::Result<Self> {
        // The account that runs PostgreSQL for root may pass through, so that everything lies in here.
        let folder = tempfile::Builder::new()
            .prefix("parlance-app-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()
            .context("no temporary folder")?;
        let environment = vec![("PARLANCE_RATE_LIMITS".to_owned(), "off".to_owned())];
        Ok(Self { binary: binary.into(), folder: Arc::new(folder), environment })
    }

    /// The same place, with another variable in the environment of what runs there.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What the server writes to its standard error, over all starts.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("parlance.log")
    }

    /// The end of that, for a message about what went wrong.
    pub fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }

    /// A command of the binary, with the place's environment and none of ours that it would listen to.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars() {
            let listened_to = name.starts_with("PARLANCE_") || name == "DATABASE_URL";
            if listened_to {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts everything in one process, on a port that is free.
    pub async fn start(&self) -> anyhow::Result<App> {
        self.start_on(0).await
    }

    async fn start_on(&self, port: u16) -> anyhow::Result<App> {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().context("a temporary folder with a name that is no text")?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut child = self
            .command(&["up", "--listen", &format!("127.0.0.1:{port}"), "--data-dir", data_dir])
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not start", self.binary.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).context("it has no id")?;
        let stdout = child.stdout.take().context("it has no output")?;
        let mut app = App { place: self.clone(), child, pid, address: String::new() };
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("ready on ") {
                    return Ok(address.trim().to_owned());
                }
            }
            Err(anyhow!("it ended before it was ready"))
        };
        app.address = match timeout(START_BOUND, ready).await {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => {
                let status = app.child.wait().await?;
                bail!("{error} ({status}); its log ends with:\n{}", self.log_end());
            }
            Err(_) => bail!("not ready within {START_BOUND:?}; its log ends with:\n{}", self.log_end()),
        };
        // Whatever else it says is read, so that it never waits for us.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(app)
    }
}

/// A running installation. Dropped, it is killed, its PostgreSQL too.
#[derive(Debug)]
pub struct App {
    place: Place,
    child: Child,
    pid: Pid,
    address: String,
}

impl App {
    /// The address it serves, such as `http://127.0.0.1:40123`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server, for clients that do not wait long before they try again.
    pub fn server(&self) -> Server {
        let backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_millis(500) };
        Server::new(&self.address).expect("it printed an address").with_retries(40, backoff)
    }

    /// The id of the server's process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The place it runs in.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The id of the PostgreSQL server's first process.
    pub fn postmaster(&self) -> anyhow::Result<u32> {
        postmaster(&self.place.data_dir())
    }

    /// How to connect to its database.
    pub async fn database(&self) -> anyhow::Result<PgConnectOptions> {
        let cluster = platform::postgres::Embedded::attach_or_start(&self.place.data_dir()).await?;
        ensure!(cluster.is_attached(), "the server was gone: its cluster was started by us");
        Ok(cluster.options().clone())
    }

    /// Kills the server (SIGKILL to its process group) in the middle of whatever it does; PostgreSQL stays.
    pub async fn kill(mut self) -> anyhow::Result<Place> {
        self.kill_group();
        self.child.wait().await?;
        Ok(self.place.clone())
    }

    /// The same, and PostgreSQL's first process with it, at the same moment.
    pub async fn kill_with_postgres(mut self) -> anyhow::Result<Place> {
        let postmaster = self.postmaster()?;
        self.kill_group();
        kill_one(postmaster, Signal::KILL);
        self.child.wait().await?;
        Ok(self.place.clone())
    }

    /// Kills the server, PostgreSQL with it if asked, and starts it again on the same data and the same port.
    pub async fn kill_and_restart(self, with_postgres: bool) -> anyhow::Result<Self> {
        let port = self.port()?;
        let place = if with_postgres { self.kill_with_postgres().await? } else { self.kill().await? };
        place.start_again_on(port).await
    }

    /// Stops the server as a service manager would (SIGTERM), and says how it ended.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        kill_one(self.pid(), Signal::TERM);
        let place = self.place.clone();
        timeout(STOP_BOUND, self.child.wait())
            .await
            .with_context(|| format!("it did not stop within {STOP_BOUND:?}; its log ends with:\n{}", place.log_end()))?
            .context("its end was not seen")
    }

    /// The same, then starts it again on the same data and the same port.
    pub async fn stop_and_restart(self) -> anyhow::Result<Self> {
        let (port, place) = (self.port()?, self.place.clone());
        let status = self.stop().await?;
        ensure!(status.success(), "it ended with {status}; its log ends with:\n{}", place.log_end());
        place.start_again_on(port).await
    }

    fn port(&self) -> anyhow::Result<u16> {
        let port = self.address.rsplit(':').next().context("an address without a port")?;
        port.trim_end_matches('/').parse().context("a port that is no number")
    }

    fn kill_group(&self) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }
}

impl Place {
    /// A port that somebody used for a moment meanwhile is tried again.
    async fn start_again_on(&self, port: u16) -> anyhow::Result<App> {
        let mut tries = 0;
        loop {
            match self.start_on(port).await {
                Ok(app) => return Ok(app),
                Err(error) if tries + 1 == PORT_TRIES => return Err(error),
                Err(_) if !port_is_free(port) => {
                    tries += 1;
                    eventually("the port is free again", STOP_BOUND, async || port_is_free(port)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Ended already, if its output is gone: then what it left running, if anything, is not ours to judge.
        if self.child.id().is_some() {
            self.kill_group();
            if let Ok(postmaster) = self.postmaster() {
                kill_one(postmaster, Signal::QUIT);
            }
        }
    }
}

fn port_is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn kill_one(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The first process of the private cluster of a data directory.
fn postmaster(data_dir: &Path) -> anyhow::Result<u32> {
    let home = match fs::read_to_string(data_dir.join("postgres.location")) {
        Ok(elsewhere) => PathBuf::from(elsewhere.trim_end()),
        Err(_) => data_dir.join("postgres"),
    };
    let file = home.join("data/postmaster.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    text.lines().next().and_then(|line| line.trim().parse().ok()).context("postmaster.pid begins with no id")
}
