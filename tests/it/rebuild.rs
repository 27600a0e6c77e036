//! Read models are emptied and filled again from the log, while people go on.

use std::{
    env,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt, stream};
use parlance_client::{
    AckPolicy, Client, Conversation, Member, MemberReceipt, MessageView, Page, Session, SessionOptions, User,
};
use sqlx::{Connection, PgConnection};
use testkit::{app::Place, history::Recorder};
use uuid::Uuid;

use crate::people::{Device, Group, check, everywhere, options, person};

/// Conversations that the messages are spread over.
const CONVERSATIONS: usize = 20;

everywhere!(an_emptied_read_model_is_filled_again_while_sends_go_on);

async fn an_emptied_read_model_is_filled_again_while_sends_go_on(place: Place) {
    let messages: usize =
        env::var("PARLANCE_TEST_MESSAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let mut conversations = vec![ann.open_direct(ben.user_id()).await.unwrap().conversation_id];
    for n in 1..CONVERSATIONS {
        let group = ann.create_group(&format!("group {n}"), vec![ben.user_id()]).await.unwrap();
        conversations.push(group.conversation_id);
    }
    fill(&ann, &conversations, messages / CONVERSATIONS).await;
    // Some receipts, so that there is something to read `unread` and `status` from.
    let mut ben = ben.strictly();
    for conversation in &conversations {
        let mark = parlance_client::AdvanceReceipt { delivered_to: Some(40), read_to: Some(20) };
        ben = ben.at_least(&ben.mark(*conversation, &mark).await.unwrap().position);
    }
    let before = Told::to(&ben, &conversations).await;
    assert_eq!(before.histories.iter().map(Vec::len).sum::<usize>(), messages / CONVERSATIONS * CONVERSATIONS);

    // Somebody else goes on, watched by the checker.
    let (eve, fay) = (person(&server, "eve").await, person(&server, "fay").await);
    let group = Group {
        id: eve.open_direct(fay.user_id()).await.unwrap().conversation_id,
        members: vec![eve.clone(), fay.clone()],
    };
    let recorder = Recorder::new();
    let (eve_log, fay_log) = (recorder.device(eve.user_id(), "eve"), recorder.device(fay.user_id(), "fay"));
    let eve = Device::online(&eve, &eve_log).await;
    let fay = Device::online(&fay, &fay_log).await;
    let done = Arc::new(AtomicBool::new(false));
    let going_on = tokio::spawn({
        let (recorder, done, id) = (recorder.clone(), Arc::clone(&done), group.id);
        async move {
            let mut sent = 0u64;
            while !done.load(Ordering::Relaxed) {
                eve.send(&recorder, id, format!("message {sent}")).await.unwrap();
                sent += 1;
            }
            (eve, sent)
        }
    });

    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    for models in ["timeline", "users, sessions", "conversations, members, receipts, timeline, users, sessions"] {
        let tables: Vec<String> = models.split(", ").map(|table| format!("read.{table}")).collect();
        let truncate = format!("TRUNCATE {}", tables.join(", "));
        sqlx::raw_sql(sqlx::AssertSqlSafe(truncate)).execute(&mut database).await.unwrap();
        let output = app.place().command(&["rebuild", "all"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Told::to(&ben, &conversations).await.assert_is(&before, models);
    }
    database.close().await.unwrap();
    done.store(true, Ordering::Relaxed);
    let (eve, sent) = going_on.await.unwrap();
    assert!(sent > 0);
    for device in [&eve, &fay] {
        device.has(group.id, 1 + sent).await.unwrap();
    }
    check(&recorder, &[group]).await;
    assert!(app.stop().await.unwrap().success());
}

/// Sends `each` messages to each conversation, as fast as the server takes them.
async fn fill(client: &Client, conversations: &[Uuid], each: usize) {
    // Without acks: their receipts would still be on their way when the answers are taken down.
    let acks = AckPolicy::Manual;
    let options = SessionOptions { pipeline: 64, outbox_capacity: 2048, acks, ..options() };
    let (session, mut updates) = client.open_session(options).await.unwrap();
    let drain = tokio::spawn(async move { while updates.next().await.is_some() {} });
    stream::iter(conversations).for_each_concurrent(None, |conversation| send(&session, *conversation, each)).await;
    session.close().await;
    drain.await.unwrap();
}

async fn send(session: &Session, conversation: Uuid, count: usize) {
    stream::iter(0..count)
        .map(|n| async move {
            let pending = session.send(conversation, format!("message {n} of many")).await.unwrap();
            pending.outcome().await.unwrap();
        })
        .buffered(64)
        .collect::<()>()
        .await;
}

/// Everything that a user is told of their conversations.
#[derive(PartialEq)]
struct Told {
    me: User,
    sessions: usize,
    conversations: Vec<Conversation>,
    members: Vec<Page<Member>>,
    receipts: Vec<Page<MemberReceipt>>,
    histories: Vec<Vec<MessageView>>,
}

impl Told {
    async fn to(client: &Client, conversations: &[Uuid]) -> Self {
        let mut told = Self {
            me: client.me().await.unwrap(),
            sessions: client.sessions().await.unwrap().items.len(),
            conversations: Vec::new(),
            members: Vec::new(),
            receipts: Vec::new(),
            histories: Vec::new(),
        };
        let mut cursor = None;
        loop {
            let page = client.conversations(cursor.as_deref()).await.unwrap();
            told.conversations.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(told.conversations.len(), conversations.len());
        for conversation in conversations {
            told.members.push(client.members(*conversation, None).await.unwrap());
            told.receipts.push(client.receipts(*conversation, None).await.unwrap());
            told.histories.push(client.history(*conversation, 0).await.unwrap());
        }
        told
    }

    /// Names the first difference, since all of it would fill the screen many times over.
    fn assert_is(&self, before: &Self, emptied: &str) {
        assert_eq!((&self.me, self.sessions), (&before.me, before.sessions), "after emptying {emptied}");
        each_is(&self.conversations, &before.conversations, emptied);
        each_is(&self.members, &before.members, emptied);
        each_is(&self.receipts, &before.receipts, emptied);
        for (history, wanted) in self.histories.iter().zip(&before.histories) {
            each_is(history, wanted, emptied);
        }
    }
}

fn each_is<T: PartialEq + Debug>(found: &[T], wanted: &[T], emptied: &str) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found, wanted, "after emptying {emptied}");
    }
    assert_eq!(found.len(), wanted.len(), "after emptying {emptied}");
}
