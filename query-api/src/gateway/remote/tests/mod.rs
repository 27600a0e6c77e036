//! A gateway and command sides on real sockets, which die, hang, and are not there.

mod side;

use std::time::Duration;

use command_api::ReceiptMove;
use futures::future::join_all;
use platform::http::RequestContext;
use platform::registry;
use testkit::{Database, eventually};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use side::Side;

/// The bound of every wait.
const BOUND: Duration = Duration::from_mins(1);

/// Two command sides, one who is in a group alone, and the gateway's end.
struct World {
    sides: Vec<Side>,
    members: watch::Sender<Members>,
    commands: Arc<RemoteCommands>,
    ann: Caller,
    group: Uuid,
    database: Database,
}

fn list(sides: &[Side]) -> Members {
    sides.iter().map(Side::url).collect()
}

impl World {
    async fn new() -> Self {
        let database = Database::new().await;
        let sides = vec![Side::start(database.options(), None).await, Side::start(database.options(), None).await];
        let (ann, token) = sides[0].user("ann").await;
        let group = sides[0].group(&token).await;
        let (members, receiver) = watch::channel(list(&sides));
        let commands = Arc::new(RemoteCommands::new(receiver, sides[0].authenticator.keyring()));
        Self { sides, members, commands, ann, group, database }
    }

    /// Which side owns the group, and which does not.
    fn owner(&self) -> (usize, usize) {
        let owner = self.commands.calls.owner(self.group).unwrap();
        (owner, 1 - owner)
    }

    async fn say(&self, message_id: Uuid) -> Result<MessageSent, Problem> {
        self.commands.send(&self.ann, self.group, saying(message_id), None).await
    }

    /// Says so much at once, as one socket does.
    async fn say_all(&self, count: usize) -> Vec<Result<MessageSent, Problem>> {
        join_all((0..count).map(|_| self.say(Uuid::now_v7()))).await
    }

    async fn head(&self) -> u64 {
        self.commands.heads(&[self.group]).await.unwrap()[&self.group]
    }

    /// Waits until all sides can be reached.
    async fn connected(&self) {
        eventually("all are connected", BOUND, async || self.commands.reachable() == self.sides.len()).await;
    }
}

fn saying(message_id: Uuid) -> SendMessage {
    SendMessage { message_id, content: "hi".to_owned(), kind: None, reply_to: None, mentions: vec![], file_ids: vec![] }
}

fn seqs(said: Vec<Result<MessageSent, Problem>>) -> Vec<u64> {
    said.into_iter().map(|sent| sent.unwrap().seq).collect()
}

#[tokio::test]
async fn what_is_said_at_once_keeps_its_order() {
    let world = World::new().await;
    let seqs = seqs(world.say_all(300).await);
    assert_eq!(seqs, (2..=301).collect::<Vec<u64>>());
    assert_eq!(world.head().await, 301);
    let positions = world.commands.positions().await.unwrap();
    assert_eq!(positions, world.sides[0].service.positions().await.unwrap());
    // Unknown ones are left out, however many are asked for.
    let many: Vec<Uuid> = (0..2_500).map(|_| Uuid::now_v7()).chain([world.group]).collect();
    assert_eq!(world.commands.heads(&many).await.unwrap(), [(world.group, 301)].into());
}

#[tokio::test]
async fn long_messages_go_in_as_many_calls_as_they_need() {
    let world = World::new().await;
    let long = |_| SendMessage { content: "\"".repeat(16_384), ..saying(Uuid::now_v7()) };
    let said = join_all((0..20).map(long).map(|long| world.commands.send(&world.ann, world.group, long, None))).await;
    assert_eq!(seqs(said), (2..=21).collect::<Vec<u64>>());
}

#[tokio::test]
async fn refusals_are_handed_on_as_they_are() {
    let world = World::new().await;
    let (eve, _) = world.sides[1].user("eve").await;
    let refused = world.commands.send(&eve, world.group, saying(Uuid::now_v7()), None).await.unwrap_err();
    assert_eq!((refused.status, refused.kind.as_str()), (404, "/problems/not-found"));
    let refused = world.commands.send(&world.ann, world.group, saying(Uuid::nil()), None).await.unwrap_err();
    assert_eq!(refused.errors[0].pointer.as_deref(), Some("/message_id"));
    let beyond = AdvanceReceipt { delivered_to: Some(99), read_to: None };
    let refused = world.commands.advance_receipt(&world.ann, world.group, beyond).await.unwrap_err();
    assert_eq!(refused.status, 422);
    let known = AdvanceReceipt { delivered_to: Some(1), read_to: None };
    world.commands.advance_receipt(&world.ann, world.group, known).await.unwrap();
    // The largest that a client may say, and then some: refused by its size, not lost.
    let message = SendMessage { content: "\u{1}".repeat(16_384), ..saying(Uuid::now_v7()) };
    world.commands.send(&world.ann, world.group, message, None).await.unwrap();
    let message = SendMessage { content: "x".repeat(140_000), ..saying(Uuid::now_v7()) };
    assert_eq!(world.commands.send(&world.ann, world.group, message, None).await.unwrap_err().status, 413);
}

