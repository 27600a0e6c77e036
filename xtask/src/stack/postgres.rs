//! PostgreSQL of the stack: a cluster at its default durability, and a database whose owner is no superuser.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{daemon::Daemon, engine::Engine, ports::KeptPort, secrets};
use crate::packages::{is_root, on_path};

/// Where Debian keeps the programs of each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// The account that Debian's package makes: PostgreSQL refuses to run as root.
const ACCOUNT: &str = "postgres";
/// Where the cluster lies if that account may not enter the stack's folder, as under root's home.
const ELSEWHERE: &str = "/var/lib/parlance";
/// In such a cluster's folder: the stack that it belongs to, for whoever cleans up by hand.
const BELONGS_TO: &str = "belongs-to";

/// `fsync`, `synchronous_commit` and `full_page_writes` stay as they come: an answered commit survives a crash. The rest
/// is that of the private cluster of `parlance up`, with room for the connections of all roles.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=256MB",
    "wal_buffers=16MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=10min",
    "jit=off",
    "max_parallel_workers_per_gather=0",
    "random_page_cost=1.1",
    "autovacuum_naptime=15s",
    "autovacuum_vacuum_cost_limit=1000",
    "idle_in_transaction_session_timeout=60s",
    "log_line_prefix=%m [%p] %a ",
];

/// Cuts connections and writes a checkpoint; then without one.
const SIGNALS: &[(Signal, Duration)] =
    &[(Signal::INT, Duration::from_secs(40)), (Signal::QUIT, Duration::from_secs(10))];

#[derive(Debug)]
pub(super) struct Postgres {
    folder: PathBuf,
}

impl Postgres {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn password(&self) -> Result<String> {
        secrets::kept(&self.folder.join("password"))
    }

    /// Says where the cluster's folder is, if that is elsewhere.
    fn pointer(&self) -> PathBuf {
        self.folder.join("location")
    }

    /// The cluster's folder (`PGDATA`), if there is one.
    fn cluster(&self) -> Option<PathBuf> {
        let home = fs::read_to_string(self.pointer())
            .map_or_else(|_| self.folder.clone(), |elsewhere| PathBuf::from(elsewhere.trim_end()));
        Some(home.join("data")).filter(|data| data.join("PG_VERSION").is_file())
    }

    /// Makes the cluster and the database. It gets its name when it is whole: what broke off is done again.
    fn make(&self, bin: &Path) -> Result<PathBuf> {
        let home = self.home()?;
        let (draft, data) = (home.join("data.new"), home.join("data"));
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        fs::DirBuilder::new().mode(0o700).create(&draft)?;
        give(&draft)?;
        let output = as_account(&bin.join("initdb"))
            .arg("--pgdata")
            .arg(&draft)
            .args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-instructions"])
            // Nobody comes in as the superuser; replaced below for the one who may.
            .arg("--auth=reject")
            .stdin(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        // In a single-user server: no door has to be open for it.
        let mut single = as_account(&bin.join("postgres"))
            .arg("--single")
            .arg("-D")
            .arg(&draft)
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run a single-user server")?;
        let orders = format!(
            "CREATE ROLE parlance LOGIN PASSWORD '{}'\nCREATE DATABASE parlance OWNER parlance\n",
            self.password()?
        );
        single.stdin.take().context("the input is piped")?.write_all(orders.as_bytes())?;
        let output = single.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("ERROR:"), "the database was not made: {}", said.trim_end());
        fs::write(draft.join("pg_hba.conf"), "host parlance parlance 127.0.0.1/32 scram-sha-256\n")?;
        fs::rename(&draft, &data)?;
        Ok(data)
    }

