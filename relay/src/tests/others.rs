//! What command-apis in other processes tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use command_api::{Service, Settings};
use platform::auth::{AuthSettings, Authenticator, Keyring, Revocations, Tickets};
use platform::config::RateLimits;
use platform::limits::LocalLimiter;
use platform::registry::Members;
use sqlx::PgPool;
use testkit::eventually;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::faults::BOUND;
use super::*;
use crate::Others;
use event_store::CommittedBatch;
use platform::leases::{Held, InUse};

/// Longer than any test: what comes meanwhile was told.
const NEVER: Duration = Duration::from_hours(1);

/// A command side that others can call.
struct Side {
    store: EventStore,
    keyring: Keyring,
    address: SocketAddr,
    _stop: DropGuard,
}

impl Side {
    async fn start(pool: &PgPool, at: &str) -> Self {
        let (stop, pool) = (CancellationToken::new(), pool.clone());
        let options = event_store::Options { shards: 4, ..event_store::Options::default() };
        let store = EventStore::open(pool.clone(), options).await.unwrap();
        let (auth, keyring) = (AuthSettings::default(), Keyring::open(&pool, None).await.unwrap());
        let revocations = Revocations::open(pool.clone(), auth.access_ttl, stop.clone()).await.unwrap();
        let authenticator = Authenticator::new(keyring.clone(), revocations, auth);
        let service = Service::new(command_api::Parts {
            store: store.clone(),
            tickets: Tickets::new(pool.clone(), authenticator.clone(), Duration::from_secs(30)),
            pool,
            authenticator,
            limiter: Arc::new(LocalLimiter::new(RateLimits::OFF)),
            settings: Settings::default(),
        });
        let router = command_api::router(service.clone()).merge(command_api::internal_router(service, stop.clone()));
        let router = platform::http::frame(router);
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(platform::http::serve(listener, router, stop.clone(), BOUND));
        Self { store, keyring, address, _stop: stop.drop_guard() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn members(sides: &[&Side]) -> Members {
    sides.iter().map(|side| side.url()).collect()
}

/// Follows them in all shards.
fn follow(list: watch::Receiver<Members>, own: Option<String>, side: &Side) -> Others {
    Others::follow(list, own, &side.keyring, Leadership::All, side.store.log())
}

async fn tells(others: &Others) {
    eventually("somebody tells", BOUND, async || others.tell()).await;
}

/// A relay that looks at the log only where it has a reason to.
fn start(log: &EventStore, bus: &Arc<dyn Bus>, others: Others) -> DropGuard {
    let options = Options { shortest_poll: NEVER, longest_poll: NEVER, ..Options::default() };
    let relay = Relay::new(log.log().clone(), Arc::clone(bus), Leadership::All, options).following_others(others);
    let shutdown = CancellationToken::new();
    tokio::spawn(relay.run(shutdown.clone()));
    shutdown.drop_guard()
}

#[tokio::test]
async fn what_others_tell_is_not_looked_for() {
    let database = Database::new().await;
    let sides = [Side::start(database.pool(), "127.0.0.1:0").await, Side::start(database.pool(), "127.0.0.1:0").await];
    let (_list, list) = watch::channel(members(&[&sides[0], &sides[1]]));
    let others = follow(list, None, &sides[0]);
    eventually("both tell", BOUND, async || others.count() == 2).await;
    let bus = bus(&sides[0].store).await;
    let mut reader = from_the_beginning(&*bus).await;
    let _running = start(&sides[0].store, &bus, others);
    let room = open_room(&sides[0].store).await;
    let mut seen = BTreeMap::new();
    read(&mut *reader, 1, &mut seen).await;
    for side in [&sides[0], &sides[1], &sides[0]] {
        say(&side.store, room, 5).await;
        read(&mut *reader, 5, &mut seen).await;
    }
    // Whose word comes first, of several that commit at once, is anybody's guess.
    for _ in 0..20 {
        tokio::join!(say(&sides[0].store, room, 3), say(&sides[1].store, room, 3));
        read(&mut *reader, 6, &mut seen).await;
    }
}

#[tokio::test]
async fn who_comes_and_goes_is_followed_and_nobody_follows_oneself() {
    let database = Database::new().await;
    let one = Side::start(database.pool(), "127.0.0.1:0").await;
    let (tell, list) = watch::channel(members(&[&one]));
    let others = follow(list.clone(), None, &one);
    let oneself = follow(list, Some(one.url()), &one);
    tells(&others).await;
    let other = Side::start(database.pool(), "127.0.0.1:0").await;
    tell.send_replace(members(&[&one, &other]));
    eventually("both tell", BOUND, async || (others.count(), oneself.count()) == (2, 1)).await;
    // One goes, and comes back at the same address.
    let at = one.address.to_string();
    drop(one);
    eventually("one is gone", BOUND, async || others.count() == 1).await;
    let _again = Side::start(database.pool(), &at).await;
    eventually("it is back", BOUND, async || others.count() == 2).await;
    tell.send_replace(members(&[&other]));
    eventually("one left", BOUND, async || others.count() == 1).await;
}

#[tokio::test]
async fn what_is_told_by_no_one_of_ours_is_not_read() {
    let database = Database::new().await;
    let side = Side::start(database.pool(), "127.0.0.1:0").await;
    let stranger = Database::new().await;
    let keyring = Keyring::open(stranger.pool(), None).await.unwrap();
    let (_tell, list) = watch::channel(members(&[&side]));
    // Refused, for another installation's key.
    let refused = Others::follow(list.clone(), None, &keyring, Leadership::All, side.store.log());
    let others = follow(list, None, &side);
    tells(&others).await;
    assert!(!refused.tell());
}

#[tokio::test]
async fn only_what_is_led_is_asked_for() {
    let database = Database::new().await;
    let side = Side::start(database.pool(), "127.0.0.1:0").await;
    let (_tell, list) = watch::channel(members(&[&side]));
    let (lead, held) = watch::channel(Held::default());
    let leadership = Leadership::Leases { held, in_use: InUse::default() };
    let mut others = Others::follow(list, None, &side.keyring, leadership, side.store.log());
    tells(&others).await;
    let log = side.store.log();
    let one = open_room(&side.store).await;
    let (shard, mut other) = (log.shard_of(one), one);
    while log.shard_of(other) == shard {
        other = open_room(&side.store).await;
    }
    lead.send_replace([(Topic::Conversations, shard)].into_iter().collect());
    eventually("what is led is told", BOUND, async || {
        say(&side.store, other, 1).await;
        say(&side.store, one, 1).await;
        others.try_next().is_some()
    })
    .await;
    while let Some(CommittedBatch::Events(events)) = others.try_next() {
        assert!(events.iter().all(|event| event.shard == shard), "{events:?}");
    }
}
