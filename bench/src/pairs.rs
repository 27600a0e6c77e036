//! Pairs of users, one sending to the other: a closed loop that saturates, and an open one at a fixed rate.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use parlance_client::{Client, Register, Server};
use testkit::history::{self, Answer, Conversation, Device, Entry, Member, Receipt, Received, Run, Send};
use tokio::{sync::oneshot, task::JoinSet, time::MissedTickBehavior};
use uuid::Uuid;

use crate::socket::{self, Frame, Reader, Writer, push_pong, push_text};

/// Bytes of a message's content.
const CONTENT_BYTES: usize = 200;
/// Acks are looked at so often …
const TICK: Duration = Duration::from_millis(20);
/// … and written when the oldest event has waited for so long: with the tick, less than 50 ms.
const ACK_AFTER: Duration = Duration::from_millis(25);
/// How many events are acked without waiting.
const ACK_EVERY: u64 = 64;
/// How long what is under way may take to arrive once nothing is sent any more.
const DRAIN_BOUND: Duration = Duration::from_mins(1);
/// How many users are made at once: each costs the server a password hash.
const AT_ONCE: usize = 4;
/// The password of all of them.
const PASSWORD: &str = "correct horse 9 battery";

/// A user of the load, logged in.
pub async fn user(server: &Server, name: &str) -> anyhow::Result<Client> {
    let user = Register {
        username: name.to_owned(),
        email: format!("{name}@example.org"),
        password: PASSWORD.to_owned(),
        display_name: None,
    };
    server.register(&user).await?;
    log_in(server, name).await
}

/// Another device of such a user.
pub async fn log_in(server: &Server, name: &str) -> anyhow::Result<Client> {
    Ok(server.log_in(name, PASSWORD, None).await?)
}

/// Events of one connection: their number, and the message if it is one.
type Events = Vec<(u64, Option<u128>)>;

/// Two users and what they have seen so far.
#[derive(Debug)]
struct Pair {
    conversation: Uuid,
    /// The one who sends, the one who receives.
    clients: [Client; 2],
    sends: Arc<Mutex<Vec<Sent>>>,
    delivered: usize,
    /// The events that came, by side and connection.
    received: [Vec<Events>; 2],
    receipts: [Vec<(u128, u64, u64)>; 2],
    /// The head as each side knows it, and what it has acked of it.
    seen: [u64; 2],
    acked: [u64; 2],
}

/// A message of the load; times in nanoseconds since the load began.
#[derive(Debug, Clone, Copy)]
struct Sent {
    id: u128,
    /// When it was to be sent: in a closed loop, when it was.
    intended: u64,
    acknowledged: Option<(u64, u64)>,
    /// When the recipient's socket had it.
    delivered: u64,
}

/// How messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many of each sender are under way, always.
    Closed {
        /// Sent and not yet delivered.
        under_way: usize,
    },
    /// So many a second of all senders together, however the server keeps up.
    Open {
        /// Messages a second.
        per_second: u32,
    },
}

/// What was seen between two moments.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Messages that reached their recipient.
    pub delivered: usize,
    /// For so many seconds.
    pub seconds: f64,
    /// Half of the messages took no longer, in milliseconds.
    pub p50_ms: f64,
    /// All but a hundredth took no longer.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Receipts that came, over all workloads so far.
    pub receipts: usize,
}

/// All pairs, between workloads.
#[derive(Debug)]
pub struct Pairs {
    pairs: Vec<Pair>,
    epoch: Instant,
}

/// The pairs at work on a thread of their own.
#[derive(Debug)]
pub struct Load {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    result: JoinHandle<anyhow::Result<Vec<Pair>>>,
    stop: Arc<AtomicBool>,
    delivered: Arc<AtomicU64>,
    epoch: Instant,
}

