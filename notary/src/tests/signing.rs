//! When is signed, and by whom.

use std::sync::atomic::Ordering;

use super::place::{Answers, Place};
use super::*;
use crate::{Ledger, TopicLedger};

/// Looks often, and tries again soon.
const SOON: Options = Options {
    events: 1_000,
    age: Duration::from_secs(10),
    look: Duration::from_millis(10),
    most: 10_000,
    rest: Duration::from_millis(50),
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_is_signed_after_so_many_events_or_so_long() {
    let world = World::new().await;
    let never = Duration::from_hours(1);
    let options = Options { events: 10, age: never, look: Duration::from_millis(10), most: 7, ..Options::default() };
    world.happen(20).await;
    let signer = world.sign_as(true, options, "heads.jsonl");
    // What waited is signed at once, in statements of a bound.
    eventually("all is signed", BOUND, async || world.statements().await == 3).await;
    world.happen(9).await;
    assert_eq!(world.statements().await, 3);
    world.happen(1).await;
    eventually("ten more are", BOUND, async || world.statements().await == 5).await;
    world.happen(1).await;
    // The rest at the end.
    signer.stop().await;
    assert_eq!(world.statements().await, 6);
    let checked = world.check().await;
    assert!(checked.is_sound(), "{:?}", checked.findings);
    assert_eq!((checked.statements, checked.log.events()), (6, 31));
    assert_eq!(checked.places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [6, 6]);

    let soon = Options { events: 1_000, age: Duration::from_millis(50), ..options };
    let signer = world.sign_as(true, soon, "heads.jsonl");
    eventually("it runs", BOUND, async || signer.status.check().is_ok_and(|status| status.contains("6 statements")))
        .await;
    world.happen(1).await;
    eventually("one is signed when its time has come", BOUND, async || world.statements().await == 7).await;
    signer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_keeps_its_file_up_to_date() {
    let world = World::new().await;
    let standing_by =
        world.sign_as(false, Options { look: Duration::from_millis(10), ..Options::default() }, "other.jsonl");
    world.signed(&[3, 4]).await;
    let read = |file: &str| std::fs::read_to_string(world.folder.path().join(file)).unwrap();
    eventually("it has both", BOUND, async || read("other.jsonl") == read("heads.jsonl")).await;
    assert_eq!(standing_by.status.check().unwrap(), "another process signs");
    standing_by.stop().await;
    assert_eq!(world.statements().await, 2);
    // And it leads on, wherever it stands.
    world.happen(1).await;
    let leads = world.sign_as(true, Options { look: Duration::from_millis(10), ..Options::default() }, "third.jsonl");
    eventually("it signs", BOUND, async || world.statements().await == 3).await;
    leads.stop().await;
    assert_eq!(read("third.jsonl").lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_over_a_rewrite() {
    let mut world = World::new().await;
    world.signed(&[12]).await;
    let shard = world.longest().await;
    let me = format!("topic = {} AND shard = {}", shard.topic.code(), shard.shard);
    // The chain's end is another now, and what comes is linked to it.
    world.sql(format!("UPDATE log.shards SET chain = sha256(chain) WHERE {me}")).await;
    world.start_again().await;
    let signer = world.sign(true);
    eventually("something is linked to it", BOUND, async || {
        world.happen(4).await;
        world
            .log()
            .heads()
            .await
            .unwrap()
            .iter()
            .any(|now| (now.topic, now.shard) == (shard.topic, shard.shard) && now.head > shard.head)
    })
    .await;
    eventually("it refuses", BOUND, async || signer.status.check().is_err()).await;
    let place = format!("parlance.conversations.v1/{}:{}", shard.shard, shard.head + 1);
    let told = signer.status.check().unwrap_err();
    assert!(told.starts_with(&place), "{told}");
    signer.stop().await;
    // Not later either, and by no other.
    let before = world.statements().await;
    world.happen(3).await;
    let signer = world.sign(true);
    eventually("it refuses again", BOUND, async || signer.status.check().is_err()).await;
    signer.stop().await;
    assert_eq!(world.statements().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_behind_statements_that_were_taken_out() {
    let world = World::new().await;
    world.signed(&[5, 5, 5]).await;
    for damage in [
        "DELETE FROM state.audit_heads WHERE number = 3",
        "UPDATE state.audit_heads SET statement = replace(statement, '\"number\":3', '\"number\":4') WHERE number = 3",
        "UPDATE state.audit_heads SET statement = (SELECT statement FROM state.audit_heads WHERE number = 2) WHERE number = 3",
    ] {
        world.sql("CREATE TABLE public.kept AS TABLE state.audit_heads".to_owned()).await;
        world.sql(damage.to_owned()).await;
        world.happen(1).await;
        let signer = world.sign(true);
        eventually("it refuses", BOUND, async || signer.status.check().is_err()).await;
        signer.stop().await;
        world
            .sql(
                "TRUNCATE state.audit_heads; INSERT INTO state.audit_heads TABLE public.kept; DROP TABLE public.kept"
                    .into(),
            )
            .await;
    }
    let signer = world.sign(true);
    eventually("it goes on", BOUND, async || world.statements().await == 4).await;
    signer.stop().await;
    assert!(world.check().await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_under_another_number_is_an_alarm() {
    let world = World::new().await;
    world.signed(&[5, 5, 5]).await;
    world
        .sql("UPDATE state.audit_heads SET statement = (SELECT statement FROM state.audit_heads WHERE number = 2) WHERE number = 3".to_owned())
        .await;
    world.happen(1).await;
    // Without a file that would contradict it.
    let options = Options { look: Duration::from_millis(10), ..Options::default() };
    let signer = world.sign_as(true, options, "other.jsonl");
    let told = "statement 3 of the database cannot be trusted: it does not follow the statement before it";
    eventually("it says so", BOUND, async || signer.status.check() == Err(told.to_owned())).await;
    signer.stop().await;
    assert_eq!(world.statements().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_was_away_and_contradicts_is_an_alarm() {
    let world = World::new().await;
    world.signed(&[5, 5]).await;
    let kept = world.lines().await;
    world.happen(1).await;
    for (kept, told) in [
        (kept.clone(), "statement 2 is another in a place than in the database"),
        (vec![kept[0].clone(), "{}".to_owned()], "the last line of a place cannot be trusted: it is no statement"),
    ] {
        world.sql("DELETE FROM state.audit_heads WHERE number = 2".to_owned()).await;
        let place = Place::of(kept);
        place.answers.send_replace(Answers::Away);
        let signer = Signer::begin(world.notary(SOON).publishing(place.handle()), true);
        let away = "2 statements are signed, and not kept in a place";
        eventually("it signs on", BOUND, async || signer.status.check() == Err(away.to_owned())).await;
        place.answers.send_replace(Answers::Well);
        eventually("it says so", BOUND, async || signer.status.check() == Err(told.to_owned())).await;
        world.happen(1).await;
        signer.stop().await;
        assert_eq!(world.statements().await, 2, "nothing is signed any more");
    }
    // It has what nobody else knows of.
    let place = Place::of(kept);
    world.sql("DELETE FROM state.audit_heads WHERE number = 2".to_owned()).await;
    let signer = Signer::begin(world.notary(SOON).publishing(place), true);
    let told = "the database lacks statement 2, which a place has";
    eventually("it says so", BOUND, async || signer.status.check() == Err(told.to_owned())).await;
    signer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_led_at_once_do_no_harm_to_a_place_of_both() {
    let world = World::new().await;
    let checked = async |place: &Place| {
        let mut sources = Sources::new(world.database.pool().clone());
        sources.add(place.handle());
        check(world.log(), sources, &[world.key().public()]).await.unwrap()
    };
    // One is held up as it adds what it signed.
    let place = Place::of(Vec::new());
    place.answers.send_replace(Answers::Full);
    world.happen(1).await;
    let late = Signer::begin(world.notary(SOON).publishing(place.handle()), true);
    eventually("it adds", BOUND, async || place.asked.load(Ordering::SeqCst)).await;
    late.seat.send_replace(Held::default());
    world.happen(1).await;
    let other = Signer::begin(world.notary(SOON).publishing(place.beside()), true);
    eventually("another one goes on", BOUND, async || place.lines.lock().len() == 2).await;
    other.stop().await;
    place.answers.send_replace(Answers::Well);
    eventually("it comes late", BOUND, async || place.lines.lock().len() == 3).await;
    let lines = world.lines().await;
    assert_eq!(*place.lines.lock(), [&lines[0], &lines[1], &lines[0]].map(Clone::clone));
    // Whoever leads next knows where it is.
    late.stop().await;
    world.happen(1).await;
    let next = Signer::begin(world.notary(SOON).publishing(place.handle()), true);
    eventually("it goes on", BOUND, async || place.lines.lock().len() == 4).await;
    next.stop().await;
    let newest = world.lines().await.pop();
    assert_eq!(place.lines.lock().last(), newest.as_ref());
    let sound = checked(&place).await;
    assert!(sound.is_sound(), "{:?}", sound.findings);
    assert_eq!(sound.places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 3]);
    // Another statement under a number that was is no repeat.
    place.lines.lock().push(lines[1].replace("\"number\":2", "\"number\": 2"));
    assert!(!checked(&place).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leads_no_more_adds_nothing_to_what_is_shared() {
    let world = World::new().await;
    world.signed(&[3]).await;
    let place = Place::of(Vec::new());
    place.answers.send_replace(Answers::Late);
    let signer = Signer::begin(world.notary(SOON).publishing(place.handle()), true);
    eventually("it looks", BOUND, async || place.asked.load(Ordering::SeqCst)).await;
    signer.seat.send_replace(Held::default());
    place.answers.send_replace(Answers::Well);
    eventually("it knows", BOUND, async || signer.status.check().is_ok_and(|told| told == "another process signs"))
        .await;
    signer.stop().await;
    assert_eq!(*place.lines.lock(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_does_not_answer_keeps_nobody_from_leaving() {
    let world = World::new().await;
    let place = Place::of(Vec::new());
    place.answers.send_replace(Answers::Full);
    world.happen(1).await;
    let signer = Signer::begin(world.notary(SOON).publishing(place.handle()), true);
    eventually("it waits", BOUND, async || place.asked.load(Ordering::SeqCst)).await;
    world.happen(1).await;
    // Sooner than the place is given up.
    tokio::time::timeout(Duration::from_secs(5), signer.stop()).await.unwrap();
    assert_eq!(world.statements().await, 2, "what was left is signed");
    assert_eq!(*place.lines.lock(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_has_what_the_table_has_however_often_it_was_written() {
    let world = World::new().await;
    let broker = testkit::kafka::Broker::shared().await;
    let name = format!("{}.heads", Uuid::new_v4().simple());
    let topic = || TopicLedger::named(broker.address(), &name);
    let sign = async || {
        let told = format!("{} statements", world.statements().await + 1);
        let signer = Signer::begin(world.notary(SOON).publishing(topic()), true);
        eventually("it is signed", BOUND, async || signer.status.check().is_ok_and(|status| status.contains(&told)))
            .await;
        signer.stop().await;
    };
    for count in [3, 4] {
        world.happen(count).await;
        sign().await;
    }
    // As by one who had no answer, and one who led before and came late.
    let lines = world.lines().await;
    topic().append(&[lines[1].clone(), lines[0].clone()]).await.unwrap();
    world.happen(1).await;
    sign().await;
    let lines = world.lines().await;
    assert_eq!(topic().tail().await.unwrap(), [0, 1, 1, 0, 2].map(|n| lines[n].clone()));
    let checked = async || {
        let mut sources = Sources::new(world.database.pool().clone());
        sources.add(topic());
        check(world.log(), sources, &[world.key().public()]).await.unwrap()
    };
    let sound = checked().await;
    assert!(sound.is_sound(), "{:?}", sound.findings);
    assert_eq!(sound.places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 3]);
    // It knows what the database has forgotten.
    world.sql("DELETE FROM state.audit_heads WHERE number > 1".to_owned()).await;
    let found = checked().await;
    assert!(found.findings.iter().any(|finding| finding.detail.contains("the database")), "{:?}", found.findings);
    assert_eq!(found.statements, 3);
}
