//! Checked beside a server that goes on: places that are written to later than the database.

use std::sync::atomic::Ordering;

use super::place::{Answers, Place};
use super::*;

/// Checks while something else happens, as soon as the place has nothing to say.
async fn checked(world: &World, place: &Place, patience: Duration, then: impl AsyncFnOnce()) -> Checked {
    let mut sources = Sources::new(world.database.pool().clone());
    sources.add(place.handle());
    sources.patience = patience;
    let keys = [world.key().public()];
    let (checked, ()) = tokio::join!(check(world.log(), sources, &keys), async {
        eventually("it is asked", BOUND, async || place.asked.load(Ordering::SeqCst)).await;
        then().await;
    });
    checked.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_meanwhile_may_lack_elsewhere() {
    let world = World::new().await;
    world.signed(&[4, 4]).await;
    let place = Place::of(world.lines().await);
    place.answers.send_replace(Answers::Late);
    let meanwhile = checked(&world, &place, Duration::ZERO, async || {
        world.signed(&[4, 4, 4]).await;
        place.answers.send_replace(Answers::Well);
    });
    let meanwhile = meanwhile.await;
    assert!(meanwhile.is_sound(), "{:?}", meanwhile.findings);
    assert_eq!(meanwhile.statements, 5);
    assert_eq!(meanwhile.places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [5, 2]);
    // Later it may not.
    let later = checked(&world, &place, Duration::ZERO, async || {}).await;
    assert!(!later.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_comes_late_is_waited_for() {
    let world = World::new().await;
    world.signed(&[4, 4, 4, 4]).await;
    let lines = world.lines().await;
    let place = Place::of(lines[..1].to_vec());
    let late = checked(&world, &place, BOUND, async || place.lines.lock().extend_from_slice(&lines[1..])).await;
    assert!(late.is_sound(), "{:?}", late.findings);
    // Not for something else, nor for ever.
    let place = Place::of(lines[..1].to_vec());
    let other = checked(&world, &place, BOUND, async || place.lines.lock().push(lines[2].clone())).await;
    let place = Place::of(lines[..1].to_vec());
    let short = checked(&world, &place, Duration::from_millis(50), async || place.lines.lock().push(lines[1].clone()));
    let short = short.await;
    for (found, why) in
        [(other, "2 says, which a place does not have: it has something else"), (short, "it ends before it")]
    {
        assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
        let finding = &found.findings[0];
        assert!(finding.detail.ends_with(why) && finding.position.is_some(), "{finding:?}");
    }
}