    /// The folder that the cluster lies in: the stack's own, where the account may enter it.
    fn home(&self) -> Result<PathBuf> {
        if let Ok(elsewhere) = fs::read_to_string(self.pointer()) {
            let elsewhere = PathBuf::from(elsewhere.trim_end());
            ensure!(
                elsewhere.is_dir(),
                "{} says that the cluster lies in {}, and there is none: restore it, or remove that file",
                self.pointer().display(),
                elsewhere.display()
            );
            return Ok(elsewhere);
        }
        if may_enter(&self.folder) {
            return Ok(self.folder.clone());
        }
        let home = Path::new(ELSEWHERE).join(format!("stack-{}", secrets::token::<8>()?));
        fs::create_dir_all(&home)?;
        fs::write(home.join(BELONGS_TO), format!("{}\n", self.folder.display()))?;
        fs::write(self.pointer(), format!("{}\n", home.display()))?;
        eprintln!("xtask: the account {ACCOUNT} may not enter {}: data in {}", self.folder.display(), home.display());
        Ok(home)
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn daemon(&self) -> Daemon {
        Daemon::new(&self.folder)
    }

    fn port(&self) -> KeptPort {
        KeptPort::new(&self.folder, "port")
    }

    fn variable(&self) -> Result<(&'static str, String)> {
        Ok(("DATABASE_URL", format!("postgres://parlance:{}@{}/parlance", self.password()?, self.address())))
    }

    fn start(&self) -> Result<()> {
        let cluster = self.cluster();
        let bin = programs(cluster.as_deref())?;
        let cluster = match cluster {
            Some(cluster) => cluster,
            None => self.make(&bin)?,
        };
        let mut command = Daemon::command("env");
        // `setsid` becomes `env`, that the server's account, that the server: one process all along.
        command.args(["-u", "PGDATA", "-u", "PGPORT", "-u", "PGHOST", "-u", "PGUSER", "-u", "PGOPTIONS", "LC_ALL=C"]);
        if is_root() {
            command.args(step_down());
        }
        command.arg(bin.join("postgres")).arg("-D").arg(&cluster);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("port={}", self.port().choose()?)]).current_dir("/");
        self.daemon().start(command)
    }

    fn is_healthy(&self) -> bool {
        let (Some(port), Ok(bin)) = (self.port().get(), programs(self.cluster().as_deref())) else {
            return false;
        };
        Command::new(bin.join("pg_isready"))
            .args(["--quiet", "--timeout=2", "--host=127.0.0.1", "--port", &port.to_string()])
            .status()
            .is_ok_and(|status| status.success())
    }

    fn signals(&self) -> &'static [(Signal, Duration)] {
        SIGNALS
    }

    fn wipe(&self) -> Result<()> {
        let Ok(elsewhere) = fs::read_to_string(self.pointer()) else {
            return Ok(());
        };
        let elsewhere = Path::new(elsewhere.trim_end());
        let owner = fs::read_to_string(elsewhere.join(BELONGS_TO)).unwrap_or_default();
        if Path::new(owner.trim_end()) == self.folder {
            fs::remove_dir_all(elsewhere)?;
        }
        Ok(())
    }
}

/// The folder of the server's programs: of the version that wrote the cluster, else the newest.
fn programs(cluster: Option<&Path>) -> Result<PathBuf> {
    let written = cluster.map(|data| fs::read_to_string(data.join("PG_VERSION"))).transpose()?;
    let mut packaged: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_ROOT)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    packaged.sort_unstable();
    let found = match written.as_deref().map(str::trim) {
        Some(version) => packaged.into_iter().find(|(major, _)| version == major.to_string()),
        None => packaged.pop(),
    };
    match found.map(|(_, bin)| bin).or_else(|| on_path("initdb")?.parent().map(Path::to_owned)) {
        Some(bin) => Ok(bin),
        None => bail!("no PostgreSQL server is installed, or not the version {written:?} that wrote the data"),
    }
}

/// A program of the server's, as the account that may run it.
fn as_account(program: &Path) -> Command {
    let mut command = if is_root() {
        let [first, others @ ..] = step_down();
        let mut command = Command::new(first);
        command.args(others).arg(program);
        command
    } else {
        Command::new(program)
    };
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").current_dir("/");
    command
}

fn step_down() -> [&'static str; 4] {
    ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
}

/// Asked as the account itself: permissions of all parents have their say.
fn may_enter(folder: &Path) -> bool {
    as_account(Path::new("test")).arg("-x").arg(folder).status().is_ok_and(|status| status.success())
}

/// Hands a folder to the account.
fn give(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    if is_root() {
        let status = Command::new("chown").arg(format!("{ACCOUNT}:{ACCOUNT}")).arg(folder).status()?;
        ensure!(status.success(), "there is no account {ACCOUNT} to run PostgreSQL as");
    }
    Ok(())
}
