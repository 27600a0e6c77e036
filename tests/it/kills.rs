//! The same crowd while the server is killed ten times, three times with PostgreSQL's first process.

use std::env;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::index};
use testkit::{app::Place, eventually, history::Recorder};
use tokio::time::timeout;

use crate::people::{BOUND, Device, check, crowd, divide, everywhere};

const CLIENTS: usize = 200;
const CONVERSATIONS: usize = 20;
/// Messages of each client while the observers are away: more than a window (256 events) in all.
const BEFORE: usize = 2;
/// Messages of each client that a kill hits.
const DURING: usize = 3;
/// Events that the observer takes before it holds its acks: with a window more, still less than there are.
const TAKEN: usize = 20;
const KILLS: usize = 10;
const WITH_POSTGRES: usize = 3;
const UNANSWERED: usize = 50;
/// Bursts until so many are under way: more than one only where this process was kept from looking.
const BURSTS: usize = 20;

everywhere!(ten_kills_lose_nothing_and_double_nothing);

async fn ten_kills_lose_nothing_and_double_nothing(place: Place) {
    let seed = env::var("PARLANCE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("seed {seed}: set PARLANCE_TEST_SEED={seed} for the same kills");
    let mut random = StdRng::seed_from_u64(seed);
    let with_postgres = index::sample(&mut random, KILLS, WITH_POSTGRES).into_vec();

    let mut app = place.start().await.unwrap();
    let server = app.server();
    let clients = crowd(&server, CLIENTS).await;
    // One who is in all conversations, comes and goes, and catches up whenever the server is killed.
    let observer = crate::people::person(&server, "observer").await;
    let groups = divide(&clients, CLIENTS / CONVERSATIONS, std::slice::from_ref(&observer)).await;
    let group_of = |client: usize| groups[client * CONVERSATIONS / CLIENTS].id;

    let recorder = Recorder::new();
    let observer_log = recorder.device(observer.user_id(), "observer");
    let mut devices = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        let log = recorder.device(client.user_id(), format!("device {n}"));
        log.starts(group_of(n), 0);
        observer_log.starts(group_of(n), 0);
        devices.push(Device::online(client, &log).await);
    }
    let at_first = Device::online(&observer, &observer_log).await;
    for group in &groups {
        at_first.has(group.id, 1).await.unwrap();
    }
    at_first.offline().await;

    let burst = |kill: usize, count: usize| {
        let mut sends = Vec::new();
        for message in 0..count {
            for (n, device) in devices.iter().enumerate() {
                sends.push(device.send(&recorder, group_of(n), format!("kill {kill}, message {message} of {n}")));
            }
        }
        sends
    };
    let mut head = 1;
    let mut each = 0;
    for kill in 0..KILLS {
        for send in burst(kill, BEFORE) {
            send.await.unwrap();
        }
        // The observer takes a few and then holds its acks: the server waits in the middle of the catch-up.
        let observer = Device::online_up_to(&observer, &observer_log, TAKEN).await;
        observer.until("the observer is catching up", |progress| progress.events >= TAKEN).await;
        assert!(!observer.progress.borrow().synced);

        // In the middle of a burst, wherever the seed says that is; of another one, if it was nearly over by the time
        // that we looked.
        let mut sends = Vec::new();
        let mut bursts = 0;
        let unanswered = loop {
            let after = recorder.answered() + random.random_range(1..=CLIENTS * DURING / 2);
            sends.extend(burst(kill, DURING));
            bursts += 1;
            let under_way = timeout(BOUND, async {
                while recorder.answered() < after {
                    tokio::task::yield_now().await;
                }
            });
            under_way.await.expect("messages are answered");
            let unanswered = recorder.unanswered();
            if unanswered >= UNANSWERED {
                break unanswered;
            }
            assert!(bursts < BURSTS, "only {unanswered} sends are under way");
        };
        each += BEFORE + bursts * DURING;
        let postgres = with_postgres.contains(&kill);
        eprintln!("kill {kill}: {unanswered} sends unanswered, a catch-up running, PostgreSQL killed too: {postgres}");
        app.kill_and_restart(postgres).await.unwrap();

        for send in sends {
            send.await.unwrap();
        }
        observer.limit.send_replace(usize::MAX);
        head = 1 + each * CLIENTS / CONVERSATIONS;
        for group in &groups {
            observer.has(group.id, head as u64).await.unwrap();
        }
        observer.offline().await;
    }
    for (n, device) in devices.iter().enumerate() {
        device.has(group_of(n), head as u64).await.unwrap();
    }
    eventually("every send is answered", BOUND, async || recorder.unanswered() == 0).await;
    let summary = check(&recorder, &groups).await;
    eprintln!("{summary:?}");
    assert_eq!(summary.acknowledged, each * CLIENTS);
    assert_eq!(summary.kept, summary.acknowledged);
    assert!(app.stop().await.unwrap().success());
}
