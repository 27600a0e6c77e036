//! Roles apart: two command-apis, two query-apis, three projectors and two relays on real PostgreSQL, Kafka and Redis,
//! behind nginx with the configuration that is shipped.

use std::{fmt, process::ExitStatus};

use anyhow::{Context, ensure};
use futures::future::{join_all, try_join_all};
use rustix::process::Signal;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::task::spawn_blocking;

use super::{
    Place, Watched,
    front::Front,
    process::{Process, free_port},
};
use crate::{Cluster, Durability, kafka::Broker, redis::Redis};

/// The database and the role that owns it, which needs no more.
const OWNER: &str = "parlance_app";

/// Real engines of a test's own; dropped, they are gone.
#[derive(Debug)]
pub struct Engines {
    postgres: Cluster,
    database: PgConnectOptions,
    /// Kafka.
    pub kafka: Broker,
    /// Redis.
    pub redis: Redis,
}

impl Engines {
    /// Starts them side by side.
    pub async fn start() -> anyhow::Result<Self> {
        let (postgres, kafka, redis) = tokio::join!(
            spawn_blocking(|| Cluster::start(Durability::Full)),
            Broker::start(),
            spawn_blocking(Redis::start),
        );
        let (postgres, kafka, redis) = (postgres??, kafka?, redis??);
        let admin: PgConnectOptions = postgres.url().parse()?;
        let mut connection = PgConnection::connect_with(&admin).await?;
        for statement in ["CREATE ROLE parlance_app LOGIN", "CREATE DATABASE parlance_app OWNER parlance_app"] {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        connection.close().await?;
        let database = admin.username(OWNER).database(OWNER);
        Ok(Self { postgres, database, kafka, redis })
    }

    /// How to connect to the database.
    pub fn database(&self) -> &PgConnectOptions {
        &self.database
    }

    /// A streaming replica of the database, and its URL. Blocks.
    pub fn replica(&self) -> anyhow::Result<(Cluster, String)> {
        let replica = self.postgres.replica()?;
        let database: PgConnectOptions = replica.url().parse()?;
        let url = database.username(OWNER).database(OWNER).to_url_lossy();
        Ok((replica, url.into()))
    }

    /// What tells the binary where they are.
    pub(super) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("DATABASE_URL", self.database.to_url_lossy().into()),
            ("KAFKA_BROKERS", self.kafka.address().to_owned()),
            ("REDIS_URL", self.redis.url()),
            ("PARLANCE_MASTER_KEY", "a key for tests alone, of more than 32 characters".to_owned()),
            ("PARLANCE_TRUSTED_PROXIES", "127.0.0.1".to_owned()),
        ]
    }

    /// Their first processes.
    pub(super) fn watched(&self) -> anyhow::Result<Vec<Watched>> {
        Ok(vec![
            Watched::engine("postgres", self.postgres.pid()?),
            Watched::engine("kafka", self.kafka.pid()?),
            Watched::engine("redis", self.redis.pid()?),
        ])
    }

    /// Kills PostgreSQL's first process and waits until it is there again. Blocks.
    pub fn crash_postgres(&self) -> anyhow::Result<()> {
        self.postgres.crash()
    }
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes commands.
    CommandApi,
    /// Shows and streams.
    QueryApi,
    /// Fills the read models.
    Projectors,
    /// Publishes the log.
    Relay,
}

impl Role {
    /// In the order in which they start: whoever is asked before whoever asks.
    const ALL: [Self; 4] = [Self::CommandApi, Self::Relay, Self::Projectors, Self::QueryApi];

    fn count(self) -> usize {
        match self {
            Self::Projectors => 3,
            Self::CommandApi | Self::QueryApi | Self::Relay => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projectors => "projectors",
            Self::Relay => "relay",
        }
    }
}

