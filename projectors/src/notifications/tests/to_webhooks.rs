//! Webhooks, and what they do not take.

use super::*;

#[tokio::test]
async fn webhooks_are_told_what_they_asked_for_from_when_they_were_made() {
    let scene = Scene::new().await;
    scene.append(registered(7, "before")).await;
    let (id, secret) = scene.webhook(&["user.registered", "message.sent"]).await;
    let mut room = scene.room(5).await;
    let expected = [scene.append(registered(8, "gus")).await, scene.append(room.said(ann())).await];
    scene.settled().await;
    let told = scene.hook.told();
    assert_eq!(told.iter().map(|told| told.id).collect::<HashSet<_>>(), HashSet::from(expected));
    assert!(told.len() == 2 && told.iter().all(|told| told.is_signed_by(&secret)));
    let event = told.iter().find(|told| told.id == expected[1]).unwrap().event();
    assert_eq!((&event["id"], &event["type"]), (&expected[1].to_string().into(), &"message.sent".into()));
    assert_eq!(event["dataschema"], "https://chat.example.org/schemas/message.sent/1.json");
    assert_eq!(event["data"]["content"], "word 2");
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT secret FROM state.webhooks").fetch_one(scene.database.pool()).await.unwrap();
    assert!(!sealed.windows(8).any(|part| secret.as_bytes().windows(8).any(|clear| clear == part)));
    // Switched off it is told nothing of what happens then.
    assert!(webhooks::set_enabled(scene.database.pool(), id, false).await.unwrap());
    scene.append(registered(9, "meanwhile")).await;
    scene.settled().await;
    assert!(webhooks::set_enabled(scene.database.pool(), id, true).await.unwrap());
    let last = scene.append(registered(10, "hal")).await;
    scene.settled().await;
    assert_eq!(
        scene.hook.told().iter().map(|told| told.id).filter(|id| !expected.contains(id)).collect::<Vec<_>>(),
        [last]
    );
    assert!(webhooks::remove(scene.database.pool(), id).await.unwrap());
    assert!(!webhooks::remove(scene.database.pool(), id).await.unwrap());
}

#[tokio::test]
async fn what_fails_is_given_up_in_the_end_and_tried_again_when_told() {
    let scene = Scene::new().await;
    let (id, secret) = scene.webhook(&["user.registered"]).await;
    scene.hook.behave(Manner::Answers(500));
    let event_id = scene.append(registered(8, "gus")).await;
    scene.settled().await;
    assert_eq!(scene.hook.told().len(), 3, "as often as the settings say");
    let pool = scene.database.pool();
    let dead = webhooks::failed(pool, Some(id), 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].event_id, dead[0].attempts, dead[0].error.as_str()), (event_id, 3, "answered 500"));
    assert_eq!(webhooks::list(pool).await.unwrap()[0].failed, 1);
    assert_eq!(webhooks::retry(pool, Some(Uuid::nil())).await.unwrap(), 0);
    scene.hook.behave(Manner::Answers(204));
    assert_eq!(webhooks::retry(pool, Some(event_id)).await.unwrap(), 1);
    scene.settled().await;
    let told = scene.hook.told();
    assert!(told.len() == 4 && told.iter().all(|told| told.id == event_id && told.is_signed_by(&secret)));
    assert!(webhooks::failed(pool, None, 10).await.unwrap().is_empty());
    // One that says that it is gone is switched off.
    scene.hook.behave(Manner::Answers(410));
    scene.append(registered(9, "ida")).await;
    scene.settled().await;
    assert!(!webhooks::list(pool).await.unwrap()[0].enabled);
}

