//! Queries that read from a replica of the database, which goes and comes back under traffic.

use reqwest::StatusCode;
use testkit::{
    app::{App, Role},
    eventually,
};

use crate::crowd::Crowd;
use crate::people::{BOUND, person, place_on_stack};

const CLIENTS: usize = 12;
const CONVERSATIONS: usize = 3;
const EACH: usize = 6;

/// How many query-apis say that they read from the replica.
async fn on_replica(app: &mut App) -> usize {
    let mut count = 0;
    for query_api in app.roles().unwrap().addresses(Role::QueryApi) {
        let figures = reqwest::get(format!("{query_api}/metrics")).await.unwrap().text().await.unwrap();
        count += figures.lines().filter(|line| *line == "parlance_replica_in_use 1").count();
    }
    count
}

async fn talk(crowd: &mut Crowd, what: &str) {
    for send in crowd.say(what, EACH) {
        send.await.unwrap();
    }
    crowd.arrived().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_goes_and_comes_back_is_not_missed() {
    let place = place_on_stack().await;
    let (replica, url) = place.engines().unwrap().replica().unwrap();
    let place = place.with("DATABASE_READ_URL", &url);
    let shown = place.command(&["config"]).output().await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("# database_read_url is set and hidden (environment DATABASE_READ_URL)"), "{shown}");
    let mut app = place.start().await.unwrap();
    eventually("the replica is read", BOUND, async || on_replica(&mut app).await == 2).await;
    let mut crowd = Crowd::online(&app.server(), CLIENTS, CONVERSATIONS).await;
    talk(&mut crowd, "from the replica").await;

    // What one wrote one reads, strictly, whichever database answers.
    let ann = person(&app.server(), "ann").await;
    let room = ann.create_group("us", Vec::new()).await.unwrap().conversation_id;
    let token = ann.tokens().await.access_token;
    let http = reqwest::Client::new();
    let mut said = 0;
    let mut says_and_reads = async |times: usize| {
        for _ in 0..times {
            let sent = ann.send(room, &parlance_client::text_message("word")).await.unwrap();
            said += 1;
            assert_eq!(ann.at_least(&sent.position).strictly().history(room, 0).await.unwrap().len(), said);
            // Nobody is even told to try again.
            let list = http.get(format!("{}/v1/conversations/{room}", app.address())).bearer_auth(&token);
            assert_eq!(list.send().await.unwrap().status(), StatusCode::OK);
        }
    };
    says_and_reads(20).await;
    replica.kill().unwrap();
    says_and_reads(20).await;
    talk(&mut crowd, "from the primary").await;
    replica.start_again().unwrap();
    eventually("the replica is read again", BOUND, async || on_replica(&mut app).await == 2).await;
    let sent = ann.send(room, &parlance_client::text_message("word")).await.unwrap();
    assert_eq!(ann.at_least(&sent.position).strictly().history(room, 0).await.unwrap().len(), 41);
    talk(&mut crowd, "from the replica again").await;
    crowd.end().await;
    assert!(app.stop().await.unwrap().success());
}
