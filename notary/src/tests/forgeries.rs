//! Each forgery is named where it begins.

use std::fmt::Write;
use std::fs;

use event_store::Fault;
use sha2::{Digest, Sha256};

use super::*;

/// Links a shard anew from a position on, as one can who has the database: every row, and the shard's own hash.
async fn link_anew(world: &World, shard: ShardHead, from: u64) {
    let (topic, number) = (shard.topic.code(), shard.shard);
    let mut rows = world.log().read(shard.topic, number, 0, 10_000).await.unwrap();
    let mut chain = match rows.iter().rev().find(|row| row.position < from) {
        Some(row) => row.hash,
        None => event_store::genesis(shard.topic, number),
    };
    rows.retain(|row| row.position >= from);
    let mut sql = String::new();
    for row in rows {
        // The canonical bytes, as `chain` describes them.
        let mut bytes = chain.to_vec();
        bytes.extend(topic.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        bytes.extend(row.position.to_be_bytes());
        bytes.extend(row.key.as_bytes());
        match row.seq {
            None => bytes.push(0),
            Some(seq) => {
                bytes.push(1);
                bytes.extend(seq.to_be_bytes());
            }
        }
        bytes.extend(row.aggregate_type.to_be_bytes());
        bytes.extend(row.aggregate_id.as_bytes());
        bytes.extend(row.sequence.to_be_bytes());
        bytes.extend(row.event_id.as_bytes());
        let sized = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
        };
        sized(&mut bytes, &row.event_type);
        bytes.extend(row.event_version.to_be_bytes());
        bytes.extend(i64::try_from(row.at.unix_timestamp_nanos() / 1000).unwrap().to_be_bytes());
        sized(&mut bytes, &row.payload);
        assert!(row.metadata.is_none());
        bytes.push(0);
        chain = Sha256::digest(&bytes).into();
        write!(
            sql,
            "UPDATE log.events SET hash = '\\x{}' WHERE topic = {topic} AND shard = {number} AND position = {};",
            hex::encode(chain),
            row.position
        )
        .unwrap();
    }
    write!(sql, "UPDATE log.shards SET chain = '\\x{}' WHERE topic = {topic} AND shard = {number}", hex::encode(chain))
        .unwrap();
    world.sql(sql).await;
}

