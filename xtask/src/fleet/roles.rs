//! Which roles run, how many of each, and in which order they end.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;
use tokio::process::Command;

use super::member::Member;

/// A role that runs as processes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    CommandApi,
    QueryApi,
    Projectors,
    Relay,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::Relay, Self::Projectors, Self::CommandApi, Self::QueryApi];

    /// As `parlance serve --roles` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projectors => "projectors",
            Self::Relay => "relay",
        }
    }

    /// Longer than the role itself takes for its end, and short enough for all of them together.
    fn signals(self) -> &'static [(Signal, Duration)] {
        const WITH_CLIENTS: &[(Signal, Duration)] = &[(Signal::TERM, Duration::from_secs(8))];
        const WITHOUT: &[(Signal, Duration)] = &[(Signal::TERM, Duration::from_secs(5))];
        match self {
            Self::CommandApi | Self::QueryApi => WITH_CLIENTS,
            Self::Projectors | Self::Relay => WITHOUT,
        }
    }
}

/// What all processes of the fleet are run with.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    pub(super) binary: PathBuf,
    pub(super) environment: Vec<(&'static str, String)>,
    /// Where they are run and where their logs are.
    pub(super) folder: PathBuf,
}

impl Installation {
    /// A command of the server's. What is left of our environment is passed on.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = until_we_die(&self.binary);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Of one process, and here there are many.
        for name in ["PARLANCE_LISTEN", "PARLANCE_ADVERTISE_URL"] {
            command.env_remove(name);
        }
        command
    }

    /// One process of a role.
    pub(super) fn member(&self, role: Role, number: usize) -> Member {
        let installation = self.clone();
        let name = format!("{}-{number}", role.name());
        Member {
            log: self.log(&name),
            name,
            recipe: Box::new(move |address| {
                installation.command(&["serve", "--roles", role.name(), "--listen", address.unwrap_or("127.0.0.1:0")])
            }),
            announces: true,
            signals: role.signals(),
        }
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

/// The kernel tells it to end if we end without having done so: after a `kill -9` nothing is left.
pub(super) fn until_we_die(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}
