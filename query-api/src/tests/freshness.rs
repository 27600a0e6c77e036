//! `Min-Position`, `Position`, `Position-Stale`.

use http::Method;
use schemas::{Position, Topic};
use uuid::Uuid;

use super::{Answered, World};

async fn ask(world: &World, user: Uuid, headers: &[(&str, &str)]) -> Answered {
    let bearer = format!("Bearer {}", world.token(user));
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    world.send(Method::GET, "/v1/conversations", &all).await
}

fn at(position: u64) -> Position {
    Position { topic: Topic::Conversations, shard: 3, position }
}

#[tokio::test]
async fn an_answer_says_how_far_it_goes_and_when_it_is_stale() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    assert!(ask(&world, ann, &[]).await.headers.contains_key("position"), "also before anything was applied");
    world.applied.post([at(7), Position { shard: 1, ..at(2) }]);
    let answer = ask(&world, ann, &[("min-position", "c3.7")]).await;
    assert_eq!(answer.headers["position"], "c1.2~c3.7");
    assert!(!answer.headers.contains_key("position-stale"));

    let stale = ask(&world, ann, &[("min-position", "c3.7, c3.8")]).await;
    assert_eq!(stale.status, 200);
    assert_eq!(stale.headers["position-stale"], "true");
    let strict = ask(&world, ann, &[("min-position", "c3.8"), ("prefer", "strict")]).await;
    strict.is_problem(503, None);
    assert!(strict.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    for bad in ["", "c3", "c3.7,,x", &["c3.7"; 17].join(",")] {
        ask(&world, ann, &[("min-position", bad)]).await.is_problem(422, Some("Min-Position"));
    }
    assert_eq!(ask(&world, ann, &[("min-position", &["c3.7"; 16].join(","))]).await.status, 200);
}

#[tokio::test]
async fn a_wait_ends_when_projectors_of_this_process_get_there() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let (answer, ()) = tokio::join!(ask(&world, ann, &[("min-position", "c3.9"), ("prefer", "strict")]), async {
        tokio::task::yield_now().await;
        world.applied.post([at(9)]);
    });
    assert_eq!(answer.headers["position"], "c3.9");
}

#[tokio::test]
async fn a_wait_ends_when_projectors_of_another_process_get_there() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let checkpoint = async |projection: &str, position: i64| {
        sqlx::query("INSERT INTO read.checkpoints VALUES ($1, 1, 3, $2)")
            .bind(projection)
            .bind(position)
            .execute(world.pool())
            .await
            .unwrap();
    };
    checkpoint("timeline", 9).await;
    checkpoint("receipts", 8).await;
    let headers = [("min-position", "c3.9"), ("prefer", "strict")];
    ask(&world, ann, &headers).await.is_problem(503, None);
    sqlx::query("UPDATE read.checkpoints SET position = 9").execute(world.pool()).await.unwrap();
    let answer = ask(&world, ann, &headers).await;
    assert_eq!((answer.status.as_u16(), answer.headers["position"].to_str().unwrap()), (200, "c3.9"));
}
