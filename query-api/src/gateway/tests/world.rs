//! A database with read models, a command side of a few lines, and clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use http::HeaderValue;
use parking_lot::Mutex;
use platform::applied::AppliedPositions;
use platform::auth::{AuthSettings, Authenticator, Caller, Keyring, Revocations, Tickets};
use platform::live::{Channel, Hint, InProcessLive, LiveBus, WIDE};
use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use schemas::{
    AuditFilters, Body, ConversationCreated, Event, History, InitialMember, Kind, MemberJoined, MemberLeft, Message,
    Numbered, Position, PositionToken, ReceiptMoved, Record, Role, Topic,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::Database;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::gateway::{CommandPort, Dependencies, Gateway};

/// The bound of every wait.
pub(super) const BOUND: Duration = Duration::from_mins(1);
const SHARD: u16 = 3;

/// Everything that the tests need.
pub(super) struct World {
    pub(super) database: Database,
    pub(super) port: Arc<Port>,
    pub(super) auth: Authenticator,
    pub(super) tickets: Tickets,
    pub(super) gateway: Gateway,
    pub(super) address: std::net::SocketAddr,
    applied: AppliedPositions,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Watermarks that were taken: who, where, delivered, read.
type Taken = (Uuid, Uuid, Option<u64>, Option<u64>);

/// The command side, the projectors and fan-out in one.
pub(super) struct Port {
    pool: PgPool,
    pub(super) live: Arc<dyn LiveBus>,
    applied: AppliedPositions,
    state: tokio::sync::Mutex<State>,
    /// While set, hints are lost.
    pub(super) deaf: AtomicBool,
    /// While set, the read models stay where they are.
    pub(super) lagging: AtomicBool,
    /// While set, nothing is committed or answered about the log, and watermarks that nobody waits for wait.
    pub(super) away: AtomicBool,
    /// While set, sends are refused.
    pub(super) limited: AtomicBool,
    /// What was taken.
    pub(super) receipts: Mutex<Vec<Taken>>,
}

#[derive(Default)]
struct State {
    position: u64,
    heads: HashMap<Uuid, u64>,
    /// Not applied yet.
    behind: Vec<Arc<Record>>,
}

pub(super) fn problem(status: u16) -> Problem {
    Problem {
        kind: "/problems/x".to_owned(),
        title: "x".to_owned(),
        status,
        detail: "x".to_owned(),
        retryable: matches!(status, 429 | 503),
        trace_id: "x".to_owned(),
        retry_after_s: (status == 429).then_some(1),
        errors: vec![],
    }
}

#[async_trait]
impl CommandPort for Port {
    async fn send(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        message: SendMessage,
        _: Option<Arc<str>>,
    ) -> Result<MessageSent, Problem> {
        if self.limited.load(Ordering::Relaxed) {
            return Err(problem(429));
        }
        let message_id = message.message_id;
        let (seq, position, sent_at) = self.say(caller.user_id, conversation_id, message).await;
        Ok(MessageSent { message_id, conversation_id, seq, sent_at, position: position.into() })
    }

    fn take_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Box<Problem>> {
        self.receipts.lock().push((caller.user_id, conversation_id, receipt.delivered_to, receipt.read_to));
        Ok(())
    }

    async fn advance_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Problem> {
        if self.away.load(Ordering::Relaxed) {
            return Err(problem(503));
        }
        let head = self.state.lock().await.heads.get(&conversation_id).copied().ok_or_else(|| problem(404))?;
        if receipt.delivered_to.max(receipt.read_to) > Some(head) {
            return Err(problem(422));
        }
        self.take_receipt(caller, conversation_id, receipt).map_err(|problem| *problem)
    }

    async fn heads(&self, conversations: &[Uuid]) -> Result<HashMap<Uuid, u64>, Problem> {
        let state = self.state.lock().await;
        Ok(conversations.iter().filter_map(|id| Some((*id, *state.heads.get(id)?))).collect())
    }

    async fn read_audit(&self, _: &Caller, _: Option<&str>, _: AuditFilters) -> Result<PositionToken, Problem> {
        Err(problem(403))
    }

    async fn positions(&self) -> Result<Vec<Position>, Problem> {
        if self.away.load(Ordering::Relaxed) {
            return Err(problem(503));
        }
        let position = self.state.lock().await.position;
        Ok(vec![Position { topic: Topic::Conversations, shard: SHARD, position }])
    }
}

impl Port {
    /// Commits a message.
    async fn say(&self, sender_id: Uuid, conversation_id: Uuid, said: SendMessage) -> (u64, Position, OffsetDateTime) {
        let body = |seq, at| {
            Body::MessageSent(Box::new(Message {
                message_id: said.message_id,
                conversation_id,
                seq,
                sender_id,
                kind: "text".to_owned(),
                content: Some(said.content.clone()),
                file_ids: vec![],
                reply_to: said.reply_to,
                mentions: said.mentions.clone(),
                created_at: at,
                edited_at: None,
                deleted: false,
            }))
        };
        self.commit(conversation_id, body).await
    }

    /// Commits a numbered event, applies it, and tells who is to be told.
    pub(super) async fn commit(
        &self,
        conversation_id: Uuid,
        body: impl FnOnce(u64, OffsetDateTime) -> Body,
    ) -> (u64, Position, OffsetDateTime) {
        let at = OffsetDateTime::from_unix_timestamp(1_760_000_000).unwrap();
        let mut state = self.state.lock().await;
        let head = state.heads.entry(conversation_id).or_default();
        *head += 1;
        let seq = *head;
        let event = Event::Numbered(Numbered { conversation_id, seq, at, body: body(seq, at) });
        let record = record(&mut state, conversation_id, at, event);
        self.apply(&mut state, &record).await;
        (seq, record.place(), at)
    }

    /// Commits a watermark.
    pub(super) async fn move_receipt(&self, conversation_id: Uuid, user_id: Uuid, delivered_to: u64, read_to: u64) {
        let at = OffsetDateTime::now_utc();
        let moved =
            ReceiptMoved { conversation_id, user_id, device_id: None, up_to: delivered_to, delivered_to, read_to, at };
        let mut state = self.state.lock().await;
        let record = record(&mut state, conversation_id, at, Event::MessageDelivered(moved));
        self.apply(&mut state, &record).await;
    }

    async fn apply(&self, state: &mut State, record: &Arc<Record>) {
        if self.lagging.load(Ordering::Relaxed) {
            state.behind.push(record.clone());
        } else {
            self.project(record).await;
        }
        if !self.deaf.load(Ordering::Relaxed) {
            let mut hints = hints(record);
            if self.live.addresses_members() {
                let members = self.members(record.key).await;
                let rooms = hints.iter_mut().filter(|hint| matches!(hint.channel, Channel::Conversation(_)));
                rooms.for_each(|hint| hint.audience = Some(members.clone()).filter(|members| members.len() <= WIDE));
            }
            self.live.publish(hints).await;
        }
    }

    async fn members(&self, conversation_id: Uuid) -> Arc<[Uuid]> {
        let members: Vec<Uuid> =
            sqlx::query_scalar("SELECT user_id FROM read.members WHERE conversation_id = $1 AND left_seq IS NULL")
                .bind(conversation_id)
                .fetch_all(&self.pool)
                .await
                .unwrap();
        members.into()
    }

    /// The read models catch up.
    pub(super) async fn catch_up(&self) {
        let mut state = self.state.lock().await;
        self.lagging.store(false, Ordering::Relaxed);
        for record in std::mem::take(&mut state.behind) {
            self.project(&record).await;
        }
    }

    async fn project(&self, record: &Record) {
        match &record.event {
            Event::Numbered(numbered) => self.project_numbered(record, numbered).await,
            Event::MessageDelivered(moved) => {
                sqlx::query(
                    "INSERT INTO read.receipts
                        (conversation_id, user_id, delivered_to, delivered_at, read_to, read_at)
                     VALUES ($1, $2, $3, $4, $5, $4)
                     ON CONFLICT ON CONSTRAINT receipts_stay DO UPDATE
                        SET delivered_to = $3, delivered_at = $4, read_to = $5, read_at = $4",
                )
                .bind(moved.conversation_id)
                .bind(moved.user_id)
                .bind(moved.delivered_to.cast_signed())
                .bind(moved.at)
                .bind(moved.read_to.cast_signed())
                .execute(&self.pool)
                .await
                .unwrap();
            }
            _ => {}
        }
        self.applied.post([record.place()]);
    }

    async fn project_numbered(&self, record: &Record, numbered: &Numbered) {
        let (id, seq) = (numbered.conversation_id, numbered.seq.cast_signed());
        let message = if let Body::MessageSent(message) = &numbered.body { Some(&**message) } else { None };
        sqlx::query(
            "INSERT INTO read.timeline (conversation_id, seq, topic_shard, position, at, event, data, message_id,
                                        sender_id, type, content, reply_to, mentions)
             VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9, $10, $11, $12, $13)",
        )
        .bind(id)
        .bind(seq)
        .bind(record.shard.cast_signed())
        .bind(record.position.cast_signed())
        .bind(numbered.at)
        .bind(message.is_none().then(|| numbered.body.event_type()))
        .bind(message.is_none().then(|| serde_json::to_string(&numbered.body).unwrap()))
        .bind(message.map(|message| message.message_id))
        .bind(message.map(|message| message.sender_id))
        .bind(message.map(|message| message.kind.as_str()))
        .bind(message.and_then(|message| message.content.as_deref()))
        .bind(message.and_then(|message| message.reply_to))
        .bind(message.map(|message| message.mentions.clone()))
        .execute(&self.pool)
        .await
        .unwrap();
        let members: Vec<(Uuid, i64)> = match &numbered.body {
            Body::Created(created) => {
                sqlx::query(
                    "INSERT INTO read.conversations
                        (conversation_id, type, history, member_count, last_seq, updated_at)
                     VALUES ($1, 'group', $2, 0, 0, now())",
                )
                .bind(id)
                .bind(created.history.as_str())
                .execute(&self.pool)
                .await
                .unwrap();
                created.members.iter().map(|member| (member.user_id, 0)).collect()
            }
            Body::MemberJoined(joined) => vec![(joined.user_id, seq)],
            Body::MemberLeft(left) => {
                for statement in [
                    "UPDATE read.members SET left_seq = $3
                      WHERE conversation_id = $1 AND user_id = $2 AND left_seq IS NULL",
                    "UPDATE read.receipts SET left_seq = $3
                      WHERE conversation_id = $1 AND user_id = $2 AND left_seq IS NULL",
                ] {
                    sqlx::query(statement).bind(id).bind(left.user_id).bind(seq).execute(&self.pool).await.unwrap();
                }
                vec![]
            }
            _ => vec![],
        };
        for (user_id, joined) in members {
            sqlx::query(
                "INSERT INTO read.members (conversation_id, user_id, joined_seq, role, joined_at)
                 VALUES ($1, $2, $3, 'member', now())",
            )
            .bind(id)
            .bind(user_id)
            .bind(joined)
            .execute(&self.pool)
            .await
            .unwrap();
        }
        sqlx::query(
            "UPDATE read.conversations c SET last_seq = $2, member_count =
                (SELECT count(*) FROM read.members m WHERE m.conversation_id = $1 AND m.left_seq IS NULL)
              WHERE conversation_id = $1",
        )
        .bind(id)
        .bind(seq)
        .execute(&self.pool)
        .await
        .unwrap();
    }
}

