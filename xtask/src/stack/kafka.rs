//! Apache Kafka of the stack: broker and controller in one process, on loopback ports.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::Result;
use rustix::process::Signal;

use super::{daemon::Daemon, engine::Engine, ports, ports::KeptPort};
use crate::workspace::{cache, root, run};

/// What makes its configuration, fetches its jars and becomes it; the tests' brokers are run by the same.
const SCRIPT: &str = "testkit/src/kafka.sh";
const POM: &str = "deploy/kafka/pom.xml";
/// Longer-lived than those of the tests: compiled well, with some room.
const JAVA_OPTIONS: &str = "-Xms256m -Xmx512m -XX:+UseSerialGC";
const ANSWER_BOUND: Duration = Duration::from_secs(2);

/// A clean end spares it the recovery of its logs.
const SIGNALS: &[(Signal, Duration)] = &[(Signal::TERM, Duration::from_secs(30))];

#[derive(Debug)]
pub(super) struct Kafka {
    folder: PathBuf,
}

impl Kafka {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Asks for the versions of the protocol: answered once it is ready to be a broker.
    fn answers(&self) -> Result<bool> {
        const ASKED_VERSIONS: i16 = 18;
        const CORRELATION: i32 = 7;
        let mut connection = TcpStream::connect(self.address())?;
        connection.set_read_timeout(Some(ANSWER_BOUND))?;
        let mut request = Vec::new();
        request.extend(ASKED_VERSIONS.to_be_bytes());
        request.extend(0_i16.to_be_bytes()); // version of the request
        request.extend(CORRELATION.to_be_bytes());
        request.extend((-1_i16).to_be_bytes()); // no client id
        let length = i32::try_from(request.len())?;
        connection.write_all(&[&length.to_be_bytes()[..], &request].concat())?;
        let mut answer = [0; 10];
        connection.read_exact(&mut answer)?;
        Ok(answer[4..8] == CORRELATION.to_be_bytes() && answer[8..10] == [0, 0])
    }
}

impl Engine for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn daemon(&self) -> Daemon {
        Daemon::new(&self.folder)
    }

    fn port(&self) -> KeptPort {
        KeptPort::new(&self.folder, "port")
    }

    fn variable(&self) -> Result<(&'static str, String)> {
        Ok(("KAFKA_BROKERS", self.address()))
    }

    /// Fetches the jars where they are missing.
    fn install(&self) -> Result<()> {
        run(Command::new("sh")
            .arg(root().join(SCRIPT))
            .arg(root().join(POM))
            .arg("--fetch")
            .env("PARLANCE_CACHE", cache()))
    }

    fn start(&self) -> Result<()> {
        let data = self.folder.join("data");
        fs::create_dir_all(&data)?;
        let mut command = Daemon::command("sh");
        command
            .arg(root().join(SCRIPT))
            .arg(root().join(POM))
            .arg("--data")
            .arg(&data)
            .args(["--port", &self.port().choose()?.to_string()])
            .args(["--exec", &ports::free()?.to_string()])
            .env("PARLANCE_CACHE", cache())
            .env("KAFKA_JAVA_OPTIONS", JAVA_OPTIONS);
        self.daemon().start(command)
    }

    fn is_healthy(&self) -> bool {
        self.answers().unwrap_or(false)
    }

    fn signals(&self) -> &'static [(Signal, Duration)] {
        SIGNALS
    }
}
