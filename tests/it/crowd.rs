//! A crowd in conversations of its own, all of it online; and two hundred clients who talk at once.

use futures::future::join_all;
use parlance_client::Server;
use testkit::{
    app::Place,
    history::{Recorder, Summary},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::people::{self, Device, Group, check, divide, everywhere};

/// People who talk, divided into conversations of one size, and what has to have come of it.
pub(crate) struct Crowd {
    recorder: Recorder,
    groups: Vec<Group>,
    devices: Vec<Device>,
    /// Messages of each.
    sent: usize,
}

impl Crowd {
    /// Registers them, and brings them online.
    pub(crate) async fn online(server: &Server, clients: usize, conversations: usize) -> Self {
        let clients = people::crowd(server, clients).await;
        let groups = divide(&clients, clients.len() / conversations, &[]).await;
        let mut crowd = Self { recorder: Recorder::new(), groups, devices: Vec::new(), sent: 0 };
        for (n, client) in clients.iter().enumerate() {
            let log = crowd.recorder.device(client.user_id(), format!("device {n}"));
            log.starts(crowd.groups[n / (clients.len() / conversations)].id, 0);
            crowd.devices.push(Device::online(client, &log).await);
        }
        // A device that says its first hello later begins with the last fifty events.
        for device in &crowd.devices {
            device.until("everything from before is there", |progress| progress.synced).await;
        }
        crowd
    }

    fn group_of(&self, client: usize) -> Uuid {
        self.groups[client * self.groups.len() / self.devices.len()].id
    }

    /// Has each say so many messages; their ends are those of the tasks.
    pub(crate) fn say(&mut self, what: &str, each: usize) -> Vec<JoinHandle<()>> {
        let mut sends = Vec::new();
        for message in 0..each {
            for (n, device) in self.devices.iter().enumerate() {
                sends.push(device.send(&self.recorder, self.group_of(n), format!("{what}: {message} of {n}")));
            }
        }
        self.sent += each;
        sends
    }

    /// Waits until everything that was said has come to everybody.
    pub(crate) async fn arrived(&self) {
        let head = 1 + self.sent * self.devices.len() / self.groups.len();
        let devices = self.devices.iter().enumerate();
        let all = join_all(devices.map(|(n, device)| device.has(self.group_of(n), head as u64))).await;
        let late: Vec<String> = all.into_iter().filter_map(Result::err).collect();
        assert!(late.is_empty(), "{late:#?}");
    }

    /// Checks what all of them saw.
    pub(crate) async fn end(self) -> Summary {
        let summary = check(&self.recorder, &self.groups).await;
        let said = self.sent * self.devices.len();
        assert_eq!((summary.acknowledged, summary.kept), (said, said));
        summary
    }
}

const CLIENTS: usize = 200;
const CONVERSATIONS: usize = 20;
const MESSAGES: usize = 20;

everywhere!(two_hundred_clients_send_at_once);

async fn two_hundred_clients_send_at_once(place: Place) {
    let app = place.start().await.unwrap();
    let mut crowd = Crowd::online(&app.server(), CLIENTS, CONVERSATIONS).await;
    for send in crowd.say("at once", MESSAGES) {
        send.await.unwrap();
    }
    crowd.arrived().await;
    let summary = crowd.end().await;
    assert!(summary.received >= CLIENTS * MESSAGES * CLIENTS / CONVERSATIONS);
    assert!(app.stop().await.unwrap().success());
}
