//! What is kept of answers is never older than what is asked for, and lets nobody in who was removed, though Redis is
//! emptied all along.

use parlance_client::{ChangeProfile, Client};
use reqwest::StatusCode;
use schemas::{PositionToken, Role as MemberRole};
use testkit::{
    app::{App, Place, Role},
    eventually,
};
use uuid::Uuid;

use crate::people::{BOUND, everywhere, log_in, name, person, register};

/// Rounds: in each third one Redis is emptied before the change, in each third one after it.
const ROUNDS: usize = 9;

everywhere!(what_is_kept_is_as_new_as_is_asked_for);

async fn what_is_kept_is_as_new_as_is_asked_for(place: Place) {
    let mut app = place.start().await.unwrap();
    let server = app.server();
    let ann_name = name("ann");
    register(&server, &ann_name).await;
    let ann = log_in(&server, &ann_name).await;
    let (ben, guest) = (person(&server, "ben").await, person(&server, "guest").await);
    let room = ann.create_group("us", vec![ben.user_id()]).await.unwrap().conversation_id;
    for round in 0..ROUNDS {
        let emptied = |when: usize| {
            if let Some(engines) = place.engines().filter(|_| round % 3 == when) {
                engines.redis.flush().unwrap();
            }
        };
        sessions_end(&server, &ann_name, &ann, emptied).await;
        members_come_and_go(&ann, &ben, &guest, room, emptied).await;
        members_are_called_otherwise(&ann, &ben, room, &format!("Ann the {round}th"), emptied).await;
    }
    they_were_in_use(&mut app).await;
    assert!(app.stop().await.unwrap().success());
}

async fn sessions_end(server: &parlance_client::Server, name: &str, ann: &Client, emptied: impl Fn(usize)) {
    let phone = log_in(server, name).await.identity().session_id;
    let has = async |client: &Client| {
        client.sessions().await.unwrap().items.iter().any(|session| session.session_id == phone)
    };
    eventually("the phone is listed", BOUND, async || has(ann).await && has(ann).await).await;
    emptied(0);
    let ended = end_session(ann, phone).await;
    emptied(1);
    let since = ann.at_least(&ended).strictly();
    assert!(!has(&since).await, "it has ended");
    assert!(!has(&since).await && !has(ann).await, "and is not back");
}

/// Ends a session; answers where that stands.
async fn end_session(client: &Client, session: Uuid) -> PositionToken {
    let answer = reqwest::Client::new()
        .delete(format!("{}/v1/sessions/{session}", client.server().address().trim_end_matches('/')))
        .bearer_auth(client.tokens().await.access_token)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    answer.headers()["position"].to_str().unwrap().parse().unwrap()
}

async fn members_come_and_go(ann: &Client, ben: &Client, guest: &Client, room: Uuid, emptied: impl Fn(usize)) {
    let there = async |client: &Client| -> Result<bool, u16> {
        match client.members(room, None).await {
            Ok(members) => Ok(members.items.iter().any(|member| member.user_id == guest.user_id())),
            Err(error) => Err(error.status().unwrap()),
        }
    };
    let came = ann.put_member(room, guest.user_id(), MemberRole::Member).await.unwrap().position;
    for client in [ann, ben, guest, guest] {
        assert_eq!(there(&client.at_least(&came).strictly()).await, Ok(true));
    }
    emptied(0);
    let went = ann.remove_member(room, guest.user_id()).await.unwrap().position;
    emptied(1);
    assert_eq!(there(&guest.at_least(&went).strictly()).await, Err(403));
    for client in [ben, ann] {
        assert_eq!(there(&client.at_least(&went).strictly()).await, Ok(false));
        assert_eq!(there(client).await, Ok(false), "and is not back");
    }
    assert_eq!(there(guest).await, Err(403));
    let changed = ann.put_member(room, ben.user_id(), MemberRole::Admin).await.unwrap().position;
    let members = ann.at_least(&changed).strictly().members(room, None).await.unwrap();
    assert!(members.items.iter().any(|member| member.user_id == ben.user_id() && member.role == MemberRole::Admin));
    ann.put_member(room, ben.user_id(), MemberRole::Member).await.unwrap();
}

async fn members_are_called_otherwise(ann: &Client, ben: &Client, room: Uuid, name: &str, emptied: impl Fn(usize)) {
    emptied(0);
    let change = ChangeProfile { display_name: Some(name.to_owned()) };
    let changed = ann.change_profile(&change).await.unwrap().position;
    emptied(1);
    for client in [ben.at_least(&changed).strictly(), ben.clone()] {
        let members = client.members(room, None).await.unwrap().items;
        let shown = members.into_iter().find(|member| member.user_id == ann.user_id()).unwrap();
        assert_eq!(shown.display_name.as_deref(), Some(name));
    }
}

/// Where there is a Redis, not all of that came from the database.
async fn they_were_in_use(app: &mut App) {
    let Some(roles) = app.roles() else { return };
    let mut figures = String::new();
    for query_api in roles.addresses(Role::QueryApi) {
        figures += &reqwest::get(format!("{query_api}/metrics")).await.unwrap().text().await.unwrap();
    }
    for list in ["sessions", "members"] {
        let good = |line: &&str| line.contains(&format!("list=\"{list}\"")) && line.contains("outcome=\"good\"");
        let counted = figures.lines().filter(|line| line.starts_with("parlance_cache_total")).find(good);
        assert!(counted.is_some(), "no kept {list} were answered:\n{figures}");
    }
}
