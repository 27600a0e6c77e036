//! Redis of the stack: behind a password on a loopback port.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use anyhow::Result;
use rustix::process::Signal;

use super::{daemon::Daemon, engine::Engine, ports::KeptPort, secrets};

const ANSWER_BOUND: Duration = Duration::from_secs(1);

/// It writes its snapshot first.
const SIGNALS: &[(Signal, Duration)] = &[(Signal::TERM, Duration::from_secs(20))];

#[derive(Debug)]
pub(super) struct Redis {
    folder: PathBuf,
}

impl Redis {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn password(&self) -> Result<String> {
        secrets::kept(&self.folder.join("password"))
    }

    /// Whether it takes our password and answers, with its data loaded.
    fn answers(&self) -> Result<bool> {
        let mut connection = TcpStream::connect(self.address())?;
        connection.set_read_timeout(Some(ANSWER_BOUND))?;
        write!(connection, "AUTH {}\r\nPING\r\n", self.password()?)?;
        let mut lines = BufReader::new(connection).lines();
        let said = (lines.next().transpose()?, lines.next().transpose()?);
        Ok(matches!((said.0.as_deref(), said.1.as_deref()), (Some("+OK"), Some("+PONG"))))
    }
}

impl Engine for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn daemon(&self) -> Daemon {
        Daemon::new(&self.folder)
    }

    fn port(&self) -> KeptPort {
        KeptPort::new(&self.folder, "port")
    }

    fn variable(&self) -> Result<(&'static str, String)> {
        Ok(("REDIS_URL", format!("redis://default:{}@{}", self.password()?, self.address())))
    }

    fn start(&self) -> Result<()> {
        let data = self.folder.join("data");
        fs::create_dir_all(&data)?;
        // In a file: a command line is everybody's to read.
        let file = self.folder.join("redis.conf");
        let mut settings = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
        write!(
            settings,
            "bind 127.0.0.1\nport {}\nrequirepass {}\ndir \"{}\"\n\
             # Nothing lies here alone; a snapshot now and then, and at the end, spares warming up.\n\
             appendonly no\nsave 900 1\ndaemonize no\n",
            self.port().choose()?,
            self.password()?,
            data.display(),
        )?;
        let mut command = Daemon::command("redis-server");
        command.arg(file);
        self.daemon().start(command)
    }

    fn is_healthy(&self) -> bool {
        self.answers().unwrap_or(false)
    }

    fn signals(&self) -> &'static [(Signal, Duration)] {
        SIGNALS
    }
}
