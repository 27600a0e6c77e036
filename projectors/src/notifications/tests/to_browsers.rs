//! Browsers of those who are away.

use super::*;

#[tokio::test]
async fn who_is_away_is_pushed_once_and_nobody_else() {
    let scene = Scene::new().await;
    let (anns, bens, cleos) =
        (scene.browser(ann(), 11).await, scene.browser(ben(), 12).await, scene.browser(cleo(), 13).await);
    // Cleo is connected, on another device than the one with the browser.
    scene.append(session(3, 14, Event::SessionStarted)).await;
    scene.live.connected(connected(cleo(), 14)).await;
    let mut room = scene.room(5).await;
    let event_id = scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.read_by(&bens), [2]);
    assert_eq!((scene.read_by(&anns), scene.read_by(&cleos)), (vec![], vec![]));
    let pushed = scene.pushes.pushed().remove(0);
    let expected = serde_json::json!({
        "type": "message.sent", "event_id": event_id, "conversation_id": room.id, "seq": 2,
        "message_id": Uuid::from_u64_pair(5, 2), "sender_id": ann(), "sent_at": pushed.message["sent_at"],
    });
    assert_eq!(pushed.message, expected, "and nothing that was said");
    assert_eq!(pushed.topic.len(), 22);
    // She goes, and is told of what comes then.
    scene.live.disconnected(connected(cleo(), 14)).await;
    scene.append(room.said(ann())).await;
    scene.append(room.left(ben())).await;
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.read_by(&cleos), [3, 5]);
    let bens = scene.read_by(&bens);
    assert!(bens == [2, 3] || bens == [2], "he left, and may have been before it was told: {bens:?}");
}

#[tokio::test]
async fn what_was_read_deleted_or_logged_out_meanwhile_is_not_pushed() {
    let mut scene = Scene::with(NotificationSettings { delay: Duration::from_hours(1), ..settings() }).await;
    let (bens, cleos) = (scene.browser(ben(), 12).await, scene.browser(cleo(), 13).await);
    let mut room = scene.room(5).await;
    for _ in 0..2 {
        scene.append(room.said(ann())).await;
    }
    let waiting = "SELECT count(*) FROM state.deliveries WHERE attempts = 0";
    eventually("they wait", BOUND, async || scene.number(waiting).await == 4).await;
    // Ben reads the first, the second is deleted; Cleo logs out.
    scene.append(room.read(ben(), 2, 2)).await;
    applied_all(&scene.world, scene.database.pool()).await;
    for change in [
        "UPDATE read.timeline SET content = NULL WHERE seq = 3",
        "INSERT INTO state.revoked_sessions VALUES ('00000000-0000-0000-0000-00000000000d')",
        "UPDATE state.deliveries SET due_at = now()",
    ] {
        sqlx::query(change).execute(scene.database.pool()).await.unwrap();
    }
    scene.deliver();
    scene.settled().await;
    assert_eq!((scene.read_by(&bens), scene.read_by(&cleos)), (vec![], vec![]));
    assert_eq!(scene.number("SELECT count(*) FROM state.dead_deliveries").await, 0);
}

#[tokio::test]
async fn the_settings_may_have_it_told_what_was_said_and_until_when() {
    let told = NotificationSettings { content: true, max_age: Duration::from_mins(10), ..settings() };
    let scene = Scene::with(told).await;
    let bens = scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    // Long ago, as events of the tests are by themselves.
    scene.world.append(room.said(ann())).await;
    let mut record = (*scene.world.log.append(room.said(ann()))).clone();
    record.at = OffsetDateTime::now_utc() - Duration::from_mins(11);
    scene.world.bus.publish(&[Arc::new(record)]).await.unwrap();
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.read_by(&bens), [4]);
    assert_eq!(scene.pushes.pushed()[0].message["content"], "word 4");
}

#[tokio::test]
async fn a_browser_that_is_gone_is_forgotten_and_one_that_is_busy_asked_again() {
    let scene = Scene::new().await;
    let bens = scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    scene.pushes.behave(Manner::Answers(429));
    scene.append(room.said(ann())).await;
    eventually("it is tried", BOUND, async || !scene.pushes.pushed().is_empty()).await;
    scene.pushes.behave(Manner::Answers(201));
    scene.settled().await;
    let read = scene.read_by(&bens);
    assert!(read.len() >= 2 && read.iter().all(|seq| *seq == 2), "{read:?}");
    let ids: HashSet<String> = scene.pushes.pushed().iter().map(|one| one.message["event_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "repeats are known by their id");
    // What it takes from nobody is given up at once.
    scene.pushes.behave(Manner::Answers(413));
    scene.append(room.said(ann())).await;
    scene.settled().await;
    let dead = webhooks::failed(scene.database.pool(), None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|dead| (dead.attempts, dead.error.as_str())).collect::<Vec<_>>(), [(1, "answered 413")]);
    scene.pushes.behave(Manner::Answers(410));
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.number("SELECT count(*) FROM state.push_subscriptions").await, 0);
}

