//! Figures, printed: `cargo test --release -p query-api gateway::tests::bench -- --ignored --nocapture`.

use std::time::Instant;

use serde_json::json;

use super::world::{World, device, user};

#[tokio::test]
#[ignore = "prints figures; asserts nothing"]
async fn catching_up_ten_thousand_messages() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    world.connect(ben, device(2)).await.leave().await;
    world.say(room, ann, 10_000).await;
    for _ in 0..3 {
        let begun = Instant::now();
        let mut client = world.open(ben, device(2)).await;
        client.say(json!({"type": "hello", "cursors": {room.to_string(): 1}})).await;
        let mut last = 1;
        while client.next().await["type"] != "synced" {
            client.seen.truncate(2);
            last += 1;
            if last % 64 == 0 {
                client.ack(room, last - 1).await;
            }
        }
        println!("10,000 messages in {:?}", begun.elapsed());
        client.leave().await;
    }
}
