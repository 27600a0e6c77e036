//! Two users and three devices, one of which comes back in the middle of it.

use testkit::history::Recorder;

use testkit::app::Place;

use crate::people::{Device, Group, check, everywhere, log_in, name, person, register};

everywhere!(a_device_that_was_away_catches_up_while_others_send);

async fn a_device_that_was_away_catches_up_while_others_send(place: Place) {
    let app = place.start().await.unwrap();
    let server = app.server();
    let ann = person(&server, "ann").await;
    let ben = name("ben");
    register(&server, &ben).await;
    let (phone, laptop) = (log_in(&server, &ben).await, log_in(&server, &ben).await);
    let group = Group {
        id: ann.open_direct(phone.user_id()).await.unwrap().conversation_id,
        members: vec![ann.clone(), phone.clone()],
    };

    let recorder = Recorder::new();
    let logs = [(&ann, "ann"), (&phone, "ben's phone"), (&laptop, "ben's laptop")].map(|(client, name)| {
        let log = recorder.device(client.user_id(), name);
        log.starts(group.id, 0);
        log
    });
    let ann = Device::online(&ann, &logs[0]).await;
    let phone = Device::online(&phone, &logs[1]).await;
    let away = Device::online(&laptop, &logs[2]).await;
    away.has(group.id, 1).await.unwrap();
    away.offline().await;

    let mut sends = Vec::new();
    for n in 0..600 {
        sends.push(ann.send(&recorder, group.id, format!("from ann: {n}")));
        if n % 3 == 0 {
            sends.push(phone.send(&recorder, group.id, format!("from ben: {n} 👋")));
        }
        if n == 300 {
            phone.has(group.id, 200).await.unwrap();
        }
    }
    phone.has(group.id, 400).await.unwrap();
    let back = Device::online(&laptop, &logs[2]).await;
    back.until("the laptop has caught up", |progress| progress.synced).await;
    for send in sends {
        send.await.unwrap();
    }
    for device in [&ann, &phone, &back] {
        device.has(group.id, 801).await.unwrap();
    }
    let summary = check(&recorder, &[group]).await;
    assert_eq!((summary.acknowledged, summary.kept), (800, 800));
    assert!(summary.receipts > 0);
    assert!(app.stop().await.unwrap().success());
}