impl Pairs {
    /// Registers and logs in two users a pair, and opens their conversations.
    pub async fn set_up(server: &Server, count: usize) -> anyhow::Result<Self> {
        let run = Uuid::new_v4().simple().to_string();
        let pairs = stream::iter(0..count)
            .map(|index| {
                let names = ["a", "b"].map(|side| format!("load-{}-{index}{side}", &run[..8]));
                async move {
                    let clients = [user(server, &names[0]).await?, user(server, &names[1]).await?];
                    let conversation = clients[0].open_direct(clients[1].user_id()).await?.conversation_id;
                    anyhow::Ok(Pair {
                        conversation,
                        clients,
                        sends: Arc::default(),
                        delivered: 0,
                        received: Default::default(),
                        receipts: Default::default(),
                        seen: [0; 2],
                        acked: [0; 2],
                    })
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self { pairs, epoch: Instant::now() })
    }

    /// Connects all and lets them talk, until [`Load::finish`].
    pub async fn start(self, pace: Pace) -> anyhow::Result<Load> {
        let (stop, delivered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ready, connected) = oneshot::channel();
        let epoch = self.epoch;
        let result = std::thread::spawn({
            let (stop, delivered) = (Arc::clone(&stop), Arc::clone(&delivered));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(talk_all(self.pairs, epoch, pace, ready, stop, delivered))
            }
        });
        let Ok(writers) = connected.await else {
            let error = result.join().map_err(|_| anyhow!("the load panicked"))?.expect_err("it was not ready");
            return Err(error.context("the load could not connect"));
        };
        let mut threads = Vec::new();
        if let Pace::Open { per_second } = pace {
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || keep_pace(&writers, epoch, per_second, &stop)));
        }
        Ok(Load { threads, result, stop, delivered, epoch })
    }

    /// What reached its recipient between two moments, latency counted from the intended time of sending.
    #[expect(clippy::cast_precision_loss, reason = "times of a few minutes")]
    pub fn seen(&self, from: Instant, to: Instant) -> Seen {
        let (from, to) = (nanos(self.epoch, from), nanos(self.epoch, to));
        let mut latencies: Vec<u64> = Vec::new();
        for pair in &self.pairs {
            for sent in &pair.sends.lock()[..pair.delivered] {
                if (from..to).contains(&sent.delivered) {
                    latencies.push(sent.delivered - sent.intended);
                }
            }
        }
        latencies.sort_unstable();
        let at = |part: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
            let index = (latencies.len() as f64 * part) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1))).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
        };
        Seen {
            delivered: latencies.len(),
            seconds: (to - from) as f64 / 1e9,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            receipts: self.pairs.iter().flat_map(|pair| &pair.receipts).map(Vec::len).sum(),
        }
    }

    /// Reads the histories and what the members are told, and checks all that was seen against them.
    pub async fn check(&self) -> anyhow::Result<history::Summary> {
        let conversations: Vec<Conversation> =
            stream::iter(&self.pairs).map(Pair::read_history).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut run = Run { conversations, ..Run::default() };
        for pair in &self.pairs {
            pair.record(&mut run);
        }
        Ok(history::check(&run)?)
    }
}

impl Load {
    /// Messages delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The moment from which times are counted.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Sends no more, waits until all that is under way has arrived and is acked, and disconnects.
    pub async fn finish(self) -> anyhow::Result<Pairs> {
        self.stop.store(true, Ordering::Relaxed);
        let epoch = self.epoch;
        let pairs = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                thread.join().map_err(|_| anyhow!("the pace panicked"))??;
            }
            self.result.join().map_err(|_| anyhow!("the load panicked"))?
        })
        .await??;
        Ok(Pairs { pairs, epoch })
    }
}

fn nanos(epoch: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// What a message says: its own id and filling, so that it need not be kept.
fn content(id: u128) -> String {
    let mut content = Uuid::from_u128(id).to_string();
    content.extend(std::iter::repeat_n('x', CONTENT_BYTES - content.len()));
    content
}

/// The frame that sends a message; its number is its `ref`.
fn send_frame(out: &mut Vec<u8>, conversation: Uuid, reference: usize, id: u128) {
    let frame = format!(
        r#"{{"type":"send","ref":"{reference}","conversation_id":"{conversation}","message_id":"{}","content":"{}"}}"#,
        Uuid::from_u128(id),
        content(id)
    );
    push_text(out, frame.as_bytes());
}

/// What the pace needs of a pair.
type Sender = (Uuid, Writer, Arc<Mutex<Vec<Sent>>>);

async fn talk_all(
    pairs: Vec<Pair>,
    epoch: Instant,
    pace: Pace,
    ready: oneshot::Sender<Vec<Sender>>,
    stop: Arc<AtomicBool>,
    delivered: Arc<AtomicU64>,
) -> anyhow::Result<Vec<Pair>> {
    let mut connected = Vec::with_capacity(pairs.len());
    let mut senders = Vec::with_capacity(pairs.len());
    for mut pair in pairs {
        let sockets = [pair.connect(0).await?, pair.connect(1).await?];
        senders.push((pair.conversation, sockets[0].1.clone(), Arc::clone(&pair.sends)));
        connected.push((pair, sockets));
    }
    if ready.send(senders).is_err() {
        return Err(anyhow!("nobody waits for the load"));
    }
    let under_way = match pace {
        Pace::Closed { under_way } => Some(under_way),
        Pace::Open { .. } => None,
    };
    let mut tasks = JoinSet::new();
    for (pair, sockets) in connected {
        let (stop, delivered) = (Arc::clone(&stop), Arc::clone(&delivered));
        tasks.spawn(pair.talk(sockets, epoch, under_way, stop, delivered));
    }
    let mut pairs = Vec::new();
    while let Some(pair) = tasks.join_next().await {
        pairs.push(pair??);
    }
    Ok(pairs)
}

/// Sends at a fixed rate, from a thread of its own: the runtime's timer is too coarse for it.
fn keep_pace(senders: &[Sender], epoch: Instant, per_second: u32, stop: &AtomicBool) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut frame = Vec::new();
    for (n, (conversation, writer, sends)) in (0u32..).zip(senders.iter().cycle()) {
        let intended = start + Duration::from_secs(1) / per_second * n;
        let wait = intended.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "this is the pace of an open loop, on a thread of its own")]
            std::thread::sleep(wait);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = Uuid::now_v7().as_u128();
        let reference = {
            let mut sends = sends.lock();
            sends.push(Sent { id, intended: nanos(epoch, intended), acknowledged: None, delivered: 0 });
            sends.len() - 1
        };
        frame.clear();
        send_frame(&mut frame, *conversation, reference, id);
        writer.write(&frame)?;
    }
    Ok(())
}