#[tokio::test]
async fn a_receiver_that_hangs_or_wants_time_holds_up_no_other() {
    let mut scene = Scene::new().await;
    let slow = Webhook::start().await.unwrap();
    slow.behave(Manner::Hangs);
    let heads = scene.world.log.heads();
    let types = ["user.registered".to_owned()];
    webhooks::add(scene.database.pool(), &scene.keyring, slow.url(), &types, None, &heads).await.unwrap();
    scene.webhook(&["user.registered"]).await;
    for user in 20..60 {
        scene.append(registered(user, "somebody")).await;
    }
    eventually("the other is told all", BOUND, async || scene.hook.told().len() == 40).await;
    assert!(slow.told().len() <= 4, "{}", slow.told().len());
    // Whoever dies with deliveries under way is followed by one that sends them again, under the same ids.
    let before: HashSet<Uuid> = slow.told().iter().map(|told| told.id).collect();
    assert!(!before.is_empty());
    drop(scene.courier.take());
    slow.behave(Manner::Answers(204));
    sqlx::query("UPDATE state.deliveries SET due_at = now()").execute(scene.database.pool()).await.unwrap();
    scene.deliver();
    scene.settled().await;
    let all = slow.told();
    assert_eq!(all.iter().map(|told| told.id).collect::<HashSet<_>>().len(), 40);
    assert!(before.iter().all(|id| all.iter().filter(|told| told.id == *id).count() >= 2));
    assert_eq!(scene.hook.told().len(), 40);
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let scene = Scene::new().await;
    scene.webhook(&["user.registered"]).await;
    scene.hook.behave(Manner::Later(429, 3600));
    scene.append(registered(8, "gus")).await;
    let later =
        "SELECT count(*) FROM state.deliveries WHERE due_at > now() + interval '50 minutes' AND error = 'answered 429'";
    eventually("it is put off", BOUND, async || scene.number(later).await == 1).await;
    assert_eq!(scene.hook.told().len(), 1);
}

#[tokio::test]
async fn a_webhook_that_makes_no_sense_is_not_made() {
    let database = Database::new().await;
    let keyring = Keyring::open(database.pool(), None).await.unwrap();
    let add = async |url: &str, types: &[&str], secret: Option<&str>| {
        let types: Vec<String> = types.iter().map(|name| (*name).to_owned()).collect();
        webhooks::add(database.pool(), &keyring, url, &types, secret, &[]).await
    };
    let url = "https://example.org/hook";
    for bad in ["", "example.org", "ftp://example.org", "http://"] {
        assert!(matches!(add(bad, &["message.sent"], None).await, Err(WebhookError::Url)), "{bad}");
    }
    let unknown = add(url, &["message.sent", "message.lost"], None).await.unwrap_err();
    assert!(unknown.to_string().contains("message.lost") && unknown.to_string().contains("message.read"), "{unknown}");
    assert!(matches!(add(url, &[" "], None).await, Err(WebhookError::NoTypes)));
    assert!(matches!(add(url, &["message.sent"], Some("secret")).await, Err(WebhookError::Secret)));
    assert!(webhooks::list(database.pool()).await.unwrap().is_empty());
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert_eq!(add(url, &["message.sent"], Some(given)).await.unwrap().1, given);
}

#[tokio::test]
async fn a_webhook_whose_secret_cannot_be_opened_is_named_and_holds_up_no_other() {
    let scene = Scene::new().await;
    let pool = scene.database.pool();
    let (other, _) = scene.webhook(&["user.registered"]).await;
    sqlx::query("UPDATE state.webhooks SET secret = '\\x00'").execute(pool).await.unwrap();
    let (id, _) = scene.webhook(&["user.registered"]).await;
    let found = webhooks::receivers(pool, &scene.keyring).await.unwrap();
    assert_eq!((found.all.into_keys().collect(), found.unreadable), (vec![id], vec![other]));
    scene.append(registered(8, "gus")).await;
    eventually("the one that can be is told", BOUND, async || scene.hook.told().len() == 1).await;
    assert!(webhooks::list(pool).await.unwrap().iter().any(|hook| hook.webhook_id == other && hook.waiting == 1));
}

#[tokio::test]
async fn however_many_webhooks_there_are_only_so_many_deliveries_are_under_way() {
    let scene = Scene::new().await;
    scene.hook.behave(Manner::Hangs);
    for _ in 0..12 {
        scene.webhook(&["user.registered"]).await;
    }
    sqlx::query(FOR_EACH_WEBHOOK).bind(4).execute(scene.database.pool()).await.unwrap();
    eventually("all slots are taken", BOUND, async || scene.hook.told().len() >= 32).await;
    let claimed = "SELECT count(*) FROM state.deliveries WHERE attempts > 0";
    assert_eq!(scene.number(claimed).await, 32);
    let of_each = "SELECT count(DISTINCT target_id) FROM state.deliveries WHERE attempts > 0";
    assert_eq!(scene.number(of_each).await, 12);
}
