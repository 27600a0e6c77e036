//! Roles in other combinations, engines moved to one at a time, and what refuses to start.

use std::time::Duration;

use parlance_client::{Client, Server, text_message};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use testkit::{
    app::{Place, Serving},
    eventually,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::people::{BOUND, PASSWORD, name, options, person, place, place_on_stack, register};

/// Two people and their conversation, which outlives every change of what it runs on.
struct Talk {
    names: [String; 2],
    conversation: Uuid,
    said: u64,
}

impl Talk {
    async fn begin(server: &Server) -> Self {
        let names = ["ann", "ben"].map(name);
        for name in &names {
            register(server, name).await;
        }
        let [ann, ben] = [log_in(server, &names[0]).await, log_in(server, &names[1]).await];
        let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
        Self { names, conversation, said: 0 }
    }

    /// One goes on talking, the other hears it live and reads all that was ever said.
    async fn go_on(&mut self, server: &Server) {
        let [ann, ben] = [log_in(server, &self.names[0]).await, log_in(server, &self.names[1]).await];
        let (session, mut updates) = ben.open_session(options()).await.unwrap();
        let mut position = None;
        for _ in 0..10 {
            let sent = ann.send(self.conversation, &text_message(format!("message {}", self.said))).await.unwrap();
            self.said += 1;
            assert_eq!(sent.seq, 1 + self.said);
            position = Some(sent.position);
        }
        let heard = timeout(BOUND, async {
            loop {
                if let Some(parlance_client::Update::Event(event)) = updates.next().await
                    && event.seq == 1 + self.said
                {
                    return;
                }
            }
        });
        heard.await.expect("it is heard");
        session.close().await;
        let history = ben.at_least(&position.unwrap()).strictly().history(self.conversation, 0).await.unwrap();
        assert_eq!(history.len() as u64, self.said);
    }
}

async fn log_in(server: &Server, name: &str) -> Client {
    server.log_in(name, PASSWORD, None).await.unwrap()
}

async fn stop(processes: Vec<Serving>) {
    for process in processes {
        assert!(process.stop().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_are_moved_to_one_at_a_time_and_roles_are_combined_at_will() {
    let place = place_on_stack().await;
    let alone = place.clone().without("KAFKA_BROKERS").without("REDIS_URL");
    let first = alone.serve(&["up"]).await.unwrap();
    let mut talk = Talk::begin(&first.server()).await;
    talk.go_on(&first.server()).await;
    stop(vec![first]).await;
    // One process on PostgreSQL and Kafka, on PostgreSQL and Redis, on all of them.
    for place in [place.clone().without("REDIS_URL"), place.clone().without("KAFKA_BROKERS"), place.clone()] {
        let one = place.serve(&["up"]).await.unwrap();
        talk.go_on(&one.server()).await;
        stop(vec![one]).await;
    }
    // All roles, by `serve`, needs the database alone.
    let all = ["serve", "--roles", "command-api,query-api,projectors,relay"];
    let one = alone.serve(&all).await.unwrap();
    talk.go_on(&one.server()).await;
    stop(vec![one]).await;
    for split in [["command-api,query-api", "projectors,relay"], ["relay,command-api,query-api", "projectors"]] {
        let [front, back] = split.map(|roles| ["serve", "--roles", roles]);
        let (front, back) = (place.serve(&front).await.unwrap(), place.serve(&back).await.unwrap());
        talk.go_on(&front.server()).await;
        stop(vec![front, back]).await;
    }
    // Several that are everything: the one is told live what came in by the other.
    let (one, other) = (place.serve(&["up"]).await.unwrap(), place.serve(&all).await.unwrap());
    talk.go_on(&one.server()).await;
    talk.go_on(&other.server()).await;
    stop(vec![one, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_is_away_commands_go_on_and_all_arrives_after_it() {
    let place = place_on_stack().await;
    let mut app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    let (session, mut updates) = ben.open_session(options()).await.unwrap();
    let synced =
        timeout(BOUND, async { while !matches!(updates.next().await, Some(parlance_client::Update::Synced)) {} });
    synced.await.expect("it has all that there is");
    let kafka = &place.engines().unwrap().kafka;
    kafka.kill().await.unwrap();
    for n in 0..50 {
        let sent = ann.send(conversation, &text_message(format!("message {n}"))).await.unwrap();
        assert_eq!(sent.seq, 2 + n);
    }
    let relays = app.roles().unwrap().addresses(testkit::app::Role::Relay);
    let http = reqwest::Client::new();
    let health = async |address: &str| {
        let answer = http.get(format!("{address}/health/ready")).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    for relay in &relays {
        eventually("the relay says that Kafka is away", BOUND, async || {
            let (status, body) = health(relay).await;
            status == 200 && body["status"] == "degraded" && body["dependencies"]["kafka"]["status"] == "down"
        })
        .await;
    }
    let commands = app.roles().unwrap().addresses(testkit::app::Role::CommandApi);
    assert_eq!(health(&commands[0]).await.1["status"], "ok", "it does not use Kafka");
    kafka.start_again().await.unwrap();
    let heard = timeout(BOUND, async {
        let mut next = 2;
        while next <= 51 {
            if let Some(parlance_client::Update::Event(event)) = updates.next().await {
                assert_eq!(event.seq, next);
                next += 1;
            }
        }
    });
    heard.await.expect("all of it comes, in order");
    session.close().await;
    for relay in &relays {
        let well = async || health(relay).await.1["status"] == "ok";
        eventually("the relay is well again", BOUND, well).await;
    }
    assert!(app.stop().await.unwrap().success());
}

/// What a command says before it ends, and by which code.
async fn refused(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let output = timeout(Duration::from_mins(1), place.command(arguments).output()).await.expect("it ends").unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_apart_name_the_engines_that_nobody_told_them_of() {
    let (code, said) = refused(&place(), &["serve", "--roles", "query-api,relay"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(["DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL"].iter().all(|name| said.contains(name)), "{said}");
    let (code, said) = refused(&place(), &["serve", "--roles", "gateway"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("command-api,query-api,projectors,relay"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_refuses_topics_that_are_not_as_they_have_to_be() {
    let place = place_on_stack().await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", place.engines().unwrap().kafka.address()).create().unwrap();
    let wrong = NewTopic::new("parlance.users.v1", 3, TopicReplication::Fixed(1));
    admin.create_topics([&wrong], &AdminOptions::new()).await.unwrap();
    let (code, said) = refused(&place, &["serve", "--roles", "relay", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("parlance.users.v1") && said.contains("3 partitions"), "{said}");
}