impl Pair {
    /// Connects one side, and waits until it is live; what comes meanwhile is acked and recorded.
    async fn connect(&mut self, side: usize) -> anyhow::Result<(Reader, Writer)> {
        let token = self.clients[side].tokens().await.access_token;
        let (mut reader, writer) = socket::open(&self.clients[side], &token).await?;
        self.received[side].push(Vec::new());
        writer.say(r#"{"type":"hello"}"#)?;
        let mut synced = false;
        reader
            .take_until(|frame| {
                self.take(side, frame, 0);
                synced |= frame == Frame::Synced;
                synced
            })
            .await?;
        let mut out = Vec::new();
        self.push_ack(side, &mut out);
        writer.write(&out)?;
        Ok((reader, writer))
    }

    /// Takes in a frame; `true` if it wants a pong.
    fn take(&mut self, side: usize, frame: Frame, now: u64) -> bool {
        let mut event = |seq: u64, id: Option<u128>| {
            self.seen[side] = self.seen[side].max(seq);
            if let Some(connection) = self.received[side].last_mut() {
                connection.push((seq, id));
            }
        };
        match frame {
            Frame::Message { seq, message_id } => {
                event(seq, Some(message_id));
                let mut sends = self.sends.lock();
                // In order, if all is well; the checker says so if it is not.
                if side == 1
                    && let Some(sent) = sends.get_mut(self.delivered)
                    && sent.id == message_id
                {
                    sent.delivered = now;
                    self.delivered += 1;
                }
            }
            Frame::Other { seq } => event(seq, None),
            Frame::Ok { reference, seq } => {
                let mut sends = self.sends.lock();
                if let Some(sent) = usize::try_from(reference).ok().and_then(|reference| sends.get_mut(reference)) {
                    sent.acknowledged = Some((seq, now));
                }
            }
            Frame::Receipt { user_id, delivered_to, read_to } => {
                self.receipts[side].push((user_id, delivered_to, read_to));
            }
            Frame::Ping => return true,
            Frame::Synced | Frame::Quiet => {}
        }
        false
    }

    fn push_ack(&mut self, side: usize, out: &mut Vec<u8>) {
        if self.seen[side] > self.acked[side] {
            self.acked[side] = self.seen[side];
            let frame =
                format!(r#"{{"type":"ack","conversation_id":"{}","seq":{}}}"#, self.conversation, self.acked[side]);
            push_text(out, frame.as_bytes());
        }
    }

    /// Talks until told to stop and all has arrived. Nothing in here waits for anything but the sockets and the tick.
    async fn talk(
        mut self,
        sockets: [(Reader, Writer); 2],
        epoch: Instant,
        under_way: Option<usize>,
        stop: Arc<AtomicBool>,
        delivered: Arc<AtomicU64>,
    ) -> anyhow::Result<Self> {
        let [(mut sender, sender_out), (mut recipient, recipient_out)] = sockets;
        let writers = [sender_out, recipient_out];
        let mut out = [Vec::new(), Vec::new()];
        let mut unacked_since: [Option<Instant>; 2] = [None, None];
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            if let Some(under_way) = under_way.filter(|_| !stopping) {
                let mut sends = self.sends.lock();
                while sends.len() - self.delivered < under_way {
                    let id = Uuid::now_v7().as_u128();
                    let intended = nanos(epoch, Instant::now());
                    sends.push(Sent { id, intended, acknowledged: None, delivered: 0 });
                    send_frame(&mut out[0], self.conversation, sends.len() - 1, id);
                }
            }
            let now = Instant::now();
            for side in 0..2 {
                let owed = self.seen[side] - self.acked[side];
                let since = if owed > 0 { *unacked_since[side].get_or_insert(now) } else { now };
                if owed > 0 && (stopping || owed >= ACK_EVERY || since + ACK_AFTER <= now) {
                    self.push_ack(side, &mut out[side]);
                    unacked_since[side] = None;
                }
                if !out[side].is_empty() {
                    writers[side].write(&out[side])?;
                    out[side].clear();
                }
            }
            if stopping {
                if self.has_arrived() {
                    return Ok(self);
                }
                let deadline = *deadline.get_or_insert(now + DRAIN_BOUND);
                ensure!(now < deadline, "{} did not get everything within {DRAIN_BOUND:?}", self.conversation);
            }
            tokio::select! {
                ready = sender.readable() => ready?,
                ready = recipient.readable() => ready?,
                _ = tick.tick() => {}
            }
            let before = self.delivered;
            let now = nanos(epoch, Instant::now());
            for (side, reader) in [&mut sender, &mut recipient].into_iter().enumerate() {
                let mut ping = false;
                while reader.take(|frame| ping |= self.take(side, frame, now))? {}
                if ping {
                    push_pong(&mut out[side]);
                }
            }
            delivered.fetch_add((self.delivered - before) as u64, Ordering::Relaxed);
        }
    }

    /// Whether all that was sent is answered, delivered to both sides, and acked.
    fn has_arrived(&self) -> bool {
        let sends = self.sends.lock();
        let Some(last) = sends.last() else { return true };
        let Some((head, _)) = last.acknowledged else { return false };
        self.delivered == sends.len() && self.acked.iter().all(|acked| *acked >= head)
    }

    /// The history as it is told in the end, and what both sides are told, once receipts have caught up.
    async fn read_history(&self) -> anyhow::Result<Conversation> {
        let id = self.conversation;
        let messages = self.clients[0].history(id, 0).await?;
        let mut members = Vec::new();
        let mut head = 0;
        for client in &self.clients {
            let told = receipts_caught_up(client, id).await?;
            head = told.last_seq;
            members.push(Member {
                user: client.user_id(),
                unread: told.unread,
                delivered_to: told.delivered_to,
                read_to: told.read_to,
            });
        }
        let entries = messages.into_iter().map(|view| Entry {
            seq: view.message.seq,
            message_id: view.message.message_id,
            sender: view.message.sender_id,
            content: history::digest(view.message.content.as_deref().unwrap_or_default()),
        });
        let entries = entries.collect();
        Ok(Conversation { conversation_id: id, head, entries, others: BTreeSet::from([1]), members })
    }

    /// Adds what was seen to a run.
    fn record(&self, run: &mut Run) {
        let sender = self.clients[0].user_id();
        run.sends.extend(self.sends.lock().iter().map(|sent| Send {
            message_id: Uuid::from_u128(sent.id),
            conversation_id: self.conversation,
            sender,
            content: history::digest(&content(sent.id)),
            at: sent.intended,
            answer: sent.acknowledged.map_or(Answer::None, |(seq, at)| Answer::Acknowledged { seq, at }),
        }));
        for (side, client) in self.clients.iter().enumerate() {
            let user = client.user_id();
            let received = |(seq, id): &(u64, Option<u128>)| Received {
                conversation_id: self.conversation,
                seq: *seq,
                message_id: id.map(Uuid::from_u128),
            };
            run.devices.push(Device {
                user,
                name: format!("{user}"),
                starts: [(self.conversation, 0)].into(),
                connections: self.received[side].iter().map(|all| all.iter().map(received).collect()).collect(),
                receipts: self.receipts[side]
                    .iter()
                    .map(|(user, delivered_to, read_to)| Receipt {
                        conversation_id: self.conversation,
                        user: Uuid::from_u128(*user),
                        delivered_to: *delivered_to,
                        read_to: *read_to,
                    })
                    .collect(),
                complete: true,
            });
        }
    }
}

/// What a member is told of a conversation, once all that they acked shows as delivered.
async fn receipts_caught_up(client: &Client, conversation: Uuid) -> anyhow::Result<parlance_client::Conversation> {
    let deadline = Instant::now() + DRAIN_BOUND;
    loop {
        let told = client.conversation(conversation).await.context("the conversation cannot be read")?;
        if told.delivered_to == told.last_seq {
            return Ok(told);
        }
        ensure!(
            Instant::now() < deadline,
            "{conversation}: {} are committed, {} stored as delivered to {}",
            told.last_seq,
            told.delivered_to,
            client.user_id()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