fn record(state: &mut State, key: Uuid, at: OffsetDateTime, event: Event) -> Arc<Record> {
    state.position += 1;
    Arc::new(Record {
        topic: Topic::Conversations,
        shard: SHARD,
        position: state.position,
        event_id: Uuid::now_v7(),
        key,
        at,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event,
    })
}

/// As fan-out has it.
fn hints(record: &Arc<Record>) -> Vec<Hint> {
    let hint = |channel| Hint { channel, record: record.clone(), audience: None };
    let room = hint(Channel::Conversation(record.key));
    match &record.event {
        Event::Numbered(Numbered { body: Body::Created(created), .. }) => {
            let users = created.members.iter().map(|member| hint(Channel::User(member.user_id)));
            users.chain([room]).collect()
        }
        Event::Numbered(Numbered { body: Body::MemberJoined(joined), .. }) => {
            vec![hint(Channel::User(joined.user_id)), room]
        }
        Event::Numbered(Numbered { body: Body::MemberLeft(left), .. }) => {
            vec![room, hint(Channel::User(left.user_id))]
        }
        _ => vec![room],
    }
}

/// A gateway, and where it is.
async fn serve(
    database: &Database,
    port: &Arc<Port>,
    applied: &AppliedPositions,
    live: Arc<dyn LiveBus>,
    auth: &Authenticator,
    tickets: &Tickets,
    stop: &CancellationToken,
) -> (Gateway, std::net::SocketAddr) {
    let gateway = Gateway::new(Dependencies {
        pool: database.pool().clone(),
        reads: database.pool().clone().into(),
        port: port.clone(),
        applied: applied.clone(),
        live,
        authenticator: auth.clone(),
        tickets: tickets.clone(),
        origins: vec!["https://app.example.org".parse().unwrap()],
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = platform::http::frame(gateway.route());
    tokio::spawn(platform::http::serve(listener, router, stop.clone(), Duration::from_secs(1)));
    (gateway, address)
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(AuthSettings::default()).await
    }

    pub(super) async fn with(settings: AuthSettings) -> Self {
        let live: Arc<dyn LiveBus> = Arc::new(InProcessLive::default());
        Self::on(settings, live.clone(), live).await
    }

    /// With a gateway on this live bus, and fan-out on that one.
    pub(super) async fn on(settings: AuthSettings, live: Arc<dyn LiveBus>, fan_out: Arc<dyn LiveBus>) -> Self {
        let database = Database::new().await;
        let pool = database.pool().clone();
        let stop = CancellationToken::new();
        let keyring = Keyring::open(&pool, None).await.unwrap();
        let revocations = Revocations::open(pool.clone(), settings.access_ttl, stop.clone()).await.unwrap();
        let auth = Authenticator::new(keyring, revocations, settings);
        let tickets = Tickets::new(pool.clone(), auth.clone(), Duration::from_secs(30));
        let applied = AppliedPositions::default();
        let port = Arc::new(Port {
            pool,
            live: fan_out,
            applied: applied.clone(),
            state: tokio::sync::Mutex::default(),
            deaf: AtomicBool::new(false),
            lagging: AtomicBool::new(false),
            away: AtomicBool::new(false),
            limited: AtomicBool::new(false),
            receipts: Mutex::default(),
        });
        let (gateway, address) = serve(&database, &port, &applied, live, &auth, &tickets, &stop).await;
        Self { database, port, auth, tickets, gateway, address, applied, stop }
    }

    /// One more gateway, on this live bus; whoever connects from now on connects there.
    pub(super) async fn go_on_beside(&mut self, live: Arc<dyn LiveBus>) -> Gateway {
        let Self { database, port, auth, tickets, applied, stop, .. } = &*self;
        let (gateway, address) = serve(database, port, applied, live, auth, tickets, stop).await;
        self.address = address;
        gateway
    }

    /// A conversation of these users.
    pub(super) async fn conversation(&self, users: &[Uuid]) -> Uuid {
        self.conversation_with(users, History::All).await
    }

    pub(super) async fn conversation_with(&self, users: &[Uuid], history: History) -> Uuid {
        let members = users.iter().map(|user_id| InitialMember { user_id: *user_id, role: Role::Member }).collect();
        let id = Uuid::now_v7();
        let created = ConversationCreated { kind: Kind::Group, name: None, history, members, by: users[0] };
        self.port.commit(id, |_, _| Body::Created(created)).await;
        id
    }

    pub(super) async fn join(&self, conversation_id: Uuid, user_id: Uuid) -> u64 {
        let joined = MemberJoined { user_id, role: Role::Member, by: user_id };
        self.port.commit(conversation_id, |_, _| Body::MemberJoined(joined)).await.0
    }

    pub(super) async fn leave(&self, conversation_id: Uuid, user_id: Uuid) -> u64 {
        let left = MemberLeft { user_id, by: user_id };
        self.port.commit(conversation_id, |_, _| Body::MemberLeft(left)).await.0
    }

    /// Somebody says so many things.
    pub(super) async fn say(&self, conversation_id: Uuid, sender: Uuid, count: u64) {
        for number in 0..count {
            let message = SendMessage {
                message_id: Uuid::now_v7(),
                content: format!("no {number}"),
                kind: None,
                reply_to: None,
                mentions: vec![],
                file_ids: vec![],
            };
            self.port.say(sender, conversation_id, message).await;
        }
    }

    pub(super) fn url(&self, query: &str) -> String {
        format!("ws://{}/v1/ws{query}", self.address)
    }

    /// A request to open a socket by a device's token.
    pub(super) fn request(&self, user: Uuid, device: Uuid) -> tungstenite::handshake::client::Request {
        let mut request = self.url("").into_client_request().unwrap();
        let (token, _) = self.auth.issue(user, session_of(user, device), device);
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("parlance.v1"));
        request
    }

    /// A socket on which nothing was said.
    pub(super) async fn open(&self, user: Uuid, device: Uuid) -> Client {
        let (stream, answer) = tokio_tungstenite::connect_async(self.request(user, device)).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "parlance.v1");
        Client { stream, seen: Vec::new() }
    }

    /// One that said hello, up to `synced`; acks nothing.
    pub(super) async fn connect(&self, user: Uuid, device: Uuid) -> Client {
        let mut client = self.open(user, device).await;
        client.say(json!({"type": "hello"})).await;
        client.until("synced").await;
        client
    }
}

