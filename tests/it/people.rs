//! People with devices: registered and logged in over the wire, everything they see recorded for the history checker.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use parlance_client::{AckPolicy, Backoff, Client, Register, Server, Session, SessionOptions, Update, Updates};
use testkit::{
    app::Place,
    eventually, eventually_ok,
    history::{self, Conversation, DeviceLog, Entry, Member, Recorder, Summary},
};
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

pub(crate) const PASSWORD: &str = "correct horse 9 battery";

/// For whatever a whole crowd has to arrive at, on a machine that is busy.
pub(crate) const BOUND: Duration = Duration::from_mins(2);

/// How many log in at once: each costs the server a password hash.
const AT_ONCE: usize = 4;

/// A place for the binary under test.
pub(crate) fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_parlance")).unwrap()
}

/// A place on real engines of its own: PostgreSQL, Kafka, Redis, roles apart behind nginx.
pub(crate) async fn place_on_stack() -> Place {
    Place::on_stack(env!("CARGO_BIN_EXE_parlance")).await.unwrap()
}

/// Runs a test from one source in both forms of an installation: everything in one process, and roles apart on engines.
macro_rules! everywhere {
    ($test:ident) => {
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_one_process() {
                super::$test(crate::people::place()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_the_stack() {
                super::$test(crate::people::place_on_stack().await).await;
            }
        }
    };
}
pub(crate) use everywhere;

/// A name that nobody else has.
pub(crate) fn name(who: &str) -> String {
    format!("{who}-{}", &Uuid::new_v4().simple().to_string()[..8])
}

/// Registers somebody.
pub(crate) async fn register(server: &Server, name: &str) -> Uuid {
    let user = Register {
        username: name.to_owned(),
        email: format!("{name}@example.org"),
        password: PASSWORD.to_owned(),
        display_name: None,
    };
    server.register(&user).await.unwrap().user_id
}

/// Logs somebody in on a new device.
pub(crate) async fn log_in(server: &Server, name: &str) -> Client {
    server.log_in(name, PASSWORD, None).await.unwrap()
}

/// Registers somebody and logs them in.
pub(crate) async fn person(server: &Server, who: &str) -> Client {
    let name = name(who);
    register(server, &name).await;
    log_in(server, &name).await
}

/// Registers and logs in a crowd.
pub(crate) async fn crowd(server: &Server, count: usize) -> Vec<Client> {
    stream::iter(0..count)
        .map(|n| async move { person(server, &format!("c{n}")).await })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// Sessions that come back quickly.
pub(crate) fn options() -> SessionOptions {
    SessionOptions {
        backoff: Backoff { base: Duration::from_millis(20), max: Duration::from_millis(500) },
        ack_within: Duration::from_millis(50),
        pipeline: 4,
        ..SessionOptions::default()
    }
}

/// What a device has got so far, for tests to wait on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The last seq of each conversation.
    pub(crate) has: HashMap<Uuid, u64>,
    /// Events of this session.
    pub(crate) events: usize,
    /// Whether the session has caught up.
    pub(crate) synced: bool,
}

/// A device that is online: a session, and a task that takes and records all that comes.
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) session: Session,
    pub(crate) progress: watch::Receiver<Progress>,
    /// Events are taken while this says so; further ones wait, unacked.
    pub(crate) limit: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Device {
    /// Goes online with what the server knows of the device.
    pub(crate) async fn online(client: &Client, log: &DeviceLog) -> Self {
        Self::online_up_to(client, log, usize::MAX).await
    }

    /// The same, taking (and acking) no more than `limit` events until the limit is raised.
    pub(crate) async fn online_up_to(client: &Client, log: &DeviceLog, limit: usize) -> Self {
        // The application says when it has an event: this one, once it is written down.
        let options = SessionOptions { acks: AckPolicy::Manual, ..options() };
        let (session, updates) = client.open_session(options).await.unwrap();
        let (progress, seen) = watch::channel(Progress::default());
        let (limit, limits) = watch::channel(limit);
        let reads = client.user_id().as_u128().is_multiple_of(2);
        let task = tokio::spawn(take(updates, session.clone(), log.clone(), progress, limits, reads));
        Self { client: client.clone(), session, progress: seen, limit, task }
    }

    /// Sends a message and records what becomes of it; in a task, since the answer may take a restart of the server.
    pub(crate) fn send(&self, recorder: &Recorder, conversation: Uuid, content: String) -> JoinHandle<()> {
        let (session, recorder, user) = (self.session.clone(), recorder.clone(), self.client.user_id());
        tokio::spawn(async move {
            let message = parlance_client::text_message(content);
            recorder.sending(user, conversation, message.message_id, &message.content);
            let pending = session.send_message(conversation, message.clone()).await.unwrap();
            let sent = pending.outcome().await.unwrap();
            recorder.acknowledged(message.message_id, sent.seq);
        })
    }

    /// Waits until the device has got so far.
    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Progress) -> bool) {
        self.reaches(what, condition).await.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Waits until the device has a conversation up to its head; else says how far it has got.
    pub(crate) async fn has(&self, conversation: Uuid, head: u64) -> Result<(), String> {
        let what = format!("{} has {conversation} up to {head}", self.client.user_id());
        self.reaches(&what, |progress| progress.has.get(&conversation).is_some_and(|has| *has >= head)).await
    }

    async fn reaches(&self, what: &str, condition: impl FnMut(&Progress) -> bool) -> Result<(), String> {
        let mut progress = self.progress.clone();
        match tokio::time::timeout(BOUND, progress.wait_for(condition)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(format!("the session ended before {what}: {:?}", *self.progress.borrow())),
            Err(_) => Err(format!("not within {BOUND:?}: {what}: {:?}", *self.progress.borrow())),
        }
    }

    /// Goes offline, with all acks written that are owed.
    pub(crate) async fn offline(self) {
        self.session.close().await;
        self.task.await.unwrap();
    }
}

