//! `cargo xtask up --stack`: Parlance as separate processes behind nginx, on the engines of a stack.

mod member;
mod nginx;
mod probe;
mod roles;
mod stages;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    member::Member,
    nginx::Nginx,
    roles::{Installation, Role, until_we_die},
    stages::Fleet,
};
use crate::{
    packages,
    stack::{Place, Stack, free_port, log_end, until},
    workspace::{binary, build_server},
};

/// How long the processes may take to serve; an engine that is away is waited for by each of them.
const START_BOUND: Duration = Duration::from_secs(90);

/// Run Parlance on real engines, each role in processes of its own, behind nginx.
///
/// Starts the engines of the stack that do not run, builds Parlance, runs its roles, and prints `ready on http://ADDR`
/// with nginx's address once requests go through. Of Parlance and nginx, what ends is started again. SIGTERM and Ctrl-C stop
/// everything in order: gateways, commands and nginx, projectors and relays, and those engines that this run started;
/// engines that ran already go on. PARLANCE_* are passed on to every process.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask up")]
pub(crate) struct Arguments {
    /// On the engines of `cargo xtask stack`, instead of everything in one process
    #[arg(long)]
    stack: bool,
    #[command(flatten)]
    place: Place,
    /// Where nginx listens; port 0 picks a free one
    #[arg(long, value_name = "ADDR", env = "PARLANCE_LISTEN", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Run this program instead of building Parlance
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How many command-apis
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    command_apis: usize,
    /// How many query-apis, each with its gateway
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    query_apis: usize,
    /// How many projectors
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    projectors: usize,
    /// How many relays
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    relays: usize,
}

impl Arguments {
    /// Those of `cargo xtask up` if they ask for the stack; else they are the server's own.
    pub(crate) fn of_the_stack(arguments: &[String]) -> Option<Self> {
        let name = "cargo xtask up".to_owned();
        arguments.iter().any(|argument| argument == "--stack").then(|| Self::parse_from([&[name], arguments].concat()))
    }

    fn count(&self, role: Role) -> usize {
        match role {
            Role::CommandApi => self.command_apis,
            Role::QueryApi => self.query_apis,
            Role::Projectors => self.projectors,
            Role::Relay => self.relays,
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    for role in Role::ALL {
        ensure!(arguments.count(role) > 0, "at least one of each role is needed: {}", role.name());
    }
    packages::ensure(&[packages::NGINX])?;
    let program = if let Some(given) = &arguments.binary {
        given.canonicalize().with_context(|| given.display().to_string())?
    } else {
        packages::ensure(&packages::to_build())?;
        build_server()?;
        binary("parlance")
    };
    let mut ends = Ends::listen()?;
    let stack = Stack::open(&arguments.place)?;
    let mut started = Vec::new();
    let mut fleet = Fleet::new();
    let outcome = tokio::select! {
        outcome = serve(arguments, program, &stack, &mut started, &mut fleet) => outcome,
        () = ends.wait() => Ok(()),
    };
    fleet.stop().await;
    let engines = if started.is_empty() { Ok(()) } else { stack.stop(|name| started.contains(&name)).await };
    outcome.and(engines)
}

/// Starts everything, says so, and returns only if something fails for good.
async fn serve(
    arguments: &Arguments,
    program: PathBuf,
    stack: &Stack,
    started: &mut Vec<&'static str>,
    fleet: &mut Fleet,
) -> Result<()> {
    stack.up(started).await?;
    stack.unlock()?;
    let folder = stack.folder().join("parlance");
    fs::create_dir_all(&folder)?;
    let mut environment = stack.environment()?;
    environment.push(("PARLANCE_TRUSTED_PROXIES", "127.0.0.1".to_owned()));
    // They share the cores: threads of one that look for work take them from the others.
    let processes: usize = Role::ALL.into_iter().map(|role| arguments.count(role)).sum();
    let threads = available_parallelism()?.get() / processes;
    environment.push(("TOKIO_WORKER_THREADS", threads.max(1).to_string()));
    // Whoever names one of these for Parlance means it; the engines are those of the stack.
    let ours = |name: &str| name.starts_with("PARLANCE_") || name.starts_with("TOKIO_");
    environment.retain(|(name, _)| !ours(name) || std::env::var_os(name).is_none());
    let installation = Installation { binary: program, environment, folder };

    eprintln!("xtask: logs are in {}", installation.folder.display());
    let mut migrate = installation.command(&["migrate"]);
    let migrated = migrate.stdout(std::io::stderr()).status().await.context("cannot run parlance")?;
    ensure!(migrated.success(), "parlance migrate: {migrated}");
    for role in Role::ALL {
        for number in 1..=arguments.count(role) {
            fleet.add(role, installation.member(role, number));
        }
    }
    fleet.all_serve(START_BOUND).await?;

    let listen = match arguments.listen.port() {
        0 => SocketAddr::new(arguments.listen.ip(), free_port()?),
        _ => arguments.listen,
    };
    let folder = stack.folder().join("nginx");
    let nginx =
        Nginx::configure(&folder, listen, &fleet.addresses(Role::CommandApi), &fleet.addresses(Role::QueryApi))?;
    let log = installation.log("nginx");
    fleet.add_nginx(Member {
        name: "nginx".to_owned(),
        recipe: Box::new(move |_| {
            let command = nginx.command();
            let mut dying = until_we_die(command.get_program());
            dying.args(command.get_args());
            dying
        }),
        log: log.clone(),
        announces: false,
        signals: nginx::SIGNALS,
    });
    // A wildcard is no address to connect to.
    let reached = if listen.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, listen.port()).into() } else { listen };
    ensure!(
        until(START_BOUND, async || probe::goes_through(reached).await).await,
        "nothing goes through nginx at {listen}; {} ends with:\n{}",
        log.display(),
        log_end(&log)
    );
    println!("ready on http://{listen}");
    Err(fleet.first_failure().await)
}

/// What tells us to end.
struct Ends([Signal; 3]);

impl Ends {
    fn listen() -> Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        eprintln!("xtask: stopping");
    }
}
