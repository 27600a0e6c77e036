//! Who did what is told to operators; and what was done to the log is found out, whoever did it.

use std::{fs, process::Output};

use notary::SigningKey;
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testkit::{
    app::{App, Place},
    eventually, eventually_some,
};

use crate::people::{BOUND, PASSWORD, everywhere, name, register};

everywhere!(operators_see_who_did_what_and_are_seen_themselves);
everywhere!(a_log_that_was_touched_is_found_out_by_what_was_signed);

/// A place with a key, wherever its database is.
fn with_key(place: Place) -> Place {
    let path = place.data_dir().join("of-the-test.key");
    if place.engines().is_none() {
        return place;
    }
    SigningKey::read_or_make(&path).unwrap();
    let file = place.data_dir().join("heads.jsonl");
    place.with("PARLANCE_AUDIT_KEY_FILE", path.to_str().unwrap()).with("PARLANCE_AUDIT_FILE", file.to_str().unwrap())
}

async fn run(place: &Place, arguments: &[&str]) -> Output {
    place.command(arguments).output().await.unwrap()
}

/// What a command that succeeds prints.
async fn printed(place: &Place, arguments: &[&str]) -> String {
    let output = run(place, arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A user's token.
async fn token(app: &App, username: &str) -> String {
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/sessions", app.address()))
        .header(header::USER_AGENT, "a test/1")
        .json(&json!({"login": username, "password": PASSWORD}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
}

async fn audit(app: &App, token: &str, query: &str) -> (StatusCode, Value) {
    let request = reqwest::Client::new().get(format!("{}/v1/audit?{query}", app.address())).bearer_auth(token);
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn operators_see_who_did_what_and_are_seen_themselves(place: Place) {
    let app = place.start().await.unwrap();
    let place = app.place();
    let server = app.server();
    let (ann, ben) = (name("ann"), name("ben"));
    let ann_id = register(&server, &ann).await;
    let ben_id = register(&server, &ben).await;
    let token = token(&app, &ann).await;
    assert_eq!(audit(&app, &token, "").await.0, StatusCode::FORBIDDEN);

    assert!(printed(place, &["role", "grant", &ann, "operator"]).await.contains("from now on"));
    assert!(printed(place, &["role", "grant", &ann, "operator"]).await.contains("already"));
    assert_eq!(printed(place, &["role", "list"]).await, format!("operator\t{ann_id}\t{ann}\n"));
    assert!(!run(place, &["role", "grant", "nobody-at-all", "operator"]).await.status.success());

    // What was done is told soon, of the reading itself too; names as soon as they are known here.
    eventually("the read model knows them", BOUND, async || {
        audit(&app, &token, &format!("actor={ann}&object={ben}")).await.0 == StatusCode::OK
    })
    .await;
    let (status, _) = audit(&app, &token, &format!("object={ben_id}")).await;
    assert_eq!(status, StatusCode::OK);
    let types = async |query: &str| -> Vec<String> {
        let (status, page) = audit(&app, &token, query).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["items"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap().to_owned()).collect()
    };
    eventually("the audit has come so far", BOUND, async || {
        types(&format!("actor={ann}&type=user.audit_read")).await.len() > 1
    })
    .await;
    assert_eq!(types(&format!("object={ben_id}")).await, ["user.registered"]);
    let of_ann = types(&format!("object={ann_id}&type=user.role_granted")).await;
    assert_eq!(of_ann, ["user.role_granted"]);
    let (_, page) = audit(&app, &token, &format!("actor={ann}&type=session.started")).await;
    let started = &page["items"][0];
    assert_eq!((&started["actor_id"], &started["actor_username"]), (&json!(ann_id), &json!(ann)));
    assert_eq!((&started["address"], &started["user_agent"]), (&json!("127.0.0.1"), &json!("a test/1")));
    let readings = audit(&app, &token, "type=user.audit_read").await.1;
    assert_eq!(readings["items"][0]["session_id"], started["session_id"]);

    // On the command line the same.
    let lines = printed(place, &["audit", "--actor", &ann, "--type", "session.started", "--json"]).await;
    let entry: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(&entry, started);
    let table = printed(place, &["audit", "--object", &ben, "--limit", "1"]).await;
    assert!(table.lines().count() == 2 && table.contains("user.registered"), "{table}");
    // Rebuilt, it is what it was.
    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    audit_has_all(&mut database).await;
    database.close().await.unwrap();
    let before = printed(place, &["audit", "--until", "2100-01-01T00:00:00Z", "--limit", "0", "--json"]).await;
    printed(place, &["rebuild", "audit"]).await;
    assert_eq!(printed(place, &["audit", "--limit", "0", "--json"]).await, before);

    assert!(printed(place, &["role", "revoke", &ann, "operator"]).await.contains("any more"));
    assert_eq!(audit(&app, &token, "").await.0, StatusCode::FORBIDDEN);
    assert!(app.stop().await.unwrap().success());
}

async fn audit_has_all(database: &mut PgConnection) {
    eventually("the audit has all", BOUND, async || {
        let all = "SELECT (SELECT count(*) FROM read.audit) = (SELECT sum(head) FROM log.shards)";
        sqlx::query_scalar(all).fetch_one(&mut *database).await.unwrap()
    })
    .await;
}

/// Changes an event of a user by a byte, and links it and all that follow it anew: by itself the log is whole.
async fn forge(database: &mut PgConnection, shard: i16, position: i64) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "UPDATE log.events SET payload = (payload::text || ' ')::json
          WHERE topic = 0 AND shard = {shard} AND position = {position};
         DO $$
         DECLARE
             e log.events;
             link bytea := sha256(convert_to('parlance log, topic 0, shard {shard}', 'UTF8'));
         BEGIN
             FOR e IN SELECT * FROM log.events WHERE topic = 0 AND shard = {shard} ORDER BY position LOOP
                 link := sha256(link || int2send(e.topic) || int2send(e.shard) || int8send(e.position) || uuid_send(e.key)
                     || coalesce('\\x01' || int8send(e.seq), '\\x00')
                     || int2send(e.aggregate_type) || uuid_send(e.aggregate_id) || int4send(e.sequence)
                     || uuid_send(e.event_id)
                     || int4send(octet_length(e.event_type)) || convert_to(e.event_type, 'UTF8')
                     || int2send(e.event_version) || int8send((extract(epoch FROM e.at) * 1000000)::bigint)
                     || int4send(octet_length(e.payload::text)) || convert_to(e.payload::text, 'UTF8')
                     || coalesce('\\x01' || int4send(octet_length(e.metadata::text))
                                 || convert_to(e.metadata::text, 'UTF8'), '\\x00'));
                 UPDATE log.events SET hash = link
                  WHERE topic = 0 AND shard = {shard} AND position = e.position;
             END LOOP;
             UPDATE log.shards SET chain = link WHERE topic = 0 AND shard = {shard};
         END $$"
    )))
    .execute(database)
    .await
    .unwrap();
}

async fn a_log_that_was_touched_is_found_out_by_what_was_signed(place: Place) {
    let app = with_key(place).start().await.unwrap();
    let place = app.place().clone();
    let server = app.server();
    for _ in 0..3 {
        register(&server, &name("ann")).await;
    }
    let verified = async || {
        let output = run(&place, &["verify"]).await;
        (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    eventually("all of it is signed", BOUND, async || {
        let all = "SELECT (SELECT sum((head->>'head')::bigint) FROM json_array_elements(statement::json->'body'->'heads') head) \
                        = (SELECT sum(head) FROM log.shards) \
                     FROM state.audit_heads ORDER BY number DESC LIMIT 1";
        sqlx::query_scalar(all).fetch_optional(&mut database).await.unwrap().unwrap_or(false)
    })
    .await;
    let key = printed(&place, &["verify", "--public-key"]).await;
    assert_eq!(key.trim().len(), 44, "{key}");
    let signed = eventually_some("it is signed, and kept everywhere", BOUND, async || {
        let (sound, text) = verified().await;
        let places = if place.engines().is_some() { 3 } else { 2 };
        let kept =
            text.lines().filter(|line| line.contains(" signed statements in ") && !line.starts_with("0 ")).count();
        let done = sound && kept == places;
        if !done {
            // Shown where it never comes so far.
            println!("{text}{}", place.log_end());
        }
        done.then_some(text)
    })
    .await;
    assert!(signed.contains("sound: "), "{signed}");

    audit_has_all(&mut database).await;
    // The last event of a shard goes, and its head with it: by itself the log is whole.
    let (shard, position): (i16, i64) =
        sqlx::query_as("SELECT shard, head FROM log.shards WHERE topic = 0 ORDER BY head DESC LIMIT 1")
            .fetch_one(&mut database)
            .await
            .unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "CREATE TABLE public.lost AS SELECT * FROM log.events WHERE topic = 0 AND shard = {shard} AND position = {position};
         DELETE FROM log.events WHERE topic = 0 AND shard = {shard} AND position = {position};
         UPDATE log.shards SET head = head - 1, chain = coalesce(
             (SELECT hash FROM log.events WHERE topic = 0 AND shard = {shard} AND position = {position} - 1),
             sha256(convert_to('parlance log, topic 0, shard {shard}', 'UTF8'))) WHERE topic = 0 AND shard = {shard};"
    )))
    .execute(&mut database)
    .await
    .unwrap();
    let (sound, text) = verified().await;
    let named = format!("parlance.users.v1/{shard}:{position}: ");
    assert!(!sound && text.lines().any(|line| line.starts_with(&named)), "{text}");
    // A rebuild of the audit in between hides nothing: it is refused, for the audit knows of more than the log has.
    assert!(!run(&place, &["rebuild", "audit"]).await.status.success());
    let (sound, text) = verified().await;
    assert!(!sound && text.lines().any(|line| line.starts_with(&named)), "{text}");
    // Also where the statements of the database went too.
    sqlx::raw_sql("CREATE TABLE public.kept AS TABLE state.audit_heads; TRUNCATE state.audit_heads")
        .execute(&mut database)
        .await
        .unwrap();
    let (sound, text) = verified().await;
    assert!(!sound && text.lines().any(|line| line.starts_with(&named)), "{text}");
    assert!(text.contains("the database does not have"), "{text}");
    // Whoever signs sees it too.
    eventually("the log of what happens says so", BOUND, async || {
        fs::read_to_string(place.log()).unwrap().contains("nothing is signed any more")
    })
    .await;
    // All of it put back, all is well.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO state.audit_heads TABLE public.kept; INSERT INTO log.events TABLE public.lost;
         UPDATE log.shards SET head = {position}, chain = (SELECT hash FROM public.lost) WHERE topic = 0 AND shard = {shard}"
    )))
    .execute(&mut database)
    .await
    .unwrap();
    let (sound, text) = verified().await;
    assert!(sound, "{text}");
    // An event in the middle, of which nothing else can tell; and an audit that was made of it.
    forge(&mut database, shard, 1).await;
    database.close().await.unwrap();
    printed(&place, &["rebuild", "audit"]).await;
    let (sound, text) = verified().await;
    let named = format!("parlance.users.v1/{shard}:1: is not what was signed");
    assert!(!sound && text.lines().any(|line| line.starts_with(&named)), "{text}");
    if place.engines().is_none() {
        let health = reqwest::get(format!("{}/health/ready", app.address())).await.unwrap().json::<Value>().await;
        let audit = &health.unwrap()["dependencies"]["audit"];
        assert_ne!(audit["status"], "ok", "{audit}");
    }
    assert!(app.stop().await.unwrap().success());
}
