//! A real Kafka that lives exactly as long as the process that started it, to be stopped, killed and held up at will.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::{sync::OnceCell, task::spawn_blocking};

/// Fetches the jars if need be, runs the broker until the end of its input, then removes everything.
const SUPERVISOR: &str = include_str!("kafka.sh");
/// What names the jars.
const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kafka/pom.xml");
/// `HOST:PORT` of a running broker. Unset: each test process starts its own.
const BROKER_VARIABLE: &str = "PARLANCE_TEST_KAFKA";

static SHARED: OnceCell<Broker> = OnceCell::const_new();

/// A running Kafka of one broker; dropping it stops it and removes its files.
#[derive(Debug)]
pub struct Broker {
    address: String,
    /// `None` for one that somebody else runs.
    supervisor: Option<Arc<Mutex<Supervisor>>>,
}

/// The one who runs the broker, for as long as its input is open.
#[derive(Debug)]
struct Supervisor {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Broker {
    /// A broker of the test's own, empty. Takes some seconds; topics are not made by asking for them.
    pub async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    /// The same with settings of its own, each `NAME=VALUE`.
    pub async fn with(settings: &[&str]) -> Result<Self> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let (supervisor, address) = spawn_blocking(move || Supervisor::start(&settings)).await??;
        Ok(Self { address, supervisor: Some(Arc::new(Mutex::new(supervisor))) })
    }

    /// The broker that all tests share: the one the environment names, else one for this process. Tests tell their
    /// topics apart by names of their own.
    pub async fn shared() -> &'static Self {
        let shared = SHARED.get_or_try_init(async || match env::var(BROKER_VARIABLE) {
            Ok(address) => Ok(Self { address, supervisor: None }),
            // Dropped never: a static keeps it, and it ends with this process.
            Err(_) => Self::start().await,
        });
        shared.await.expect("a Kafka for the tests")
    }

    /// Its address, `HOST:PORT`; the same after another start.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops it in good order.
    pub async fn stop(&self) -> Result<()> {
        self.order("stop").await
    }

    /// Kills it where it stands.
    pub async fn kill(&self) -> Result<()> {
        self.order("kill").await
    }

    /// Starts it again after [`Broker::stop`] or [`Broker::kill`], with the data and on the port that it had.
    pub async fn start_again(&self) -> Result<()> {
        self.order("start").await
    }

    /// Holds it up: its connections stay open, and nothing comes.
    pub async fn pause(&self) -> Result<()> {
        self.order("pause").await
    }

    /// Lets it go on after [`Broker::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.order("resume").await
    }

    /// The id of its process.
    pub fn pid(&self) -> Result<u32> {
        let supervisor = self.supervisor.as_ref().context("the broker is somebody else's")?;
        supervisor.lock().order("pid")?.parse().context("the broker does not run")
    }

    async fn order(&self, order: &'static str) -> Result<()> {
        let supervisor = self.supervisor.clone().context("the broker is somebody else's")?;
        let answer = spawn_blocking(move || supervisor.lock().order(order)).await??;
        match answer.as_str() {
            "done" => Ok(()),
            answer if answer.starts_with("ready ") => Ok(()),
            answer => bail!("{order}: {answer}"),
        }
    }
}

impl Supervisor {
    fn start(settings: &[String]) -> Result<(Self, String)> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "kafka.sh", POM])
            .args(settings)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the test broker's supervisor")?;
        let orders = child.stdin.take().context("the supervisor's input is piped")?;
        let answers = BufReader::new(child.stdout.take().context("the supervisor's output is piped")?);
        let mut supervisor = Self { orders, answers };
        let report = supervisor.answer()?;
        match report.strip_prefix("ready ") {
            Some(address) => Ok((supervisor, address.to_owned())),
            None => bail!("the test broker did not start: {report}"),
        }
    }

    fn order(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpStream, path::PathBuf, time::Duration};

    use super::*;
    use crate::eventually;

    fn answers(broker: &Broker) -> bool {
        TcpStream::connect(broker.address()).is_ok()
    }

    /// The folder of the broker at this address, by its process's command line and working directory.
    fn folder(broker: &Broker) -> Option<PathBuf> {
        let listener = format!("127.0.0.1:{}", broker.address().rsplit_once(':')?.1);
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).find(|folder| {
            fs::read_to_string(folder.join("server.properties")).is_ok_and(|text| text.contains(&listener))
        })
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_broker_that_was_dropped() {
        let broker = Broker::start().await.unwrap();
        assert!(answers(&broker));
        let files = folder(&broker).expect("it runs in its folder");
        broker.pause().await.unwrap();
        drop(broker);
        eventually("the folder is gone", Duration::from_secs(20), async || !files.exists()).await;
    }

    #[tokio::test]
    async fn a_broker_comes_back_at_its_address_with_its_data() {
        let broker = Broker::start().await.unwrap();
        let files = folder(&broker).expect("it runs in its folder");
        let id = fs::read_to_string(files.join("data/meta.properties")).unwrap();
        broker.kill().await.unwrap();
        assert!(!answers(&broker));
        broker.start_again().await.unwrap();
        assert!(answers(&broker));
        broker.stop().await.unwrap();
        assert!(!answers(&broker));
        broker.start_again().await.unwrap();
        assert_eq!(fs::read_to_string(files.join("data/meta.properties")).unwrap(), id);
    }

    #[tokio::test]
    async fn a_broker_that_cannot_start_says_why() {
        let error = Broker::with(&["node.id=none"]).await.unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
