//! All processes of the fleet, in the order in which they are stopped.

use std::time::Duration;

use anyhow::{Error, Result, bail};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{member::Member, roles::Role};

/// Everything that runs.
pub(super) struct Fleet {
    /// Their clients are told to connect again; what these acked is handed to the commands.
    gateways: Stage,
    /// What was taken is carried out, and answered through nginx, which ends beside them.
    commands: Stage,
    /// What is committed by then waits, in the log or in Kafka, for the next start.
    rest: Stage,
    serving: Vec<Serving>,
    failures: (mpsc::Sender<Error>, mpsc::Receiver<Error>),
}

/// Processes that are stopped at once.
struct Stage {
    stop: watch::Sender<bool>,
    members: JoinSet<()>,
}

/// Where a process serves.
struct Serving {
    name: String,
    role: Role,
    address: watch::Receiver<Option<String>>,
}

impl Fleet {
    pub(super) fn new() -> Self {
        let stage = || Stage { stop: watch::channel(false).0, members: JoinSet::new() };
        Self { gateways: stage(), commands: stage(), rest: stage(), serving: Vec::new(), failures: mpsc::channel(1) }
    }

    /// Keeps a process of a role running.
    pub(super) fn add(&mut self, role: Role, member: Member) {
        let name = member.name.clone();
        let stage = match role {
            Role::QueryApi => &mut self.gateways,
            Role::CommandApi => &mut self.commands,
            Role::Projectors | Role::Relay => &mut self.rest,
        };
        let address = stage.keep(member, self.failures.0.clone());
        self.serving.push(Serving { name, role, address });
    }

    /// Keeps nginx running.
    pub(super) fn add_nginx(&mut self, member: Member) {
        self.commands.keep(member, self.failures.0.clone());
    }

    /// Waits until all have said where they serve.
    pub(super) async fn all_serve(&mut self, bound: Duration) -> Result<()> {
        let serving = &mut self.serving;
        let serve = async {
            for Serving { name, address, .. } in serving {
                match timeout(bound, address.wait_for(Option::is_some)).await {
                    Ok(Ok(_)) => {}
                    // Its keeper ended, and has told why.
                    Ok(Err(_)) => std::future::pending().await,
                    Err(_) => bail!("{name} does not serve within {bound:?}"),
                }
            }
            Ok(())
        };
        tokio::select! {
            served = serve => served,
            Some(error) = self.failures.1.recv() => Err(error),
        }
    }

    /// Where the processes of a role serve.
    pub(super) fn addresses(&self, role: Role) -> Vec<String> {
        let of_the_role = self.serving.iter().filter(|serving| serving.role == role);
        of_the_role.filter_map(|serving| serving.address.borrow().clone()).collect()
    }

    /// Returns once one cannot be kept running.
    pub(super) async fn first_failure(&mut self) -> Error {
        self.failures.1.recv().await.expect("we hold a sender ourselves")
    }

    /// Stops all, stage by stage.
    pub(super) async fn stop(self) {
        // Whatever fails from now on is on its way to the end anyway.
        drop(self.failures);
        for stage in [self.gateways, self.commands, self.rest] {
            stage.stop.send_replace(true);
            stage.members.join_all().await;
        }
    }
}

impl Stage {
    fn keep(&mut self, member: Member, failures: mpsc::Sender<Error>) -> watch::Receiver<Option<String>> {
        let (serves, address) = watch::channel(None);
        let stop = self.stop.subscribe();
        self.members.spawn(async move {
            if let Err(error) = member.keep(serves, stop).await {
                // The first one counts; nobody waits for others.
                let _ = failures.try_send(error);
            }
        });
        address
    }
}
