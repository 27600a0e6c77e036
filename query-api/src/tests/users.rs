//! Users and sessions.

use http::Method;
use schemas::rest::{Page, PushSubscription, Session, User};
use uuid::Uuid;

use super::{SESSION, World, at};

#[tokio::test]
async fn one_sees_oneself_with_the_address_and_others_without() {
    let world = World::new().await;
    let ann = world.user("ann", Some("Ann")).await;
    let ben = world.user("ben", None).await;
    let me: User = world.get(ann, "/v1/users/me").await.is();
    assert_eq!((me.user_id, me.email.as_deref(), me.username.as_deref()), (ann, Some("ann@example.org"), Some("ann")));
    let answer = world.get(ann, &format!("/v1/users/{ben}")).await;
    assert_eq!(answer.json()["display_name"], serde_json::Value::Null);
    assert_eq!(answer.json()["created_at"], "2027-01-15T08:00:00.000Z");
    assert!(answer.json().get("email").is_none());
    assert!(answer.headers.contains_key("position"));
    world.get(ann, &format!("/v1/users/{}", Uuid::now_v7())).await.is_problem(404, None);
    world.get(ann, "/v1/users/nobody").await.is_problem(404, None);
    // Signed in, but the read model has yet to hear of it.
    world.get(Uuid::now_v7(), "/v1/users/me").await.is_problem(503, None);
}

#[tokio::test]
async fn users_are_found_by_how_their_names_begin() {
    let world = World::new().await;
    let me = world.user("zoe", Some("Zoe")).await;
    for (username, display_name) in [
        ("max", Some("Moritz")),
        ("maxine", None),
        ("ma_x", Some("100% Äpfel")),
        ("mayor", Some("Max the Mayor")),
        ("other", Some("MAX Other")),
        ("last", Some("the last max")),
    ] {
        world.user(username, display_name).await;
    }
    let names = async |query: &str| -> Vec<String> {
        let path = format!("/v1/users?query={query}");
        let page: Page<User> = world.get(me, &path).await.is();
        page.items.into_iter().filter_map(|user| user.username).collect()
    };
    assert_eq!(names("max").await, ["max", "maxine", "other", "mayor"], "usernames, then display names");
    assert_eq!(names("MAX%20o").await, ["other"]);
    assert_eq!(names("ma_").await, ["ma_x"]);
    assert_eq!(names("100%25%20%C3%A4").await, ["ma_x"]);
    assert_eq!(names("%25").await, Vec::<String>::new());
    assert_eq!(names("nobody").await, Vec::<String>::new());

    for limit in 1..=4 {
        let (pages, _) = world.pages::<User>(me, &format!("/v1/users?query=max&limit={limit}")).await;
        let found: Vec<_> = pages.into_iter().flat_map(|page| page.items).filter_map(|user| user.username).collect();
        assert_eq!(found, ["max", "maxine", "other", "mayor"], "limit {limit}");
    }
    world.get(me, "/v1/users").await.is_problem(422, Some("query"));
    world.get(me, "/v1/users?query=").await.is_problem(422, Some("query"));
    world.get(me, &format!("/v1/users?query={}", "x".repeat(101))).await.is_problem(422, Some("query"));
}

#[tokio::test]
async fn sessions_are_ones_own_and_the_newest_comes_first() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let current = SESSION;
    for (nth, (id, user)) in
        [(Uuid::now_v7(), ann), (current, ann), (Uuid::now_v7(), ben), (Uuid::now_v7(), ann)].into_iter().enumerate()
    {
        sqlx::query("INSERT INTO read.sessions VALUES ($1, $2, $3, 'phone', $4, $4)")
            .bind(id)
            .bind(user)
            .bind(Uuid::now_v7())
            .bind(at(i64::try_from(nth).unwrap()))
            .execute(world.pool())
            .await
            .unwrap();
    }
    let (pages, counts) = world.pages::<Session>(ann, "/v1/sessions?limit=2").await;
    assert_eq!(counts, [2, 1]);
    let sessions: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    assert_eq!(sessions.iter().map(|session| session.created_at).collect::<Vec<_>>(), [at(3), at(1), at(0)]);
    assert_eq!(sessions.iter().map(|session| session.current).collect::<Vec<_>>(), [false, true, false]);
}

#[tokio::test]
async fn every_guarded_path_wants_a_token_and_head_is_taken_where_get_is() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let group = world.conversation("group", "all", &[ann]).await;
    let message = world.message(group, 2, ann).await;
    let bearer = format!("Bearer {}", world.token(ann));
    for entry in platform::http::surface::SURFACE {
        if !entry.takes("GET") || ["/v1/ws", "/problems/{name}"].contains(&entry.pattern) {
            continue;
        }
        let path = entry
            .pattern
            .replace("{conversation_id}", &group.to_string())
            .replace("{message_id}", &message.to_string())
            .replace("{user_id}", &ann.to_string())
            .replace("{event_type}/{version}", "message.sent/1.json");
        let path = if path == "/v1/users" { "/v1/users?query=a".to_owned() } else { path };
        if !entry.is_open("GET") {
            world.send(Method::GET, &path, &[]).await.is_problem(401, None);
            world.send(Method::GET, &path, &[("authorization", "Bearer x")]).await.is_problem(401, None);
        }
        let get = world.send(Method::GET, &path, &[("authorization", &bearer)]).await;
        assert_eq!(get.status, 200, "{path}: {}", get.json());
        let head = world.send(Method::HEAD, &path, &[("authorization", &bearer)]).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
    }
}

#[tokio::test]
async fn push_subscriptions_are_ones_own_that_still_hold() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let ids = [1, 2, 3, 4].map(Uuid::from_u128);
    let session = |nth: usize| if nth == 0 { SESSION } else { Uuid::now_v7() };
    for (nth, (id, user, ends)) in
        [(ids[0], ann, 60), (ids[1], ann, 60), (ids[2], ann, -1), (ids[3], ben, 60)].into_iter().enumerate()
    {
        sqlx::query(
            "INSERT INTO state.push_subscriptions
                    (user_id, subscription_id, session_id, sealed, endpoint_hash, service, created_at, expires_at)
             VALUES ($1, $2, $3, 'sealed', 'hash', 'https://push.example.net', $4, now() + make_interval(secs => $5))",
        )
        .bind(user)
        .bind(id)
        .bind(session(nth))
        .bind(at(i64::try_from(nth).unwrap()))
        .bind(f64::from(ends))
        .execute(world.pool())
        .await
        .unwrap();
    }
    let page: Page<PushSubscription> = world.get(ann, "/v1/users/me/push-subscriptions").await.is();
    let told: Vec<_> = page.items.iter().map(|item| (item.subscription_id, item.current)).collect();
    assert_eq!(told, [(ids[0], true), (ids[1], false)]);
    assert!(page.items.iter().all(|item| item.service == "https://push.example.net"));
    let key = world.get(ann, "/v1/push/vapid-public-key").await.json();
    assert_eq!(key["public_key"].as_str().unwrap().len(), 87, "65 bytes");
}