#[tokio::test]
async fn no_browser_in_a_private_network_is_called_unless_it_may_be() {
    let scene = Scene::with(NotificationSettings { anywhere: false, ..settings() }).await;
    scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert!(scene.pushes.pushed().is_empty());
    let dead = webhooks::failed(scene.database.pool(), None, 10).await.unwrap();
    assert_eq!(dead[0].error, "its endpoint is not on the public internet");
}

#[tokio::test]
async fn a_push_service_that_hangs_holds_up_no_other_user() {
    let scene = Scene::new().await;
    let tarpit = PushService::start().await.unwrap();
    tarpit.behave(Manner::Hangs);
    // Ben's browsers are all there, Cleo's is where it should be.
    for number in 20..30 {
        scene.browser_at(&tarpit, ben(), number).await;
    }
    let cleos = scene.browser(cleo(), 13).await;
    let mut room = scene.room(5).await;
    for _ in 0..10 {
        scene.append(room.said(ann())).await;
    }
    eventually("she is told all", BOUND, async || scene.read_by(&cleos).len() == 10).await;
    assert!(tarpit.pushed().len() <= 16, "{}", tarpit.pushed().len());
}

#[tokio::test]
async fn many_whose_push_service_never_answers_hold_up_neither_others_nor_webhooks() {
    let scene = Scene::new().await;
    let tarpit = PushService::start().await.unwrap();
    tarpit.behave(Manner::Hangs);
    let crowd: Vec<Uuid> = (100..140).map(Uuid::from_u128).collect();
    for (user, number) in crowd.iter().zip(200..) {
        scene.browser_at(&tarpit, *user, number).await;
    }
    let mut room = Room::new(6);
    let members: Vec<(Uuid, Role)> = crowd.iter().map(|user| (*user, Role::Member)).collect();
    scene.append(room.created(&[&[(ann(), Role::Owner)], &members[..]].concat())).await;
    for _ in 0..4 {
        scene.append(room.said(ann())).await;
    }
    eventually("they hang", BOUND, async || tarpit.pushed().len() >= 32).await;
    let cleos = scene.browser(cleo(), 13).await;
    let mut room = scene.room(5).await;
    scene.webhook(&["message.sent"]).await;
    scene.append(room.said(ann())).await;
    // Before the first of those that hang is given up.
    let told = async || scene.read_by(&cleos).len() == 1 && scene.hook.told().len() == 1;
    eventually("she is told, and the webhook", Duration::from_secs(8), told).await;
    assert_eq!(tarpit.pushed().len(), 32);
}

#[tokio::test]
async fn what_cannot_be_asked_costs_what_was_claimed_no_try() {
    let scene = Scene::new().await;
    scene.webhook(&["user.registered"]).await;
    let bens = scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    scene.append(room.said(ann())).await;
    scene.settled().await;
    let pool = scene.database.pool();
    let mut broken = pool.begin().await.unwrap();
    sqlx::query("ALTER TABLE read.timeline RENAME TO elsewhere").execute(&mut *broken).await.unwrap();
    sqlx::query(FOR_EACH_WEBHOOK).bind(10).execute(&mut *broken).await.unwrap();
    sqlx::query(
        "INSERT INTO state.deliveries \
                (event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, due_at) \
         SELECT gen_random_uuid(), target_id, 'push', 'message.sent', $1, user_id, $2, 2, now(), now() \
           FROM state.push_subscriptions",
    )
    .bind(&scene.pushes.pushed()[0].message)
    .bind(room.id)
    .execute(&mut *broken)
    .await
    .unwrap();
    broken.commit().await.unwrap();
    eventually("the webhook is told", BOUND, async || scene.hook.told().len() == 10).await;
    assert_eq!(scene.number("SELECT count(*) FROM state.deliveries WHERE attempts > 0").await, 0);
    sqlx::query("ALTER TABLE read.elsewhere RENAME TO timeline").execute(pool).await.unwrap();
    scene.settled().await;
    assert_eq!(scene.read_by(&bens), [2, 2]);
}
