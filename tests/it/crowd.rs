//! Two hundred clients in twenty conversations, all at once.

use testkit::history::Recorder;

use testkit::app::Place;

use crate::people::{Device, check, crowd, divide, everywhere};

const CLIENTS: usize = 200;
const CONVERSATIONS: usize = 20;
const MESSAGES: usize = 20;

everywhere!(two_hundred_clients_send_at_once);

async fn two_hundred_clients_send_at_once(place: Place) {
    let app = place.start().await.unwrap();
    let clients = crowd(&app.server(), CLIENTS).await;
    let groups = divide(&clients, CLIENTS / CONVERSATIONS, &[]).await;

    let recorder = Recorder::new();
    let mut devices = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        let log = recorder.device(client.user_id(), format!("device {n}"));
        log.starts(groups[n * CONVERSATIONS / CLIENTS].id, 0);
        devices.push(Device::online(client, &log).await);
    }
    // A device that says its first hello later begins with the last fifty events.
    for device in &devices {
        device.until("everything from before is there", |progress| progress.synced).await;
    }
    let mut sends = Vec::new();
    for message in 0..MESSAGES {
        for (n, device) in devices.iter().enumerate() {
            let conversation = groups[n * CONVERSATIONS / CLIENTS].id;
            sends.push(device.send(&recorder, conversation, format!("message {message} of client {n}")));
        }
    }
    for send in sends {
        send.await.unwrap();
    }
    let head = 1 + (MESSAGES * CLIENTS / CONVERSATIONS) as u64;
    for (n, device) in devices.iter().enumerate() {
        device.has(groups[n * CONVERSATIONS / CLIENTS].id, head).await;
    }
    let summary = check(&recorder, &groups).await;
    assert_eq!(summary.acknowledged, CLIENTS * MESSAGES);
    assert!(summary.received >= CLIENTS * MESSAGES * CLIENTS / CONVERSATIONS);
    assert!(app.stop().await.unwrap().success());
}
