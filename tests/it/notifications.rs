//! Members who are away are pushed to, and webhooks are told, by the real binary: once, whatever is killed, rebuilt or wiped.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parlance_client::{AdvanceReceipt, Client, Update, text_message};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use reqwest::Method;
use serde_json::Value;
use testkit::{
    app::{App, Place},
    eventually, eventually_some,
    receivers::{Browser, Manner, PushService, Webhook},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    people::{BOUND, everywhere, name, options, person, place, place_on_stack, register},
    records::dense_up_to_the_heads,
};

/// What is read within this time is not pushed: longer than reading it takes here.
const DELAY_MS: &str = "6000";

pub(crate) fn with_receivers(place: Place) -> Place {
    place
        .with("PARLANCE_PUSH_NETWORKS", "any")
        .with("PARLANCE_PUSH_CONTACT", "mailto:admin@example.org")
        .with("PARLANCE_PUSH_DELAY_MS", DELAY_MS)
        .with("PARLANCE_DELIVERY_RETRY_MS", "100")
        .with("PARLANCE_DELIVERY_ATTEMPTS", "2")
}

/// What a command says, if it succeeds.
async fn said(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = timeout(BOUND, place.command(arguments).output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Makes a webhook; its id and secret.
pub(crate) async fn webhook(place: &Place, hook: &Webhook, types: &str) -> (String, String) {
    let made = said(place, &["webhook", "add", hook.url(), "--types", types]).await.unwrap();
    let (id, secret) = made.trim().split_once('\t').unwrap();
    (id.to_owned(), secret.to_owned())
}

/// Asks as somebody, of what the client library knows nothing.
async fn ask(app: &App, client: &Client, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = reqwest::Client::new().request(method, format!("{}{path}", app.address()));
    let request = request.bearer_auth(client.tokens().await.access_token);
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A browser of somebody's, who subscribes as browsers do.
pub(crate) async fn browser(app: &App, pushes: &PushService, client: &Client) -> (Arc<Browser>, Uuid) {
    let key = ask(app, client, Method::GET, "/v1/push/vapid-public-key", None).await.1;
    let browser = pushes.subscribe(key["public_key"].as_str().unwrap());
    let id = Uuid::new_v4();
    let path = format!("/v1/users/me/push-subscriptions/{id}");
    let put = ask(app, client, Method::PUT, &path, Some(browser.subscription())).await;
    assert_eq!((put.0, &put.1["current"]), (200, &true.into()), "{put:?}");
    (browser, id)
}

/// The messages that a browser was told of.
fn read_by(pushes: &PushService, browser: &Browser) -> Vec<Uuid> {
    let endpoint = browser.subscription()["endpoint"].clone();
    let own = pushes.pushed().into_iter().filter(|pushed| endpoint == pushed.endpoint.as_str());
    own.map(|pushed| pushed.message["message_id"].as_str().unwrap().parse().unwrap()).collect()
}

async fn say(client: &Client, conversation: Uuid) -> Uuid {
    client.send(conversation, &text_message("a word")).await.unwrap().message_id
}

everywhere!(who_is_away_is_told_once_and_nobody_else);

async fn who_is_away_is_told_once_and_nobody_else(place: Place) {
    let app = with_receivers(place).start().await.unwrap();
    let (server, place) = (app.server(), app.place().clone());
    let (pushes, hook) = (PushService::start().await.unwrap(), Webhook::start().await.unwrap());
    let (ann, ben, cleo) = (person(&server, "ann").await, person(&server, "ben").await, person(&server, "cleo").await);
    let (_, secret) = webhook(&place, &hook, "message.sent,user.registered").await;
    let direct = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    let group = ann.create_group("trip", vec![ben.user_id(), cleo.user_id()]).await.unwrap().conversation_id;
    let (anns, _) = browser(&app, &pushes, &ann).await;
    let (bens, _) = browser(&app, &pushes, &ben).await;
    let (cleos, cleos_id) = browser(&app, &pushes, &cleo).await;
    // Cleo is connected.
    let (session, mut updates) = cleo.open_session(options()).await.unwrap();
    let synced = timeout(BOUND, async { while !matches!(updates.next().await, Some(Update::Synced)) {} });
    synced.await.expect("she has all that there is");

    // Ben reads one at once, by REST, and is pushed what he did not read.
    let read = ann.send(direct, &text_message("read at once")).await.unwrap();
    let mark = AdvanceReceipt { delivered_to: None, read_to: Some(read.seq) };
    let marked = ben.mark(direct, &mark).await.unwrap();
    let seen = ben.at_least(&marked.position).strictly();
    eventually("it is read", BOUND, async || seen.conversation(direct).await.is_ok_and(|is| is.unread == 0)).await;
    let first = say(&ann, group).await;
    eventually("ben is pushed", BOUND, async || read_by(&pushes, &bens).contains(&first)).await;
    assert_eq!(read_by(&pushes, &bens), [first]);

    // Cleo was not, until she is gone.
    session.close().await;
    drop(updates);
    let second = eventually_some("cleo counts as away", BOUND, async || {
        let message = say(&ann, group).await;
        eventually("ben is pushed it", BOUND, async || read_by(&pushes, &bens).contains(&message)).await;
        read_by(&pushes, &cleos).contains(&message).then_some(message)
    })
    .await;
    assert!(!read_by(&pushes, &cleos).contains(&first));
    // Nothing is told again by a rebuild.
    eventually("the webhook is told", BOUND, async || hook.told().len() >= 3).await;
    let before = (read_by(&pushes, &bens), hook.told().len());
    said(&place, &["rebuild", "all"]).await.unwrap();
    assert!(said(&place, &["rebuild", "notifications"]).await.unwrap().starts_with("notifications: "));

    // Ben logs out, and is pushed nothing more; Cleo takes hers back.
    let (status, list) = ask(&app, &cleo, Method::GET, "/v1/users/me/push-subscriptions", None).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1), "{list}");
    assert!(!list.to_string().contains("/push/"), "{list}");
    ben.log_out().await.unwrap();
    let third = say(&ann, group).await;
    eventually("cleo is pushed", BOUND, async || read_by(&pushes, &cleos).contains(&third)).await;
    assert_eq!(read_by(&pushes, &bens), before.0, "{second} was the last");
    let path = format!("/v1/users/me/push-subscriptions/{cleos_id}");
    assert_eq!(ask(&app, &cleo, Method::DELETE, &path, None).await.0, 200);
    assert_eq!(ask(&app, &cleo, Method::DELETE, &path, None).await.0, 404);
    assert!(read_by(&pushes, &anns).is_empty(), "nobody is pushed what they said themselves");

    let dan = register(&server, &name("dan")).await;
    let told_of = |told: &testkit::receivers::Told| told.event()["data"]["user_id"] == dan.to_string();
    eventually("the webhook is told", BOUND, async || hook.told().iter().any(told_of)).await;
    let told = hook.told();
    assert!(told.iter().all(|told| told.is_signed_by(&secret)));
    // Cleo's trial messages too, but each once.
    assert_eq!(told.len(), told.iter().map(|told| told.id).collect::<HashSet<_>>().len());
    assert_eq!(told.len(), before.1 + 2, "the last message, and who registered");
    assert_eq!(pushes.faults(), [""; 0]);
    assert!(app.stop().await.unwrap().success());
}

everywhere!(a_kill_in_the_middle_sends_again_under_the_same_id);

async fn a_kill_in_the_middle_sends_again_under_the_same_id(place: Place) {
    let mut app = with_receivers(place).start().await.unwrap();
    let (place, hook) = (app.place().clone(), Webhook::start().await.unwrap());
    let (_, secret) = webhook(&place, &hook, "user.registered").await;
    hook.behave(Manner::Hangs);
    register(&app.server(), &name("ann")).await;
    eventually("it is under way", BOUND, async || !hook.told().is_empty()).await;
    app.kill_and_restart(false).await.unwrap();
    hook.behave(Manner::Answers(200));
    let waits = async || said(&place, &["webhook", "list"]).await.unwrap();
    eventually("it was taken", BOUND, async || waits().await.contains("\t0 waiting\t0 failed\t")).await;
    let told = hook.told();
    assert!(told.len() >= 2, "before and after");
    assert!(told.iter().all(|one| one.id == told[0].id && one.is_signed_by(&secret)));
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_was_wiped_and_a_replay_tell_nothing_again() {
    let app = with_receivers(place_on_stack().await).start().await.unwrap();
    let place = app.place().clone();
    let (pushes, hook) = (PushService::start().await.unwrap(), Webhook::start().await.unwrap());
    webhook(&place, &hook, "message.sent").await;
    let (ann, ben) = (person(&app.server(), "ann").await, person(&app.server(), "ben").await);
    let direct = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    let (bens, _) = browser(&app, &pushes, &ben).await;
    let mut messages = Vec::new();
    for _ in 0..5 {
        messages.push(say(&ann, direct).await);
    }
    let all = async |said: &[Uuid]| {
        eventually("all is told", BOUND, async || {
            let read: HashSet<Uuid> = read_by(&pushes, &bens).into_iter().collect();
            said.iter().all(|message| read.contains(message)) && hook.told().len() >= said.len()
        })
        .await;
    };
    all(&messages).await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", place.engines().unwrap().kafka.address()).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    let topics = ["parlance.users.v1", "parlance.conversations.v1"];
    assert!(admin.delete_topics(&topics, &options).await.unwrap().iter().all(Result::is_ok));
    dense_up_to_the_heads(&app).await;
    messages.push(say(&ann, direct).await);
    all(&messages).await;
    said(&place, &["replay", topics[1], "--from", "1"]).await.unwrap();
    messages.push(say(&ann, direct).await);
    all(&messages).await;
    let read = read_by(&pushes, &bens);
    assert_eq!(read.iter().collect::<HashSet<_>>().len(), messages.len());
    assert_eq!((read.len(), hook.told().len()), (messages.len(), messages.len()), "each once");
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_webhook_does_not_take_is_kept_and_tried_again_by_a_command() {
    let app = with_receivers(place()).start().await.unwrap();
    let (place, hook) = (app.place().clone(), Webhook::start().await.unwrap());
    let refused = said(&place, &["webhook", "add", hook.url(), "--types", "message.sent,message.lost"]).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("message.lost") && refused.contains("message.delivered"), "{refused}");
    let (id, _) = webhook(&place, &hook, "user.registered").await;
    hook.behave(Manner::Answers(503));
    register(&app.server(), &name("ann")).await;
    let list = async || said(&place, &["webhook", "list"]).await.unwrap();
    eventually("it is given up", BOUND, async || list().await.contains("\t0 waiting\t1 failed\t")).await;
    let failed = said(&place, &["webhook", "failed", &id]).await.unwrap();
    assert!(failed.contains("2 tries\tuser.registered\tanswered 503"), "{failed}");
    assert_eq!(hook.told().len(), 2);
    hook.behave(Manner::Answers(200));
    assert_eq!(said(&place, &["webhook", "retry", &id]).await.unwrap(), "1 tried again\n");
    eventually("it is taken", BOUND, async || list().await.contains("\t0 waiting\t0 failed\t")).await;
    assert_eq!(hook.told().len(), 3);

    said(&place, &["webhook", "disable", &id]).await.unwrap();
    assert!(list().await.contains("\tdisabled\t"));
    said(&place, &["webhook", "enable", &id]).await.unwrap();
    assert!(list().await.contains("\tenabled\t"));
    said(&place, &["webhook", "remove", &id]).await.unwrap();
    assert_eq!(list().await, "");
    assert!(said(&place, &["webhook", "remove", &id]).await.unwrap_err().contains("there is no webhook"));
    assert!(app.stop().await.unwrap().success());
}