fn place(shard: ShardHead, position: u64) -> String {
    format!("parlance.conversations.v1/{}:{position}", shard.shard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_and_all_behind_it_linked_anew() {
    let world = World::new().await;
    world.signed(&[12, 16, 8]).await;
    assert_eq!(world.found().await, [""; 0]);
    let shard = world.longest().await;
    for position in [shard.head - 1, shard.head / 2, 1] {
        let (topic, number) = (shard.topic.code(), shard.shard);
        world
            .sql(format!(
                "UPDATE log.events SET payload = '{{\"name\":\"forged {position}\",\"by\":\"{}\"}}'
                  WHERE topic = {topic} AND shard = {number} AND position = {position}",
                Uuid::nil()
            ))
            .await;
        link_anew(&world, shard, position).await;
        // By itself the log is whole.
        let alone = world.log().verify().await.unwrap();
        assert!(alone.is_sound(), "{alone:?}");
        assert_eq!(world.found().await, [place(shard, position)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_was_cut_off_with_its_head() {
    let world = World::new().await;
    world.signed(&[12, 16]).await;
    let shard = world.longest().await;
    let (topic, number, left) = (shard.topic.code(), shard.shard, shard.head - 2);
    world
        .sql(format!(
            "DELETE FROM log.events WHERE topic = {topic} AND shard = {number} AND position > {left};
             UPDATE log.shards SET head = {left}, chain = (SELECT hash FROM log.events
                WHERE topic = {topic} AND shard = {number} AND position = {left}) WHERE topic = {topic} AND shard = {number}"
        ))
        .await;
    assert!(world.log().verify().await.unwrap().is_sound());
    assert_eq!(world.found().await, [place(shard, left + 1)]);
    let signer = world.sign(true);
    eventually("nobody signs that", BOUND, async || signer.status.check().is_err()).await;
    signer.stop().await;
    // Written over again with something else, up to where it was.
    let log = world.log().clone();
    eventually("it grew again", BOUND, async || {
        world.happen(4).await;
        log.heads()
            .await
            .unwrap()
            .iter()
            .any(|now| now.shard == number && now.topic == shard.topic && now.head > shard.head)
    })
    .await;
    assert!(world.log().verify().await.unwrap().is_sound());
    assert_eq!(world.found().await, [place(shard, left + 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_change_is_named_as_before() {
    let world = World::new().await;
    world.signed(&[12]).await;
    let shard = world.longest().await;
    let (topic, number) = (shard.topic.code(), shard.shard);
    world
        .sql(format!(
            "UPDATE log.events SET at = at + interval '1 ms' WHERE topic = {topic} AND shard = {number} AND position = 2"
        ))
        .await;
    let checked = world.check().await;
    assert_eq!(checked.log.shards.iter().filter_map(|shard| shard.fault).collect::<Vec<_>>(), [Fault::Changed(2)]);
    assert_eq!(world.found().await, [place(shard, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_database_that_are_not_those_of_the_file() {
    let world = World::new().await;
    world.signed(&[8, 8, 8, 8]).await;
    world.sql("CREATE TABLE public.kept AS TABLE state.audit_heads".to_owned()).await;
    for damage in [
        "DELETE FROM state.audit_heads WHERE number = 2",
        "DELETE FROM state.audit_heads WHERE number = 4",
        "DELETE FROM state.audit_heads",
        "UPDATE state.audit_heads SET statement = replace(statement, 'signature\":\"', 'signature\":\"A') WHERE number = 3",
        "UPDATE state.audit_heads SET statement = replace(statement, '\"number\":3', '\"number\":2') WHERE number = 3",
        "UPDATE state.audit_heads SET statement = (SELECT statement FROM state.audit_heads WHERE number = 1) WHERE number = 2",
        "UPDATE state.audit_heads SET statement = 'x' WHERE number = 1",
        "INSERT INTO state.audit_heads SELECT 5, at, key_id, statement FROM state.audit_heads WHERE number = 4",
    ] {
        world.sql(damage.to_owned()).await;
        let checked = world.check().await;
        assert_eq!(checked.findings.len(), 1, "{damage}: {:?}", checked.findings);
        assert!(checked.findings[0].detail.contains("the database"), "{damage}: {:?}", checked.findings);
        let named =
            checked.findings[0].position.as_ref().is_some_and(|at| at.starts_with("parlance.conversations.v1/"));
        assert!(named || damage.starts_with("INSERT"), "{damage}: {:?}", checked.findings);
        assert!(!checked.is_sound());
        world.sql("TRUNCATE state.audit_heads; INSERT INTO state.audit_heads TABLE public.kept".to_owned()).await;
    }
    assert!(world.check().await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_or_another_file() {
    let world = World::new().await;
    world.signed(&[8, 8, 8, 8]).await;
    let whole = fs::read_to_string(world.file()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let written = |lines: &[&str]| lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>();
    // One behind, as after a kill.
    fs::write(world.file(), written(&lines[..3])).unwrap();
    assert!(world.check().await.is_sound());
    for other in [&lines[..2], &lines[..0], &lines[1..], &[lines[0], lines[2], lines[3]], &[lines[0], "{}", lines[2]]] {
        fs::write(world.file(), written(other)).unwrap();
        let checked = world.check().await;
        assert_eq!(checked.findings.len(), 1, "{:?}", checked.findings);
        assert!(checked.findings[0].detail.contains("the file"), "{:?}", checked.findings);
        assert!(checked.findings[0].position.is_some());
    }
    // A copy may be older, but no other.
    let copy = async |lines: &[&str]| {
        fs::write(world.folder.path().join("copy"), written(lines)).unwrap();
        let mut sources = Sources::new(world.database.pool().clone());
        sources.add_copy(FileLedger::read(&world.folder.path().join("copy")).unwrap());
        check(world.log(), sources, &[world.key().public()]).await.unwrap()
    };
    assert!(copy(&lines[..1]).await.is_sound());
    assert!(!copy(&lines[1..]).await.is_sound());
    // The copy alone is enough to tell.
    let shard = world.longest().await;
    let (topic, number) = (shard.topic.code(), shard.shard);
    world
        .sql(format!(
            "TRUNCATE state.audit_heads;
             DELETE FROM log.events WHERE topic = {topic} AND shard = {number};
             UPDATE log.shards SET head = 0, chain = '\\x{}' WHERE topic = {topic} AND shard = {number}",
            hex::encode(event_store::genesis(shard.topic, number))
        ))
        .await;
    assert!(world.log().verify().await.unwrap().is_sound());
    let checked = copy(&lines).await;
    assert!(checked.findings.iter().any(|finding| finding.position == Some(place(shard, 1))), "{:?}", checked.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_not_believed() {
    let world = World::new().await;
    world.signed(&[8]).await;
    fs::remove_file(world.folder.path().join("key")).unwrap();
    let checked = world.check().await;
    assert_eq!(checked.findings.len(), 2, "of the database, and of the file: {:?}", checked.findings);
    assert!(checked.findings.iter().all(|finding| finding.key_unknown), "{:?}", checked.findings);
    assert_eq!(checked.statements, 0);
    assert!(checked.log.is_sound());
    // What the log says of itself needs none.
    let shard = world.longest().await;
    let me = format!("topic = {} AND shard = {} AND position = 1", shard.topic.code(), shard.shard);
    world.sql(format!("UPDATE log.events SET at = at + interval '1 ms' WHERE {me}")).await;
    let checked = check(world.log(), Sources::new(world.database.pool().clone()), &[]).await.unwrap();
    let found: Vec<_> = checked.findings.into_iter().map(|finding| (finding.position, finding.key_unknown)).collect();
    assert_eq!(found, [(None, true), (Some(place(shard, 1)), false)]);
}
