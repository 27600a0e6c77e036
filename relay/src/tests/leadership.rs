//! Shards that come and go.

use std::sync::Arc;

use event_store::EventStore;
use platform::leases::{Held, InUse, Leases, Part};
use rand::RngExt;
use rand::seq::IndexedRandom;
use testkit::{Database, eventually};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::{BOUND, options};
use super::kafka::Cluster;
use crate::replay::requests::{self, Wanted};
use crate::testing::{open_room, say, store};
use crate::{Leadership, Options, Relay, RelayStatus, heads, places};

/// A relay that leads what it is told to.
fn start(
    store: &EventStore,
    cluster: &Arc<Cluster>,
    held: watch::Receiver<Held>,
    options: Options,
) -> (DropGuard, RelayStatus) {
    run(relay(store, cluster, held, InUse::default(), options).following(store.committed()))
}

fn relay(
    store: &EventStore,
    cluster: &Arc<Cluster>,
    held: watch::Receiver<Held>,
    in_use: InUse,
    options: Options,
) -> Relay {
    Relay::new(store.log().clone(), cluster.producer(), Leadership::Leases { held, in_use }, options)
        .replaying(store.log().pool().clone())
}

fn run(relay: Relay) -> (DropGuard, RelayStatus) {
    let shutdown = CancellationToken::new();
    let status = relay.status();
    tokio::spawn(relay.run(shutdown.clone()));
    (shutdown.drop_guard(), status)
}

#[tokio::test]
async fn only_what_is_led_is_published() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let rooms = [open_room(&store).await, open_room(&store).await, open_room(&store).await];
    let cluster = Arc::new(Cluster::default());
    let tell = watch::Sender::<Held>::default();
    let (_stop, status) = start(&store, &cluster, tell.subscribe(), options());
    let mut led: Vec<Part> = Vec::new();
    for part in places(store.log()) {
        say(&store, *rooms.choose(&mut rand::rng()).unwrap(), 10).await;
        led.push(part);
        tell.send_replace(led.iter().copied().collect());
        eventually("it is taken up", BOUND, async || status.standing().led == led.len()).await;
        let published = async || {
            let heads = heads(store.log()).await.unwrap();
            heads
                .iter()
                .filter(|head| led.contains(&(head.topic, head.shard)))
                .all(|head| cluster.len((head.topic, head.shard)) as u64 == head.position)
        };
        eventually("what is led is published", BOUND, published).await;
        let others = places(store.log()).filter(|part| !led.contains(part));
        assert_eq!(others.map(|part| cluster.len(part)).sum::<usize>(), 0);
    }
    cluster.assert_sound(store.log()).await;
    // Whoever said what is led is gone: nothing is.
    drop(tell);
    eventually("nothing is led", BOUND, async || status.standing().led == 0).await;
    let before = cluster.total();
    say(&store, rooms[0], 10).await;
    let (_other, all) = watch::channel(places(store.log()).collect::<Held>());
    let (_stop, _status) = start(&store, &cluster, all, options());
    eventually("the next one goes on", BOUND, async || cluster.is_whole(store.log()).await).await;
    assert_eq!((cluster.total(), cluster.assert_sound(store.log()).await), (before + 10, 0));
}

/// A relay whose shards are leases.
struct Member {
    status: RelayStatus,
    leasing: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
    _stop_relay: DropGuard,
}

impl Member {
    fn join(store: &EventStore, cluster: &Arc<Cluster>) -> Self {
        Self::take_part(store, cluster, true)
    }

    /// One that follows its store, or only the log.
    fn take_part(store: &EventStore, cluster: &Arc<Cluster>, follows: bool) -> Self {
        let leases = Leases::new(store.log().pool().clone(), "relay", places(store.log())).patient(BOUND * 2);
        let stop = CancellationToken::new();
        let mut relay = relay(store, cluster, leases.held(), leases.in_use(), Options::alone());
        if follows {
            relay = relay.following(store.committed());
        }
        let (stop_relay, status) = run(relay);
        let leasing = tokio::spawn(leases.run(stop.clone()));
        Self { status, leasing, _stop: stop.drop_guard(), _stop_relay: stop_relay }
    }
}

#[tokio::test]
async fn one_that_stops_renewing_is_followed() {
    let database = Database::new().await;
    let (ours, theirs) = (
        store(&database, event_store::Options::default()).await,
        store(&database, event_store::Options::default()).await,
    );
    let cluster = Arc::new(Cluster::default());
    let (one, other) = (Member::join(&ours, &cluster), Member::join(&theirs, &cluster));
    let shares = || (one.status.standing().led, other.status.standing().led);
    eventually("both have their share", BOUND, async || shares() == (4, 4)).await;
    let mut rooms = Vec::new();
    for _ in 0..20 {
        rooms.push(open_room(&ours).await);
    }
    eventually("all is published", BOUND, async || cluster.is_whole(ours.log()).await).await;
    // Its relay runs on, and nobody tells it.
    one.leasing.abort();
    let followed = async {
        let mut rounds = 0;
        while other.status.standing().led < 8 {
            say(&ours, rooms[rounds % rooms.len()], 1).await;
            rounds += 1;
        }
    };
    timeout(BOUND, followed).await.expect("the other leads all");
    eventually("all is published", BOUND, async || cluster.is_whole(ours.log()).await).await;
    cluster.assert_sound(ours.log()).await;
    for room in rooms {
        say(&ours, room, 5).await;
    }
    eventually("all is published", BOUND, async || cluster.is_whole(ours.log()).await).await;
    assert_eq!(cluster.assert_sound(ours.log()).await, 0);
}

