//! The consumers as processes: started, killed, stopped, asked what they have.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::app::App;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/consumers");
/// How long one may take to read everything to its end: a topic that was wiped is waited for.
const BOUND: Duration = Duration::from_mins(3);

/// By hour and type.
pub(super) type Counts = BTreeMap<String, BTreeMap<String, i64>>;

/// What `cargo xtask test` has installed.
fn installed(variable: &str) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    path.unwrap_or_else(|| panic!("{variable} leads nowhere: run the tests by `cargo xtask test`, which installs it"))
}

fn python() -> Command {
    let mut command = Command::new(installed("PARLANCE_TEST_CONSUMERS_PYTHON"));
    command.current_dir(Path::new(SOURCES).join("python")).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    command
}

/// A folder with the Node consumer in it: modules are looked for beside the files that ask for them.
fn node_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    symlink(installed("PARLANCE_TEST_CONSUMERS_NODE_MODULES"), folder.path().join("node_modules")).unwrap();
    let test = folder.path().join("test");
    fs::create_dir(&test).unwrap();
    for (from, to) in [("node", folder.path()), ("node/test", &test)] {
        for file in fs::read_dir(Path::new(SOURCES).join(from)).unwrap().flatten() {
            if file.path().extension().is_some_and(|extension| extension == "mjs") {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    folder
}

fn node(folder: &TempDir) -> Command {
    let mut command = Command::new("node");
    command.current_dir(folder.path()).stdin(Stdio::null());
    command
}

/// Runs what is not to last, and hands out what it printed.
async fn finish(command: &mut Command) -> String {
    let output = timeout(BOUND, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("not within {BOUND:?}: {command:?}")).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the tests that they bring along.
pub(super) async fn self_tests() {
    finish(python().args(["-m", "unittest"])).await;
    let folder = node_folder();
    finish(node(&folder).args(["--test", "test/"])).await;
}

/// A consumer that runs.
pub(super) struct Keeping {
    child: Child,
    log: PathBuf,
}

impl Keeping {
    /// What it says goes to the end of `log`.
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(file).kill_on_drop(true).spawn().unwrap();
        Self { child, log }
    }

    /// Kills it wherever it is.
    pub(super) async fn kill(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it had ended by itself ({ended:?}): {}", said(&self.log));
        self.child.kill().await.unwrap();
    }

    /// Tells it to stop, and sees that it ends well.
    pub(super) async fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM).unwrap();
        }
        let status = timeout(BOUND, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "it ended with {status}: {}", said(&self.log));
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}, which had ended by itself: {:?}", self.log.display(), self.child.try_wait());
            eprintln!("{}", said(&self.log));
        }
    }
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// `docs/consumers/python`, with a copy of its own.
pub(super) struct ConversationCopy {
    folder: TempDir,
    arguments: [String; 4],
}

impl ConversationCopy {
    /// An empty copy of what this installation publishes.
    pub(super) fn of(app: &App) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), arguments: where_it_is(app) }
    }

    fn command(&self, command: &str) -> Command {
        let mut python = python();
        python.args(["-m", "conversation_copy", "--file"]).arg(self.folder.path().join("copy.sqlite")).arg(command);
        python
    }

    /// Keeps the copy from now on.
    pub(super) fn keep(&self) -> Keeping {
        Keeping::start(self.command("run").args(&self.arguments), self.folder.path().join("log"))
    }

    /// What it said while it was kept.
    pub(super) fn log(&self) -> String {
        said(&self.folder.path().join("log"))
    }

    /// Reads until the end that the topics have now.
    pub(super) async fn read_to_the_end(&self) {
        finish(self.command("run").args(&self.arguments).arg("--once")).await;
    }

    /// Has it read everything again.
    pub(super) async fn forget(&self) {
        finish(&mut self.command("forget")).await;
    }

    /// What it has, as the query API would show it to each member.
    pub(super) async fn dump(&self) -> String {
        finish(&mut self.command("dump")).await
    }
}

/// `docs/consumers/node`, with a count of its own.
pub(super) struct Hours {
    folder: TempDir,
    arguments: [String; 4],
}

impl Hours {
    /// No count yet of what this installation publishes.
    pub(super) fn of(app: &App) -> Self {
        Self { folder: node_folder(), arguments: where_it_is(app) }
    }

    fn command(&self) -> Command {
        let mut node = node(&self.folder);
        node.arg("hours.mjs").args(&self.arguments);
        node
    }

    /// Counts from now on.
    pub(super) fn keep(&self) -> Keeping {
        Keeping::start(&mut self.command(), self.folder.path().join("log"))
    }

    /// What it has in its file.
    pub(super) fn so_far(&self) -> Counts {
        let file = fs::read(self.folder.path().join("hours.json")).unwrap();
        let mut file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        serde_json::from_value(file["hours"].take()).unwrap()
    }

    /// Counts until the end that the topics have now.
    pub(super) async fn read_to_the_end(&self) -> Counts {
        serde_json::from_str(&finish(self.command().arg("--once")).await).unwrap()
    }
}

fn where_it_is(app: &App) -> [String; 4] {
    let brokers = app.place().engines().unwrap().kafka.address().to_owned();
    ["--brokers".to_owned(), brokers, "--server".to_owned(), app.address()]
}