/// What is done to a running stack, and mended again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Every process of Parlance is killed, and started again.
    Everything,
    /// The same, and PostgreSQL's first process.
    EverythingAndPostgres,
    /// One process of this role is killed, and started again.
    One(Role),
    /// All of this role are killed, and started again.
    All(Role),
    /// One process of this role is held up, until it is let go, and another takes its place.
    Hang(Role),
    /// One process of this role is told to stop, and another started.
    Replace(Role),
    /// PostgreSQL's first process is killed.
    Postgres,
    /// Kafka is killed, and started again.
    Kafka,
    /// Redis is killed, and started again, empty.
    Redis,
}

/// The processes, and nginx before them.
#[derive(Debug)]
pub struct RolesApart {
    members: Vec<Member>,
    front: Front,
    /// Held up by a blow: they stay so until they are let go.
    hung: Vec<Process>,
    /// Which of a role's processes the next blow hits.
    turn: usize,
}

#[derive(Debug)]
struct Member {
    role: Role,
    port: u16,
    process: Process,
}

impl Member {
    /// Starts it on a port that it keeps, since nginx knows it by that.
    async fn start(place: &Place, role: Role, port: u16) -> anyhow::Result<Self> {
        let listen = format!("127.0.0.1:{port}");
        let url = format!("http://{listen}");
        let command = || {
            let mut command = place.command(&["serve", "--roles", role.name(), "--listen", &listen]);
            command.env("PARLANCE_ADVERTISE_URL", &url);
            command
        };
        let process = Process::start_on(port, command, &place.log()).await;
        Ok(Self { role, port, process: process.with_context(|| role.name())? })
    }

    async fn start_again(&mut self, place: &Place) -> anyhow::Result<()> {
        *self = Self::start(place, self.role, self.port).await?;
        Ok(())
    }
}

impl RolesApart {
    /// How many processes they are.
    pub fn count() -> usize {
        Role::ALL.into_iter().map(Role::count).sum()
    }

    pub(super) async fn start(place: &Place) -> anyhow::Result<Self> {
        let mut starting = Vec::new();
        for role in Role::ALL {
            for _ in 0..role.count() {
                let port = free_port()?;
                starting.push(Member::start(place, role, port));
            }
        }
        let members = try_join_all(starting).await?;
        let ports = |role| members.iter().filter(move |member| member.role == role).map(|member| member.port);
        let front = Front::start(place.folder(), ports(Role::CommandApi), ports(Role::QueryApi)).await?;
        Ok(Self { members, front, hung: Vec::new(), turn: 0 })
    }

    pub(super) fn port(&self) -> u16 {
        self.front.port()
    }

    pub(super) fn watched(&self) -> Vec<Watched> {
        let server = |member: &Member| Watched::server(member.role.name(), member.process.pid());
        let nginx = Watched::engine("nginx", self.front.pid());
        self.members.iter().filter(|member| member.process.is_running()).map(server).chain([nginx]).collect()
    }

    /// The addresses of the processes of a role, which answer `/health/ready` and `/metrics`.
    pub fn addresses(&self, role: Role) -> Vec<String> {
        let members = self.members.iter().filter(|member| member.role == role);
        members.map(|member| format!("http://127.0.0.1:{}", member.port)).collect()
    }

    /// Stops every process of a role.
    pub async fn take_away(&mut self, place: &Place, role: Role) -> anyhow::Result<()> {
        let log = place.log();
        let of_role = self.members.iter_mut().filter(|member| member.role == role);
        let ends = join_all(of_role.map(|member| member.process.stop(&log))).await;
        ends.into_iter().try_for_each(|end| end.map(drop))
    }

    /// Starts those again that are gone, after [`RolesApart::take_away`] or [`RolesApart::fell`].
    pub async fn bring_back(&mut self, place: &Place, role: Role) -> anyhow::Result<()> {
        let gone = self.members.iter_mut().filter(|member| member.role == role && !member.process.is_running());
        try_join_all(gone.map(|member| member.start_again(place))).await?;
        Ok(())
    }

    /// Kills one process of a role, and leaves it so.
    pub async fn fell(&mut self, role: Role) -> anyhow::Result<()> {
        let victim = self.victim(role)?;
        self.members[victim].process.kill().await
    }