#[tokio::test]
async fn what_is_being_published_is_handed_over_once_it_is_through_and_comes_once() {
    for follows in [true, false] {
        let database = Database::new().await;
        let store = store(&database, event_store::Options::default()).await;
        // The last shards are the first to be given up.
        let mut room = open_room(&store).await;
        while store.log().shard_of(room) < 2 {
            room = open_room(&store).await;
        }
        let cluster = Arc::new(Cluster::default());
        let one = Member::take_part(&store, &cluster, follows);
        eventually("all is published", BOUND, async || cluster.is_whole(store.log()).await).await;
        let through = CancellationToken::new();
        cluster.hold_up(Some(through.clone()));
        say(&store, room, 2).await;
        eventually("it is being published", BOUND, async || cluster.waiting() == 1).await;
        cluster.hold_up(None);
        let other = Member::take_part(&store, &cluster, follows);
        let shares = || (one.status.standing().led, other.status.standing().led);
        eventually("all else is handed over", BOUND, async || shares() == (4, 3)).await;
        assert_eq!(cluster.waiting(), 1, "it is not given up");
        through.cancel();
        eventually("it is handed over", BOUND, async || shares() == (4, 4)).await;
        say(&store, room, 1).await;
        eventually("all is published", BOUND, async || cluster.is_whole(store.log()).await).await;
        assert_eq!(cluster.assert_sound(store.log()).await, 0, "nothing came twice");
    }
}

/// Three relays, of which several may think that they lead, on a bus that fails and forgets.
async fn history(seed: u64) {
    let database = Database::new().await;
    let stores = [
        store(&database, event_store::Options::default()).await,
        store(&database, event_store::Options::default()).await,
    ];
    let cluster = Arc::new(Cluster::default());
    let all: Vec<Part> = places(stores[0].log()).collect();
    let mut random: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
    let mut rooms = Vec::new();
    for _ in 0..6 {
        rooms.push(open_room(&stores[0]).await);
    }
    let leads: [watch::Sender<Held>; 3] = std::array::from_fn(|_| watch::Sender::default());
    let start_one = |index: usize| start(&stores[index % 2], &cluster, leads[index].subscribe(), options());
    let mut relays: Vec<_> = (0..leads.len()).map(start_one).collect();
    cluster.one_fails_of(Some(40));
    let mut asked = Vec::new();
    for _ in 0..60 {
        match random.random_range(0..11) {
            0..5 => {
                let (store, room) = (stores.choose(&mut random).unwrap(), rooms.choose(&mut random).unwrap());
                say(store, *room, random.random_range(1..30)).await;
            }
            5..7 => {
                let lead = leads.choose(&mut random).unwrap();
                lead.send_replace(all.iter().copied().filter(|_| random.random_bool(0.7)).collect());
            }
            7 => {
                let index = random.random_range(0..relays.len());
                relays[index] = start_one(index);
            }
            8 => {
                let place = *all.choose(&mut random).unwrap();
                cluster.truncate(place, random.random_range(0..=cluster.len(place)));
            }
            9 => {
                let heads = heads(stores[0].log()).await.unwrap();
                let head = heads[random.random_range(0..heads.len())];
                if head.position > 0 {
                    let first = random.random_range(1..=head.position);
                    let wanted = Wanted { topic: head.topic, shard: head.shard, first, last: head.position };
                    asked.push(requests::ask(stores[0].log().pool(), &[wanted]).await.unwrap());
                }
            }
            _ => cluster.away(random.random()),
        }
        // Things happen at different moments of what the others do.
        for _ in 0..random.random_range(0..300) {
            yield_now().await;
        }
    }
    cluster.away(false);
    cluster.one_fails_of(None);
    leads[0].send_replace(Held::default());
    leads[1].send_replace(all.iter().copied().filter(|(_, shard)| *shard < 2).collect());
    leads[2].send_replace(all.iter().copied().filter(|(_, shard)| *shard >= 2).collect());
    eventually("the bus has all", BOUND, async || cluster.is_whole(stores[0].log()).await).await;
    let log = stores[0].log();
    for replay in asked {
        let done = async || {
            let progress = requests::progress(log.pool(), replay).await.unwrap();
            assert_eq!(progress.failures, []);
            progress.open == 0
        };
        eventually("what was asked for was published again", BOUND, done).await;
    }
    let duplicates = cluster.assert_sound(log).await;
    println!("seed {seed}: {} records, {duplicates} of them again", cluster.total());
    for room in rooms {
        say(&stores[1], room, 3).await;
    }
    eventually("the bus has all", BOUND, async || cluster.is_whole(log).await).await;
    assert_eq!(cluster.assert_sound(log).await, duplicates, "from then on there is one leader");
    drop(relays);
}

#[tokio::test]
async fn whatever_happens_the_bus_ends_as_the_log_does() {
    for seed in 0..3 {
        history(seed).await;
    }
    history(rand::random()).await;
}