#[tokio::test]
async fn a_death_costs_nothing_but_time() {
    let mut world = World::new().await;
    world.connected().await;
    let (owner, _) = world.owner();
    let before = seqs(world.say_all(20).await);
    let mut dying = world.sides.swap_remove(owner);
    let (said, ()) = tokio::join!(world.say_all(400), async {
        let half = async || world.sides[0].service.heads(&[world.group]).await.unwrap()[&world.group] > 100;
        eventually("some are said", BOUND, half).await;
        dying.kill();
    });
    // All, each once, in their order.
    let seqs = [before, seqs(said)].concat();
    assert_eq!(seqs, (2..=421).collect::<Vec<u64>>());
    assert_eq!(world.head().await, 421);
}

#[tokio::test]
async fn one_that_hangs_is_given_up_in_time() {
    let world = World::new().await;
    world.connected().await;
    let (owner, _) = world.owner();
    let message = Uuid::now_v7();
    let frozen = world.sides[owner].freeze();
    let sent = world.say(message).await.unwrap();
    // From here on it is asked no more: it counts as away though it still takes connections.
    seqs(world.say_all(10).await);
    world.commands.positions().await.unwrap();
    // More than there is time for, if each of them waited for it.
    let asked = async {
        for _ in 0..200 {
            world.head().await;
        }
    };
    timeout(BOUND, asked).await.unwrap();
    // What it makes of the first try, once it goes on, is nothing new.
    drop(frozen);
    world.connected().await;
    assert_eq!(world.say(message).await.unwrap(), sent);
    assert_eq!(world.head().await, sent.seq + 10);
}

#[tokio::test]
async fn one_that_never_answers_is_never_asked() {
    let world = World::new().await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    world.members.send_replace([url].into_iter().chain(world.sides.iter().map(Side::url)).collect());
    // More than there is time for, if each of them waited.
    let asked = async {
        for _ in 0..100 {
            seqs(world.say_all(1).await);
            world.head().await;
        }
    };
    timeout(BOUND, asked).await.unwrap();
}

#[tokio::test]
async fn a_drain_loses_nothing() {
    let world = World::new().await;
    world.connected().await;
    let (owner, _) = world.owner();
    let (said, ()) = tokio::join!(world.say_all(400), async {
        eventually("some are said", BOUND, async || world.head().await > 100).await;
        world.sides[owner].drain();
    });
    assert_eq!(seqs(said), (2..=401).collect::<Vec<u64>>());
}

#[tokio::test]
async fn while_nobody_is_there_calls_wait_and_then_go_on() {
    let mut world = World::new().await;
    let (address, other) = (world.sides[0].address, world.sides[1].address);
    world.sides.iter_mut().for_each(Side::kill);
    let (said, late) =
        tokio::join!(world.say_all(3), async { Side::start(world.database.options(), Some(address)).await });
    assert_eq!(seqs(said), [2, 3, 4]);
    // A list without those who are there, then one with them.
    world.members.send_replace(Members::default());
    let back = Side::start(world.database.options(), Some(other)).await;
    let (head, _) = tokio::join!(world.head(), async { world.members.send_replace([back.url()].into()) });
    assert_eq!(head, 4);
    drop(late);
}

#[tokio::test]
async fn the_registry_leads_to_those_who_are_there() {
    let world = World::new().await;
    let pool = world.database.pool().clone();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let receiver = registry::watch(pool.clone(), stop.clone());
    let commands = RemoteCommands::new(receiver, world.sides[0].authenticator.keyring());
    let asking = commands.positions();
    tokio::spawn(registry::join(pool, world.sides[1].url().parse().unwrap(), stop.clone()));
    asking.await.unwrap();
}

#[tokio::test]
async fn watermarks_wait_until_they_are_committed() {
    let mut world = World::new().await;
    let last = *seqs(world.say_all(50).await).last().unwrap();
    let (bob, _) = world.sides[0].user("bob").await;
    world.members.send_replace(Members::default());
    for seq in 1..=last {
        let receipt = AdvanceReceipt { delivered_to: Some(seq), read_to: seq.checked_sub(10) };
        world.commands.take_receipt(&world.ann, world.group, receipt).unwrap();
    }
    // One who is no member's goes the same way, and is dropped there.
    let receipt = AdvanceReceipt { delivered_to: Some(1), read_to: None };
    world.commands.take_receipt(&bob, world.group, receipt).unwrap();
    world.members.send_replace(list(&world.sides));
    world.commands.drain().await;
    // What was handed on is safe, though those who took it are no more.
    world.sides.iter_mut().for_each(Side::kill);
    let side = Side::start(world.database.options(), None).await;
    let nothing = ReceiptMove {
        conversation_id: world.group,
        user_id: world.ann.user_id,
        device_id: world.ann.device_id,
        delivered_to: None,
        read_to: None,
    };
    let marks = side.service.advance(nothing, &RequestContext::bare()).await.unwrap();
    assert_eq!((marks.delivered_to, marks.read_to), (last, last - 10));
    let receipt = AdvanceReceipt { delivered_to: Some(1), read_to: None };
    let refused = world.commands.take_receipt(&world.ann, world.group, receipt).unwrap_err();
    assert_eq!((refused.status, refused.retryable), (503, true));
    assert_eq!(world.say(Uuid::now_v7()).await.unwrap_err().status, 503);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_comes_the_caller_is_told_to_try_again() {
    let (_members, receiver) = watch::channel(Members::default());
    let calls = Calls::new(receiver, "token");
    let begun = Instant::now();
    let problem = calls.ask::<Positions>(Whose::Anyone, POSITIONS, &()).await.unwrap_err();
    assert_eq!((problem.status, problem.retryable), (503, true));
    assert_eq!(begun.elapsed().as_secs(), call::BOUND.as_secs());
}