/// A device's session stays the same here.
pub(super) fn session_of(user: Uuid, device: Uuid) -> Uuid {
    Uuid::from_u128(user.as_u128() ^ device.as_u128().rotate_left(64))
}

pub(super) fn user(number: u128) -> Uuid {
    Uuid::from_u128(0xAAAA_0000 + number)
}

pub(super) fn device(number: u128) -> Uuid {
    Uuid::from_u128(0xDDDD_0000 + number)
}

/// A client's end.
pub(super) struct Client {
    pub(super) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What came so far.
    pub(super) seen: Vec<Value>,
}

impl Client {
    pub(super) async fn say(&mut self, frame: Value) {
        self.stream.send(Frame::text(frame.to_string())).await.unwrap();
    }

    pub(super) async fn ack(&mut self, conversation_id: Uuid, seq: u64) {
        self.say(json!({"type": "ack", "conversation_id": conversation_id, "seq": seq})).await;
    }

    /// The next frame; pings are answered on the way.
    pub(super) async fn next(&mut self) -> Value {
        let frame = tokio::time::timeout(BOUND, async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Frame::Text(text))) => return serde_json::from_str::<Value>(&text).unwrap(),
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                    other => panic!("instead of a frame: {other:?}; before: {:?}", self.seen),
                }
            }
        });
        let Ok(value) = frame.await else { panic!("nothing came; before: {:?}", self.seen) };
        self.seen.push(value.clone());
        value
    }

    pub(super) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    pub(super) async fn until_seq(&mut self, seq: u64) -> Value {
        loop {
            let frame = self.until("event").await;
            if frame["seq"] == seq {
                return frame;
            }
        }
    }

    /// The numbers of the events that came, in their order.
    pub(super) fn seqs(&self, conversation_id: Uuid) -> Vec<u64> {
        let of = |frame: &&Value| frame["type"] == "event" && frame["conversation_id"] == json!(conversation_id);
        self.seen.iter().filter(of).filter_map(|frame| frame["seq"].as_u64()).collect()
    }

    pub(super) fn count(&self, kind: &str) -> usize {
        self.seen.iter().filter(|frame| frame["type"] == kind).count()
    }

    /// The code with which it is closed.
    pub(super) async fn closed(&mut self) -> u16 {
        tokio::time::timeout(BOUND, async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Frame::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(_)) => {}
                    other => panic!("instead of a close frame: {other:?}"),
                }
            }
        })
        .await
        .expect("closed in time")
    }

    pub(super) async fn leave(mut self) {
        self.stream.close(None).await.unwrap();
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}
