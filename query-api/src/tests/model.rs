//! Status, unread and visibility against a model that follows the contract's words one by one.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use schemas::rest::{Conversation, Delivery, MessageView, Page};
use uuid::Uuid;

use super::World;

const USERS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Join(usize),
    Leave(usize),
    /// Ack up to this many events before the head.
    Deliver(usize, i64),
    /// Read likewise.
    Read(usize, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let user = 0..USERS;
    prop_oneof![
        4 => user.clone().prop_map(Step::Send),
        1 => user.clone().prop_map(Step::Join),
        1 => user.clone().prop_map(Step::Leave),
        3 => (user.clone(), 0..4_i64).prop_map(|(user, back)| Step::Deliver(user, back)),
        3 => (user, 0..4_i64).prop_map(|(user, back)| Step::Read(user, back)),
    ]
}

#[derive(Clone, Copy)]
struct Stay {
    joined: i64,
    delivered: i64,
    read: i64,
}

struct Said {
    seq: i64,
    sender: usize,
    /// Those who were members when it was sent, and still are, without the sender.
    waits_for: Vec<usize>,
    status: Delivery,
}

struct Model {
    head: i64,
    stays: [Option<Stay>; USERS],
    ever: [bool; USERS],
    said: Vec<Said>,
}

impl Model {
    /// Takes every message as far as all whom it waits for have got; never back, and nowhere without anybody.
    fn settle(&mut self) {
        for said in &mut self.said {
            let reach = |user: &usize| {
                let stay = self.stays[*user].expect("whom it waits for is there");
                match said.seq {
                    seq if stay.read >= seq => Delivery::Read,
                    seq if stay.delivered >= seq => Delivery::Delivered,
                    _ => Delivery::Sent,
                }
            };
            if let Some(furthest) = said.waits_for.iter().map(reach).min() {
                said.status = said.status.max(furthest);
            }
        }
    }
}

async fn follow(world: &World, users: &[Uuid], since_join: bool, steps: &[Step]) {
    let first = 2;
    let history = if since_join { "since_join" } else { "all" };
    let group = world.conversation("group", history, &users[..first]).await;
    let start = Stay { joined: 0, delivered: 0, read: 0 };
    let mut model = Model {
        head: 1,
        stays: std::array::from_fn(|user| (user < first).then_some(start)),
        ever: std::array::from_fn(|user| user < first),
        said: Vec::new(),
    };
    for step in steps {
        match *step {
            Step::Send(sender) if model.stays[sender].is_some() => {
                model.head += 1;
                world.message(group, model.head, users[sender]).await;
                let waits_for = (0..USERS).filter(|user| *user != sender && model.stays[*user].is_some()).collect();
                model.said.push(Said { seq: model.head, sender, waits_for, status: Delivery::Sent });
            }
            Step::Join(user) if model.stays[user].is_none() => {
                model.head += 1;
                world.join(group, users[user], model.head, "member").await;
                model.stays[user] = Some(Stay { joined: model.head, delivered: model.head, read: model.head });
                model.ever[user] = true;
            }
            Step::Leave(user) if model.stays[user].is_some() => {
                model.head += 1;
                world.leave(group, users[user], model.head).await;
                model.stays[user] = None;
                for said in &mut model.said {
                    said.waits_for.retain(|waited| *waited != user);
                }
            }
            Step::Deliver(user, back) => {
                if let Some(stay) = &mut model.stays[user] {
                    stay.delivered = stay.delivered.max(model.head - back);
                    world.receipt(group, users[user], stay.delivered, stay.read).await;
                }
            }
            Step::Read(user, back) => {
                if let Some(stay) = &mut model.stays[user] {
                    stay.read = stay.read.max(model.head - back);
                    stay.delivered = stay.delivered.max(stay.read);
                    world.receipt(group, users[user], stay.delivered, stay.read).await;
                }
            }
            _ => {}
        }
        model.settle();
    }
    for (user, id) in users.iter().enumerate() {
        compare(world, &model, group, (user, *id), since_join).await;
    }
}

async fn compare(world: &World, model: &Model, group: Uuid, (user, id): (usize, Uuid), since_join: bool) {
    let path = format!("/v1/conversations/{group}");
    let Some(stay) = model.stays[user] else {
        let status = if model.ever[user] { 403 } else { 404 };
        world.get(id, &path).await.is_problem(status, None);
        world.get(id, &format!("{path}/messages")).await.is_problem(status, None);
        return;
    };
    let visible: Vec<_> = model.said.iter().filter(|said| !since_join || said.seq > stay.joined).collect();
    let expected: Vec<_> = visible.iter().map(|said| (said.seq.cast_unsigned(), said.status)).collect();
    let shown = |view: &MessageView| (view.message.seq, view.status);

    let page: Page<MessageView> = world.get(id, &format!("{path}/messages?after=0&limit=200")).await.is();
    assert_eq!(page.items.iter().map(shown).collect::<Vec<_>>(), expected);
    let page: Page<MessageView> = world.get(id, &format!("{path}/messages?limit=3")).await.is();
    assert_eq!(page.items.iter().map(shown).collect::<Vec<_>>(), expected[expected.len().saturating_sub(3)..]);
    for view in &page.items {
        let one: MessageView = world.get(id, &format!("{path}/messages/{}", view.message.message_id)).await.is();
        assert_eq!(&one, view);
    }

    let one = world.one(id, group).await;
    let unread = visible.iter().filter(|said| said.sender != user && said.seq > stay.read).count();
    assert_eq!(one.unread, u64::try_from(unread).unwrap());
    assert_eq!((one.delivered_to, one.read_to), (stay.delivered.cast_unsigned(), stay.read.cast_unsigned()));
    assert_eq!(one.last_seq, model.head.cast_unsigned());
    assert_eq!(one.last_message.as_ref().map(shown), expected.last().copied());
    assert_eq!(one.member_count, u64::try_from(model.stays.iter().flatten().count()).unwrap());
    let list: Page<Conversation> = world.get(id, "/v1/conversations?limit=200").await.is();
    assert!(list.items.contains(&one));
}

#[test]
fn status_unread_and_visibility_are_as_in_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let mut users = Vec::new();
    for nth in 0..USERS {
        users.push(runtime.block_on(world.user(&format!("user{nth}"), None)));
    }
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let steps = (any::<bool>(), prop::collection::vec(step(), 0..40));
    runner
        .run(&steps, |(since_join, steps)| {
            runtime.block_on(async {
                sqlx::query("TRUNCATE read.conversations, read.members, read.receipts, read.timeline")
                    .execute(world.pool())
                    .await
                    .unwrap();
                follow(&world, &users, since_join, &steps).await;
            });
            Ok(())
        })
        .unwrap();
    // Dropped within the runtime, whose connections it closes.
    let _entered = runtime.enter();
    drop(world);
}
