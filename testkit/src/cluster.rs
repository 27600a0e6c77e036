//! A private PostgreSQL server that lives exactly as long as the process that started it.

use std::{
    env,
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{ChildStdin, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use platform::postgres::Installation;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

/// Initialises and starts the cluster, waits for the end of its input, then removes everything.
const SUPERVISOR: &str = include_str!("cluster.sh");
const START_BOUND: Duration = Duration::from_mins(1);
/// Leaves room for our own folder and `/.s.PGSQL.5432` in the 107 bytes of a Unix socket's path.
const LONGEST_TEMP_FOLDER: usize = 70;

/// What a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Commits survive nothing, and cost nothing: for tests that crash no engine.
    None,
    /// PostgreSQL's own default: a commit that was answered survives a crash.
    Full,
}

impl Durability {
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::None => &["fsync=off", "synchronous_commit=off", "full_page_writes=off"],
            Self::Full => &[],
        }
    }
}

/// A running private cluster; dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    /// Held open for as long as the cluster shall live.
    _lifeline: ChildStdin,
}

impl Cluster {
    /// Makes a new cluster in a temporary folder and waits until it takes connections.
    pub async fn start(durability: Durability) -> Result<Self> {
        let installation = Installation::find(None)?;
        let folder = new_folder(&installation)?;
        let mut supervisor = installation
            .command("/bin/sh")
            .args(["-c", SUPERVISOR, "parlance-test-cluster"])
            .args([installation.bin(), &folder])
            // A server writes at leisure here: nothing of it outlives the tests.
            .args(["listen_addresses=", "max_connections=400", "max_wal_size=4GB", "jit=off"])
            .args(durability.settings())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the test cluster's supervisor")?;
        let lifeline = supervisor.stdin.take().context("the supervisor's input is piped")?;
        let cluster = Self { folder, _lifeline: lifeline };

        let mut report = String::new();
        let output = supervisor.stdout.take().context("the supervisor's output is piped")?;
        BufReader::new(output.take(64)).read_line(&mut report)?;
        if report.trim_end() != "started" {
            bail!("initdb failed:\n{}", cluster.log());
        }
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// The superuser's URL of the maintenance database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.display())
    }

    /// What the server has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let url = self.url();
        let deadline = Instant::now() + START_BOUND;
        loop {
            match PgConnection::connect(&url).await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(format!("the test cluster takes no connections:\n{}", self.log()));
                }
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// A folder of the server's own account, in which only that account (and root) may look: whoever gets at the
/// socket in it is a superuser.
fn new_folder(installation: &Installation) -> Result<PathBuf> {
    let parent = Some(env::temp_dir())
        .filter(|folder| folder.as_os_str().len() <= LONGEST_TEMP_FOLDER)
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    let folder = tempfile::Builder::new()
        .prefix("parlance-test-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?
        .keep();
    installation.give(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn nothing_is_left_of_a_cluster_that_was_dropped() {
        let cluster = Cluster::start(Durability::Full).await.unwrap();
        let folder = cluster.folder.clone();
        let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
        let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut connection).await.unwrap();
        assert_eq!(fsync, "on");
        drop(cluster);
        eventually("the folder is gone", Duration::from_secs(20), async || !folder.exists()).await;
    }
}