async fn take(
    mut updates: Updates,
    session: Session,
    log: DeviceLog,
    progress: watch::Sender<Progress>,
    mut limits: watch::Receiver<usize>,
    reads: bool,
) {
    loop {
        let events = progress.borrow().events;
        if limits.wait_for(|limit| events < *limit).await.is_err() {
            return;
        }
        let Some(update) = updates.next().await else { return };
        match update {
            Update::Online(_) => log.connected(),
            Update::Synced => progress.send_modify(|progress| progress.synced = true),
            Update::Event(event) => {
                let message = event.message().map(|message| message.message_id);
                log.received(event.conversation_id, event.seq, message);
                session.ack(event.conversation_id, event.seq);
                if reads && event.seq.is_multiple_of(5) {
                    session.read(event.conversation_id, event.seq);
                }
                progress.send_modify(|progress| {
                    progress.has.insert(event.conversation_id, event.seq);
                    progress.events += 1;
                });
            }
            Update::Receipt(receipt) => {
                log.receipt(receipt.conversation_id, receipt.user_id, receipt.delivered_to, receipt.read_to);
            }
            // The library refuses gaps before we would see them.
            Update::Offline { reason, .. } => assert!(!reason.contains("instead of"), "{reason}"),
            Update::Closed(_) => return,
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// A conversation and its members.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: Uuid,
    pub(crate) members: Vec<Client>,
}

/// Waits until everything is answered, delivered and stored, and checks the histories.
pub(crate) async fn check(recorder: &Recorder, groups: &[Group]) -> Summary {
    eventually("every send is answered", BOUND, async || recorder.unanswered() == 0).await;
    // What devices were told first: a receipt that comes while the histories are read is not yet in all of them.
    let mut run = recorder.run(Vec::new());
    let mut told_read: HashMap<(Uuid, Uuid), u64> = HashMap::new();
    for receipt in run.devices.iter().flat_map(|device| &device.receipts) {
        let read_to = told_read.entry((receipt.conversation_id, receipt.user)).or_default();
        *read_to = receipt.read_to.max(*read_to);
    }
    // Where roles are apart devices are told of events before the read models are.
    let mut heads: HashMap<Uuid, u64> = HashMap::new();
    for event in run.devices.iter().flat_map(|device| device.connections.iter().flatten()) {
        let head = heads.entry(event.conversation_id).or_default();
        *head = event.seq.max(*head);
    }
    let read = |group| read_history(group, &told_read, &heads);
    run.conversations = stream::iter(groups).map(read).buffer_unordered(AT_ONCE).collect().await;
    match history::check(&run) {
        Ok(summary) => summary,
        Err(violations) => panic!("{violations}"),
    }
}

/// The history as the first member is told it, and what each member is told once all receipts are in.
async fn read_history(
    group: &Group,
    told_read: &HashMap<(Uuid, Uuid), u64>,
    heads: &HashMap<Uuid, u64>,
) -> Conversation {
    let id = group.id;
    let head = heads.get(&id).copied().unwrap_or(0);
    let mut conversation = Conversation { conversation_id: id, others: BTreeSet::from([1]), ..Conversation::default() };
    for client in &group.members {
        let read = told_read.get(&(id, client.user_id())).copied().unwrap_or(0);
        let what = "all that was acked is stored as delivered, and all that was told as read";
        let told = eventually_ok(what, BOUND, async || {
            let told = client.conversation(id).await.unwrap();
            if told.last_seq >= head && told.delivered_to == told.last_seq && told.read_to >= read {
                return Ok(told);
            }
            let user = client.user_id();
            Err(format!("{user} is to have read {id} to {read} of {head} or more, and is told of it as {told:?}"))
        })
        .await;
        conversation.head = told.last_seq;
        conversation.members.push(Member {
            user: client.user_id(),
            unread: told.unread,
            delivered_to: told.delivered_to,
            read_to: told.read_to,
        });
    }
    let messages = group.members[0].history(id, 0).await.unwrap();
    conversation.entries = messages
        .into_iter()
        .map(|view| Entry {
            seq: view.message.seq,
            message_id: view.message.message_id,
            sender: view.message.sender_id,
            content: history::digest(&view.message.content.unwrap()),
        })
        .collect();
    conversation
}

/// Groups of `size`, one after the other, that a crowd is divided into; `extra` are in all of them.
pub(crate) async fn divide(crowd: &[Client], size: usize, extra: &[Client]) -> Vec<Group> {
    stream::iter(crowd.chunks(size).enumerate())
        .map(|(n, members)| async move {
            let members: Vec<Client> = members.iter().chain(extra).cloned().collect();
            let others = members[1..].iter().map(Client::user_id).collect();
            let id = members[0].create_group(&format!("group {n}"), others).await?.conversation_id;
            Ok::<_, parlance_client::Error>(Group { id, members })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .unwrap()
}
