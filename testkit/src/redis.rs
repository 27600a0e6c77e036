//! Private Redis servers, one or a cluster of three, which live as long as the process that started them at most.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// Runs the servers until the end of its input, then removes everything.
const SUPERVISOR: &str = include_str!("redis.sh");
/// A port that was free may be taken by the time its server wants it.
const TRIES: usize = 5;
const NODES: usize = 3;

/// One Redis server; dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    supervisor: Supervisor,
}

/// A cluster of three masters; dropping it stops them and removes their files.
#[derive(Debug)]
pub struct RedisCluster {
    ports: Vec<u16>,
    supervisor: Supervisor,
}

impl Redis {
    /// Starts a server and waits until it answers. Blocks for some milliseconds.
    pub fn start() -> Result<Self> {
        let (ports, supervisor) = Supervisor::start("one", 1, 1)?;
        Ok(Self { port: ports[0], supervisor })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Has it forget everything that it holds.
    pub fn flush(&self) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        writeln!(stream, "FLUSHALL\r")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        if answer.trim_end() == "+OK" { Ok(()) } else { bail!("FLUSHALL: {answer}") }
    }

    /// The id of its process.
    pub fn pid(&self) -> Result<u32> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        writeln!(stream, "INFO server\r")?;
        for line in BufReader::new(stream).lines().take(100) {
            if let Some(pid) = line?.strip_prefix("process_id:") {
                return pid.trim().parse().context("an id that is no number");
            }
        }
        bail!("the server does not say its id")
    }

    /// Stops it in good order; what it holds is gone.
    pub fn stop(&self) -> Result<()> {
        self.supervisor.order("stop", 0)
    }

    /// Kills it.
    pub fn kill(&self) -> Result<()> {
        self.supervisor.order("kill", 0)
    }

    /// Starts it again, empty, on the port it had.
    pub fn start_again(&self) -> Result<()> {
        self.supervisor.order("start", 0)
    }

    /// Has it hang: its connections stay open, and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.supervisor.order("pause", 0)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.supervisor.order("resume", 0)
    }
}

impl RedisCluster {
    /// Starts the cluster and waits until all agree that it is one. Blocks for some seconds.
    pub fn start() -> Result<Self> {
        let (ports, supervisor) = Supervisor::start("cluster", NODES, 2)?;
        Ok(Self { ports: ports.into_iter().step_by(2).collect(), supervisor })
    }

    /// The URLs of its nodes, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.ports.iter().map(|port| url(*port)).collect::<Vec<_>>().join(",")
    }

    /// The URL of one of its nodes, from 0 on.
    #[must_use]
    pub fn node_url(&self, node: usize) -> String {
        url(self.ports[node])
    }

    /// Kills a node.
    pub fn kill(&self, node: usize) -> Result<()> {
        self.supervisor.order("kill", node)
    }

    /// Starts a node again, empty, on the port it had, with the slots it had.
    pub fn start_again(&self, node: usize) -> Result<()> {
        self.supervisor.order("start", node)
    }

    /// Has a node hang.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.supervisor.order("pause", node)
    }

    /// Lets a node go on.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.supervisor.order("resume", node)
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// Ports that nobody listens on at this moment.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All held at once, so that none comes twice.
    let held = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Who starts and ends the servers.
#[derive(Debug)]
struct Supervisor {
    /// Its ends; the input is held open for as long as the servers shall live.
    ends: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Supervisor {
    /// Starts servers on `ports_each` ports a server.
    fn start(kind: &str, servers: usize, ports_each: usize) -> Result<(Vec<u16>, Self)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let ports = free_ports(servers * ports_each)?;
            match Self::start_on(kind, &ports) {
                Ok(supervisor) => return Ok((ports, supervisor)),
                Err(_) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn start_on(kind: &str, ports: &[u16]) -> Result<Self> {
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "redis.sh", kind])
            .args(ports.iter().map(u16::to_string))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the supervisor of the Redis servers")?;
        let input = supervisor.stdin.take().context("the supervisor's input is piped")?;
        let output = supervisor.stdout.take().context("the supervisor's output is piped")?;
        let mut ends = (input, BufReader::new(output));
        report(&mut ends.1)?;
        Ok(Self { ends: Mutex::new(ends) })
    }

    fn order(&self, order: &str, server: usize) -> Result<()> {
        let (input, output) = &mut *self.ends.lock();
        writeln!(input, "{order} {server}")?;
        report(output)
    }
}

fn report(output: &mut impl BufRead) -> Result<()> {
    let mut report = String::new();
    output.read_line(&mut report)?;
    match report.trim_end() {
        "ready" => Ok(()),
        report => bail!("the Redis servers: {report}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::eventually;

    const BOUND: Duration = Duration::from_mins(1);

    /// What a server answers to a command.
    fn ask(port: u16, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        writeln!(stream, "{command}\r")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    #[tokio::test]
    async fn a_server_can_be_stopped_hung_and_started_again() {
        let redis = Redis::start().unwrap();
        assert_eq!(ask(redis.port, "SET a 1").unwrap(), "+OK");
        redis.pause().unwrap();
        assert!(ask(redis.port, "PING").is_err());
        redis.resume().unwrap();
        assert_eq!(ask(redis.port, "GET a").unwrap(), "$1");
        for end in [Redis::stop, Redis::kill] {
            end(&redis).unwrap();
            assert!(ask(redis.port, "PING").is_err());
            redis.start_again().unwrap();
            assert_eq!(ask(redis.port, "GET a").unwrap(), "$-1");
        }
        let port = redis.port;
        drop(redis);
        eventually("the server is gone", BOUND, async || TcpStream::connect(("127.0.0.1", port)).is_err()).await;
    }

    #[tokio::test]
    async fn a_cluster_has_three_masters_and_gets_over_the_loss_of_one() {
        let cluster = RedisCluster::start().unwrap();
        let said: Vec<String> = cluster.ports.iter().map(|port| ask(*port, "SPUBLISH a b").unwrap()).collect();
        assert_eq!(said.iter().filter(|said| said.starts_with("-MOVED")).count(), 2, "{said:?}");
        cluster.kill(1).unwrap();
        let asked = cluster.ports[0];
        let down = async || ask(asked, "GET a").is_ok_and(|said| said.starts_with("-CLUSTERDOWN"));
        eventually("the others notice", BOUND, down).await;
        cluster.start_again(1).unwrap();
        let up = async || ask(asked, "GET a").is_ok_and(|said| !said.starts_with("-CLUSTERDOWN"));
        eventually("it is whole again", BOUND, up).await;
        let ports = cluster.ports.clone();
        drop(cluster);
        let gone = async || ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err());
        eventually("the servers are gone", BOUND, gone).await;
    }
}