    /// Strikes, and mends what was struck.
    pub async fn strike(&mut self, place: &Place, blow: Blow) -> anyhow::Result<()> {
        let engines = place.engines.clone().context("engines of the test's own")?;
        match blow {
            Blow::Everything => self.kill_and_restart(place, |_| true).await,
            Blow::EverythingAndPostgres => {
                self.members.iter().for_each(|member| member.process.signal(Signal::KILL));
                spawn_blocking(move || engines.crash_postgres()).await??;
                self.kill_and_restart(place, |_| true).await
            }
            Blow::One(role) => {
                let victim = self.victim(role)?;
                self.members[victim].process.kill().await?;
                self.members[victim].start_again(place).await
            }
            Blow::All(role) => self.kill_and_restart(place, |member| member.role == role).await,
            Blow::Hang(role) => {
                let victim = self.victim(role)?;
                self.members[victim].process.pause();
                // It keeps its port: the next one has another, and nginx is told.
                let next = Member::start(place, role, free_port()?).await?;
                let hung = std::mem::replace(&mut self.members[victim], next);
                self.hung.push(hung.process);
                self.tell_front()
            }
            Blow::Replace(role) => {
                let victim = self.victim(role)?;
                let status = self.members[victim].process.stop(&place.log()).await?;
                ensure!(status.success(), "{} ended with {status}:\n{}", role.name(), place.log_end());
                self.members[victim].start_again(place).await
            }
            Blow::Postgres => spawn_blocking(move || engines.crash_postgres()).await?,
            Blow::Kafka => {
                engines.kafka.kill().await?;
                engines.kafka.start_again().await
            }
            Blow::Redis => {
                spawn_blocking(move || {
                    engines.redis.kill()?;
                    engines.redis.start_again()
                })
                .await?
            }
        }
    }

    /// Lets those go on that [`Blow::Hang`] held up, beside those that took their places.
    pub fn let_go(&self) {
        self.hung.iter().for_each(Process::go_on);
    }

    async fn kill_and_restart(&mut self, place: &Place, which: impl Fn(&Member) -> bool) -> anyhow::Result<()> {
        self.members.iter().filter(|member| which(member)).for_each(|member| member.process.signal(Signal::KILL));
        let killed = self.members.iter_mut().filter(|member| which(member));
        try_join_all(killed.map(async |member| {
            member.process.kill().await?;
            member.start_again(place).await
        }))
        .await?;
        Ok(())
    }

    /// The processes of a role take turns.
    fn victim(&mut self, role: Role) -> anyhow::Result<usize> {
        self.turn += 1;
        let of_role: Vec<usize> = (0..self.members.len()).filter(|n| self.members[*n].role == role).collect();
        of_role.get(self.turn % of_role.len().max(1)).copied().with_context(|| format!("a process of {}", role.name()))
    }

    fn tell_front(&mut self) -> anyhow::Result<()> {
        let ports = |role| self.members.iter().filter(move |member| member.role == role).map(|member| member.port);
        self.front.reload(ports(Role::CommandApi), ports(Role::QueryApi))
    }

    /// One after the other is told to stop and started again, as an upgrade would.
    pub(super) async fn restart_all(&mut self, place: &Place) -> anyhow::Result<()> {
        for member in &mut self.members {
            let status = member.process.stop(&place.log()).await?;
            ensure!(status.success(), "{} ended with {status}:\n{}", member.role.name(), place.log_end());
            member.start_again(place).await?;
        }
        Ok(())
    }

    /// Stops all, whoever asks before whoever is asked; the first bad end is the answer.
    pub(super) async fn stop(mut self, place: &Place) -> anyhow::Result<ExitStatus> {
        let mut worst = ExitStatus::default();
        for role in Role::ALL.into_iter().rev() {
            let log = place.log();
            let of_role = self.members.iter_mut().filter(|member| member.role == role);
            for status in join_all(of_role.map(|member| member.process.stop(&log))).await {
                let status = status.with_context(|| role.name())?;
                if worst.success() {
                    worst = status;
                }
            }
        }
        Ok(worst)
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
