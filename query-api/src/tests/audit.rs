//! The audit, for operators.

use std::sync::atomic::Ordering;

use schemas::AuditFilters;
use schemas::rest::{AuditEntry, Page, User};
use uuid::Uuid;

use super::{World, at};

/// An entry in the third shard of the conversations.
async fn entry(world: &World, position: i64, second: i64, kind: &str, actor: Option<Uuid>, object: Uuid) {
    sqlx::query(
        "INSERT INTO read.audit (topic, shard, position, at, event_id, type, actor, object_type, object) \
         VALUES (1, 3, $1, $2, gen_random_uuid(), $3, $4, 'user', $5)",
    )
    .bind(position)
    .bind(at(second))
    .bind(kind)
    .bind(actor)
    .bind(object)
    .execute(world.pool())
    .await
    .unwrap();
}

fn positions(pages: &[Page<AuditEntry>]) -> Vec<u64> {
    let entries = pages.iter().flat_map(|page| &page.items);
    entries.map(|entry| entry.position.places()[0].position).collect()
}

#[tokio::test]
async fn the_newest_comes_first_and_filters_narrow_it() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    for position in 1..=6 {
        let (kind, actor) = if position % 2 == 0 { ("a.b", Some(ann)) } else { ("c.d", Some(ben)) };
        // Two at a time happen at the same moment.
        entry(&world, position, position / 2, kind, actor, [ann, ben][usize::from(position > 3)]).await;
    }
    entry(&world, 7, 9, "c.d", None, ann).await;
    let found = async |path: &str| positions(&world.pages(ann, &format!("/v1/audit?{path}")).await.0);
    assert_eq!(found("").await, [7, 6, 5, 4, 3, 2, 1]);
    for limit in 1..=4 {
        assert_eq!(found(&format!("limit={limit}")).await, [7, 6, 5, 4, 3, 2, 1], "limit {limit}");
    }
    assert_eq!(found("actor=ANN").await, [6, 4, 2]);
    assert_eq!(found(&format!("actor={ben}&limit=1")).await, [5, 3, 1]);
    assert_eq!(found("object=ben&type=c.d").await, [5]);
    assert_eq!(found("since=2027-01-15T08:00:02Z&until=2027-01-15T08:00:09Z").await, [6, 5, 4]);
    let page: Page<AuditEntry> = world.get(ann, "/v1/audit?limit=2").await.is();
    assert_eq!(page.items[0].actor_id, None);
    assert_eq!(page.items[1].actor_username.as_deref(), Some("ann"));
    assert_eq!(page.items[1].correlation_id, page.items[1].event_id.to_string());

    // Who is no operator does not find out here who there is.
    world.get(ann, "/v1/audit?actor=nobody").await.is_problem(403, None);
    sqlx::query("UPDATE read.users SET is_operator = true").execute(world.pool()).await.unwrap();
    for (query, parameter) in [
        ("actor=nobody", "actor"),
        ("object=%00", "object"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
    ] {
        world.get(ann, &format!("/v1/audit?{query}")).await.is_problem(422, Some(parameter));
    }
}

#[tokio::test]
async fn who_reads_is_taken_down_first_and_else_sees_nothing() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    entry(&world, 1, 1, "a.b", Some(ann), ann).await;
    let page: Page<AuditEntry> = world.get(ann, "/v1/audit?actor=ann&type=a.b").await.is();
    assert_eq!(page.items.len(), 1);
    let filters = AuditFilters { actor: Some(ann), event_type: Some("a.b".to_owned()), ..AuditFilters::default() };
    assert_eq!(*world.commands.readings.lock(), [(ann, filters)]);
    for (refusal, status) in [(403, 403), (503, 503), (429, 503), (401, 401)] {
        world.commands.refuses.store(refusal, Ordering::Relaxed);
        world.get(ann, "/v1/audit").await.is_problem(status, None);
    }
    assert_eq!(world.commands.readings.lock().len(), 1);
}

#[tokio::test]
async fn it_says_how_far_it_has_got_itself() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let bearer = format!("Bearer {}", world.token(ann));
    let get = async |minimum: &str, prefer: &str| {
        let headers = [("authorization", bearer.as_str()), ("min-position", minimum), ("prefer", prefer)];
        world.send(http::Method::GET, "/v1/audit", &headers).await
    };
    assert_eq!(get("c3.0", "").await.headers["position"], "u0.0");
    sqlx::query(
        "INSERT INTO read.checkpoints (projection, topic, shard, position, consumer) \
         VALUES ('audit', 1, 3, 7, 'audit'), ('timeline', 1, 3, 9, 'read_models')",
    )
    .execute(world.pool())
    .await
    .unwrap();
    let fresh = get("c3.7", "strict").await;
    assert_eq!((fresh.status.as_u16(), fresh.headers["position"].to_str().unwrap()), (200, "c3.7"));
    assert!(!fresh.headers.contains_key("position-stale"));
    assert_eq!(get("c3.8", "").await.headers["position-stale"], "true");
    get("c3.8", "strict").await.is_problem(503, None);
}

#[tokio::test]
async fn one_sees_ones_own_roles() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let me: User = world.get(ann, "/v1/users/me").await.is();
    assert_eq!(me.roles, Some(vec![]));
    sqlx::query("UPDATE read.users SET is_operator = true").execute(world.pool()).await.unwrap();
    let me: User = world.get(ann, "/v1/users/me").await.is();
    assert_eq!(me.roles, Some(vec![schemas::UserRole::Operator]));
    assert!(world.get(ann, &format!("/v1/users/{ann}")).await.json().get("roles").is_none());
}
