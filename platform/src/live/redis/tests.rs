//! The live bus on a server, and on a cluster, that hang, die and come back.

use testkit::eventually;
use testkit::redis::{Redis as Server, RedisCluster};

use super::*;
use crate::live::contract::{self, Harness, LONG, Told, hints, room, user};

async fn process(urls: String) -> Arc<RedisLive> {
    let redis = Redis::connect_within(&urls.into(), LONG, "test:").await.unwrap();
    let live = Arc::new(RedisLive::start(redis));
    eventually("hints come through", LONG, async || live.is_up()).await;
    live
}

mod on_one_server {
    use super::*;

    struct OneServer(Server);

    #[async_trait(?Send)]
    impl Harness for OneServer {
        async fn new() -> Self {
            Self(Server::start().unwrap())
        }

        async fn process(&self) -> Arc<dyn LiveBus> {
            process(self.0.url()).await
        }
    }

    contract::suite!(OneServer);
}

mod on_a_cluster {
    use super::*;

    struct Three(RedisCluster);

    #[async_trait(?Send)]
    impl Harness for Three {
        async fn new() -> Self {
            Self(RedisCluster::start().unwrap())
        }

        async fn process(&self) -> Arc<dyn LiveBus> {
            process(self.0.url()).await
        }
    }

    contract::suite!(Three);
}

#[tokio::test]
async fn only_what_is_listened_to_comes() {
    let server = Server::start().unwrap();
    let (fan_out, gateway) = (process(server.url()).await, process(server.url()).await);
    let told = Told::by(&(gateway.clone() as _));
    gateway.listen(user(1)).await;
    gateway.listen(user(2)).await;
    gateway.ignore(user(2));
    gateway.listen(user(3)).await;
    // Orders are carried out in their order, so that the one is left by now.
    fan_out.publish([hints(user(2), 1..=1), hints(room(1), 2..=2), hints(user(1), 3..=3)].concat()).await;
    assert_eq!(told.expect(1).await, [(user(1), 3)]);
    for id in [1, 3] {
        gateway.ignore(user(id));
    }
    eventually("nothing is left behind", LONG, async || gateway.shared.interest.len() == 0).await;
}

#[tokio::test]
async fn other_gateways_hear_of_a_connection() {
    let server = Server::start().unwrap();
    let (one, other) = (process(server.url()).await, process(server.url()).await);
    let told = Told::by(&(other.clone() as _));
    let [user_id, device_id, connection_id] = [1, 2, 3].map(Uuid::from_u128);
    let device = Connected { user_id, device_id, connection_id };
    other.listen(Channel::User(user_id)).await;
    one.connected(device).await;
    eventually("it is told", LONG, async || *told.connected.lock() == [device]).await;
}

#[tokio::test]
async fn a_device_that_connected_elsewhere_unheard_is_found_out() {
    let cluster = RedisCluster::start().unwrap();
    let (one, other) = (process(cluster.url()).await, process(cluster.url()).await);
    let (told, untold) = (Told::by(&(one.clone() as _)), Told::by(&(other.clone() as _)));
    let device = |user: u128, connection_id| Connected {
        user_id: Uuid::from_u128(user),
        device_id: Uuid::nil(),
        connection_id: Uuid::from_u128(connection_id),
    };
    let (older, newer): (Vec<_>, Vec<_>) = (1..=20).map(|user| (device(user, 1), device(user, 2))).unzip();
    for gateway in [&one, &other] {
        let connected = if Arc::ptr_eq(gateway, &one) { &older } else { &newer };
        for connected in connected {
            gateway.connected(*connected).await;
        }
    }
    assert!(told.connected.lock().is_empty(), "nobody listened");
    one.still_connected(&older).await;
    told.connected.lock().sort_by_key(|connected| connected.user_id);
    assert_eq!(*told.connected.lock(), newer);
    // What is forgotten is said again.
    let redis = Redis::connect_within(&cluster.url().into(), LONG, "test:").await.unwrap();
    for node in &redis.nodes().all {
        node.ask::<()>(&::redis::cmd("FLUSHALL"), LONG).await.unwrap();
    }
    other.still_connected(&newer).await;
    assert!(untold.connected.lock().is_empty());
    told.connected.lock().clear();
    one.still_connected(&older).await;
    assert_eq!(told.connected.lock().len(), 20);
}

/// Publishes until something new comes.
async fn comes_through(fan_out: &RedisLive, told: &Told, channel: Channel, position: &mut u64) {
    told.hints.lock().clear();
    eventually("hints come again", LONG, async || {
        *position += 1;
        fan_out.publish(hints(channel, *position..=*position)).await;
        !told.hints.lock().is_empty()
    })
    .await;
}

#[tokio::test]
async fn outages_of_a_server_are_noticed_and_got_over() {
    let server = Server::start().unwrap();
    let (fan_out, gateway) = (process(server.url()).await, process(server.url()).await);
    let told = Told::by(&(gateway.clone() as _));
    gateway.listen(user(1)).await;
    gateway.listen(room(1)).await;
    let mut position = 0;
    for (away, back) in
        [(Server::pause as fn(&Server) -> _, Server::resume as fn(&Server) -> _), (Server::kill, Server::start_again)]
    {
        let outages = gateway.outages();
        away(&server).unwrap();
        eventually("it is noticed", LONG, async || !gateway.is_up()).await;
        // Neither of them waits until it is back.
        let gone_on = async {
            fan_out.publish(hints(user(1), 900..=900)).await;
            gateway.listen(user(2)).await;
            gateway.ignore(user(2));
        };
        timeout(LONG, gone_on).await.unwrap();
        back(&server).unwrap();
        eventually("it is back", LONG, async || gateway.is_up()).await;
        assert!(gateway.outages() > outages);
        for channel in [user(1), room(1)] {
            comes_through(&fan_out, &told, channel, &mut position).await;
        }
    }
    let redis = Redis::connect_within(&server.url().into(), LONG, "").await.unwrap();
    redis.ask::<()>("a", &::redis::cmd("FLUSHALL"), LONG).await.unwrap();
    fan_out.publish(hints(user(1), 1_000..=1_000)).await;
    eventually("nothing of it is forgotten", LONG, async || {
        told.hints.lock().iter().any(|(_, record)| record.position == 1_000)
    })
    .await;
}

#[tokio::test]
async fn the_loss_of_a_node_is_noticed_and_got_over() {
    let cluster = RedisCluster::start().unwrap();
    let (fan_out, gateway) = (process(cluster.url()).await, process(cluster.url()).await);
    let told = Told::by(&(gateway.clone() as _));
    for id in 1..=30 {
        gateway.listen(user(id)).await;
    }
    let outages = gateway.outages();
    cluster.kill(1).unwrap();
    eventually("it is noticed", LONG, async || !gateway.is_up()).await;
    cluster.start_again(1).unwrap();
    eventually("it is back", LONG, async || gateway.is_up()).await;
    assert!(gateway.outages() > outages);
    let mut position = 0;
    for id in 1..=30 {
        comes_through(&fan_out, &told, user(id), &mut position).await;
    }
}
