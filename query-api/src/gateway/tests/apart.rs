//! Gateways in processes of their own, which Redis tells what happens.

use std::sync::Arc;

use platform::auth::AuthSettings;
use platform::live::{LiveBus, RedisLive, WIDE};
use platform::redis::Redis;
use schemas::ws::close;
use serde_json::json;
use testkit::eventually;
use testkit::redis::Redis as Server;
use uuid::Uuid;

use super::world::{BOUND, Client, World, device, user};

async fn live(server: &Server) -> Arc<dyn LiveBus> {
    let redis = Redis::connect_within(&server.url().into(), BOUND, "test:").await.unwrap();
    let live = RedisLive::start(redis);
    eventually("hints come through", BOUND, async || live.is_up()).await;
    Arc::new(live)
}

/// A gateway, and fan-out, on a server of their own.
async fn world() -> (Server, World) {
    let server = Server::start().unwrap();
    let world = World::on(AuthSettings::default(), live(&server).await, live(&server).await).await;
    (server, world)
}

/// What came, once each: what is not acked comes again.
fn firsts(client: &Client, conversation_id: Uuid) -> Vec<u64> {
    let mut firsts = Vec::new();
    for seq in client.seqs(conversation_id) {
        if !firsts.contains(&seq) {
            firsts.push(seq);
        }
    }
    firsts
}

async fn until_receipt(client: &mut Client, user_id: Uuid, delivered_to: u64) {
    loop {
        let receipt = client.until("receipt").await;
        if receipt["user_id"] == json!(user_id) && receipt["delivered_to"] == delivered_to {
            return;
        }
    }
}

#[tokio::test]
async fn what_happens_crosses_gateways() {
    let (server, mut world) = world().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    let mut anns = world.connect(ann, device(1)).await;
    world.go_on_beside(live(&server).await).await;
    let mut bens = world.connect(ben, device(2)).await;
    world.say(room, ann, 2).await;
    for client in [&mut anns, &mut bens] {
        client.until_seq(3).await;
        assert_eq!(client.seqs(room), [1, 2, 3]);
    }
    world.port.move_receipt(room, ben, 3, 0).await;
    until_receipt(&mut anns, ben, 3).await;
    // Into what begins while one is connected, and into what is wide by then.
    let wide: Vec<Uuid> = (1..=WIDE as u128 + 1).map(user).collect();
    for members in [&[ann, ben][..], &wide] {
        let room = world.conversation(members).await;
        world.say(room, ben, 1).await;
        for client in [&mut anns, &mut bens] {
            client.until_seq(2).await;
            assert_eq!(client.seqs(room), [1, 2]);
        }
    }
    // And into what was wide before one came.
    let room = world.conversation(&wide).await;
    let mut late = world.connect(user(3), device(3)).await;
    world.say(room, ann, 1).await;
    late.until_seq(2).await;
}

#[tokio::test]
async fn a_device_is_replaced_across_gateways() {
    let (server, mut world) = world().await;
    let mut before = world.connect(user(1), device(1)).await;
    let mut other = world.connect(user(1), device(2)).await;
    world.go_on_beside(live(&server).await).await;
    let mut after = world.connect(user(1), device(1)).await;
    assert_eq!(before.closed().await, close::REPLACED);
    for client in [&mut other, &mut after] {
        client.say(json!({"type": "ping"})).await;
        client.until("pong").await;
    }
}

#[tokio::test]
async fn without_redis_all_comes_if_later() {
    let (server, mut world) = world().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    let mut anns = world.connect(ann, device(1)).await;
    world.go_on_beside(live(&server).await).await;
    let mut bens = world.connect(ben, device(2)).await;
    server.kill().unwrap();
    world.say(room, ann, 3).await;
    world.port.move_receipt(room, ben, 2, 1).await;
    let other = world.conversation(&[ann, ben]).await;
    world.say(other, ann, 1).await;
    let mut late = world.connect(ben, device(3)).await;
    bens.until_seq(4).await;
    until_receipt(&mut anns, ben, 2).await;
    while firsts(&bens, other) != [1, 2] {
        bens.next().await;
    }
    server.start_again().unwrap();
    // Whatever was lost on the way back is found as well.
    world.say(room, ann, 3).await;
    for client in [&mut anns, &mut bens, &mut late] {
        client.until_seq(7).await;
        assert_eq!(firsts(client, room), [1, 2, 3, 4, 5, 6, 7]);
    }
    world.port.move_receipt(room, ben, 7, 7).await;
    until_receipt(&mut anns, ben, 7).await;
}

#[tokio::test]
async fn other_processes_know_who_is_connected() {
    let (_server, world) = world().await;
    super::sockets::counts_as_connected(&world).await;
}
