//! A private PostgreSQL server that lives exactly as long as the process that started it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// Makes the cluster, runs it until the end of its input, then removes everything.
const SUPERVISOR: &str = include_str!("cluster.sh");

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
    supervisor: Mutex<Supervisor>,
}

/// The one who runs the server, for as long as its input is open.
#[derive(Debug)]
struct Supervisor {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Cluster {
    /// Makes a new cluster in a temporary folder and waits until it takes connections. Blocks for a second or two.
    pub fn start(durability: Durability) -> Result<Self> {
        Self::make(durability, "")
    }

    /// Makes a streaming replica of this one, which only reads and follows by itself. Blocks for a second or two.
    pub fn replica(&self) -> Result<Self> {
        Self::make(Durability::None, self.folder.to_str().context("a folder with a name that is no text")?)
    }

    fn make(durability: Durability, primary: &str) -> Result<Self> {
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "cluster.sh"])
            .env("CLUSTER_PRIMARY", primary)
            .args(["max_connections=400", "max_wal_size=4GB", "jit=off"])
            .args(durability.settings())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the test cluster's supervisor")?;
        let orders = supervisor.stdin.take().context("the supervisor's input is piped")?;
        let answers = BufReader::new(supervisor.stdout.take().context("the supervisor's output is piped")?);
        let mut supervisor = Supervisor { orders, answers };
        let folder = supervisor.ready()?;
        Ok(Self { folder, supervisor: Mutex::new(supervisor) })
    }

    /// Kills the server's first process and waits until another one on the same data takes connections. Blocks.
    pub fn crash(&self) -> Result<()> {
        let mut supervisor = self.supervisor.lock();
        writeln!(supervisor.orders, "crash")?;
        supervisor.ready().map(drop)
    }

    /// Kills the server's first process, and with it all others.
    pub fn kill(&self) -> Result<()> {
        let mut supervisor = self.supervisor.lock();
        writeln!(supervisor.orders, "kill")?;
        match supervisor.answer()?.as_str() {
            "killed" => Ok(()),
            other => bail!("the test cluster was not killed: {other}"),
        }
    }

    /// Starts it again after [`Cluster::kill`], and waits until it takes connections. Blocks.
    pub fn start_again(&self) -> Result<()> {
        let mut supervisor = self.supervisor.lock();
        writeln!(supervisor.orders, "start")?;
        supervisor.ready().map(drop)
    }

    /// The id of the server's first process.
    pub fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        text.lines().next().and_then(|line| line.trim().parse().ok()).context("postmaster.pid begins with no id")
    }

    /// The superuser's URL of the maintenance database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.display())
    }
}

impl Supervisor {
    fn ready(&mut self) -> Result<PathBuf> {
        let report = self.answer()?;
        match report.strip_prefix("ready ") {
            Some(folder) => Ok(folder.into()),
            None => bail!("the test cluster did not start: {report}"),
        }
    }

    fn answer(&mut self) -> Result<String> {
        let mut report = String::new();
        self.answers.read_line(&mut report)?;
        Ok(report.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::{Connection, PgConnection};

    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn nothing_is_left_of_a_cluster_that_was_dropped() {
        let cluster = Cluster::start(Durability::Full).unwrap();
        let folder = cluster.folder.clone();
        let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
        let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut connection).await.unwrap();
        assert_eq!(fsync, "on");
        sqlx::raw_sql("CREATE TABLE kept ()").execute(&mut connection).await.unwrap();
        cluster.crash().unwrap();
        assert!(sqlx::raw_sql("SELECT 1").execute(&mut connection).await.is_err());
        let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
        sqlx::raw_sql("SELECT FROM kept").execute(&mut connection).await.unwrap();
        drop(cluster);
        eventually("the folder is gone", Duration::from_secs(20), async || !folder.exists()).await;
    }
}
