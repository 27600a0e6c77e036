//! A small stand-in for a server: keeps messages in memory, and loses and refuses what a test asks it to.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message as WsMessage,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};
use uuid::Uuid;

const BOUND: Duration = Duration::from_mins(1);
const USER: Uuid = Uuid::from_u128(0xa);
const AT: &str = "2026-01-01T00:00:00.000Z";

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// What is to go wrong with the next send, read or call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It is committed, and the connection is lost before the answer.
    HangUpInsteadOfAnswer,
    /// It is refused with a status.
    Refuse(u16),
}

/// What the peer knows, for tests to wait on.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    logs: HashMap<Uuid, Vec<(Uuid, String)>>,
    pub(super) acked: HashMap<Uuid, u64>,
    pub(super) read: HashMap<Uuid, u64>,
    pub(super) hellos: Vec<HashMap<Uuid, u64>>,
    pub(super) renewals: u32,
    pub(super) connected: u32,
    faults: VecDeque<Fault>,
    access: HashSet<String>,
    refresh: String,
    refreshes: u32,
    refuse_upgrades: bool,
    token_life: Option<Duration>,
}

impl Known {
    pub(super) fn head(&self, conversation: Uuid) -> usize {
        self.logs.get(&conversation).map_or(0, Vec::len)
    }

    /// Whether something is still to go wrong.
    pub(super) fn is_faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    fn append(&mut self, conversation: Uuid, message: Uuid, content: &str) -> (u64, bool) {
        let log = self.logs.entry(conversation).or_default();
        if let Some(at) = log.iter().position(|(id, _)| *id == message) {
            return (at as u64 + 1, false);
        }
        log.push((message, content.to_owned()));
        (log.len() as u64, true)
    }

    fn event(&self, conversation: Uuid, seq: u64) -> Value {
        let (message, content) = &self.logs[&conversation][usize::try_from(seq).expect("small") - 1];
        json!({
            "type": "event", "conversation_id": conversation, "seq": seq, "position": "c1.1", "at": AT,
            "event": "message.sent",
            "data": {
                "message_id": message, "conversation_id": conversation, "seq": seq, "sender_id": USER, "type": "text",
                "content": content, "file_ids": [], "reply_to": null, "mentions": [], "edited_at": null,
                "deleted": false, "created_at": AT
            }
        })
    }

    fn tokens(&mut self) -> Response {
        let access = format!("access-{}", Uuid::now_v7());
        self.access.insert(access.clone());
        self.refresh = format!("refresh-{}", Uuid::now_v7());
        let at = |life| schemas::rfc3339_ms::Display(OffsetDateTime::now_utc() + life).to_string();
        Json(json!({
            "access_token": access, "refresh_token": self.refresh, "token_type": "Bearer",
            "access_expires_at": at(self.token_life.unwrap_or(Duration::from_mins(15))),
            "refresh_expires_at": at(Duration::from_hours(24)),
            "user_id": USER, "session_id": USER, "device_id": USER
        }))
        .into_response()
    }

    fn authorized(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        token.is_some_and(|token| self.access.contains(token))
    }
}

#[derive(Debug, Clone)]
enum Signal {
    Frame(Value),
    HangUp(Option<u16>),
}

#[derive(Clone)]
pub(super) struct Peer {
    address: String,
    known: Arc<watch::Sender<Known>>,
    signals: broadcast::Sender<Signal>,
}

impl Peer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer = Self {
            address: format!("http://{}", listener.local_addr().expect("an address")),
            known: Arc::new(watch::Sender::new(Known::default())),
            signals: broadcast::Sender::new(4096),
        };
        let app = Router::new()
            .route("/v1/sessions", post(log_in))
            .route("/v1/sessions/refresh", post(refresh))
            .route("/v1/users/me", get(me))
            .route("/v1/ws", get(upgrade))
            .with_state(peer.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "a stand-in needs no drain, and clients know nothing of servers"
        )]
        tokio::spawn(async move { axum::serve(listener, app).await });
        peer
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut out = None;
        self.known.send_modify(|known| out = Some(change(known)));
        out.expect("it ran")
    }

    pub(super) async fn wait(&self, until: impl FnMut(&Known) -> bool) {
        let mut known = self.known.subscribe();
        let reached = tokio::time::timeout(BOUND, known.wait_for(until)).await.is_ok();
        assert!(reached, "not reached: {:?}", *self.known.borrow());
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.change(|known| known.faults.push_back(fault));
    }

    pub(super) fn refuse_upgrades(&self, refuse: bool) {
        self.change(|known| known.refuse_upgrades = refuse);
    }

    pub(super) fn tokens_live_for(&self, life: Duration) {
        self.change(|known| known.token_life = Some(life));
    }

    pub(super) fn revoke_access_tokens(&self) {
        self.change(|known| known.access.clear());
    }

    pub(super) fn revoke_everything(&self) {
        self.change(|known| {
            known.access.clear();
            known.refresh.clear();
        });
    }

    pub(super) fn refreshes(&self) -> u32 {
        self.known.borrow().refreshes
    }

    pub(super) fn hellos(&self) -> usize {
        self.known.borrow().hellos.len()
    }

    pub(super) fn history(&self, conversation: Uuid) -> Vec<Uuid> {
        self.known.borrow().logs[&conversation].iter().map(|(id, _)| *id).collect()
    }

    fn signal(&self, signal: Signal) {
        // Nobody may be connected.
        let _ = self.signals.send(signal);
    }

    pub(super) fn hang_up(&self, code: Option<u16>) {
        self.signal(Signal::HangUp(code));
    }

    /// Someone says something.
    pub(super) fn commit(&self, conversation: Uuid, content: &str) {
        // Under the lock, as a connection that begins takes its backlog under it: it has each event one way or the other.
        self.change(|known| {
            let (seq, _) = known.append(conversation, Uuid::now_v7(), content);
            self.signal(Signal::Frame(known.event(conversation, seq)));
        });
    }

    /// Someone says something, and the live connections do not hear of it.
    pub(super) fn commit_unseen(&self, conversation: Uuid, content: &str) {
        self.change(|known| known.append(conversation, Uuid::now_v7(), content));
    }

    /// Sends the last `n` events again.
    pub(super) fn repeat_last(&self, conversation: Uuid, n: usize) {
        let known = self.known.borrow();
        let head = known.head(conversation);
        for seq in head - n + 1..=head {
            self.signal(Signal::Frame(known.event(conversation, seq as u64)));
        }
    }

    pub(super) fn leave(&self, conversation: Uuid) {
        self.signal(Signal::Frame(json!({"type": "left", "conversation_id": conversation})));
    }

    async fn serve(&self, mut socket: Socket) {
        let say = |frame: Value| WsMessage::text(frame.to_string());
        let Some(Ok(WsMessage::Text(hello))) = socket.next().await else { return };
        let hello: Value = serde_json::from_str(&hello).expect("JSON");
        assert_eq!(hello["type"], "hello");
        let given: HashMap<Uuid, u64> = serde_json::from_value(hello["cursors"].clone()).unwrap_or_default();
        let (backlog, mut signals) = self.change(|known| {
            let mut frames = vec![json!({
                "type": "welcome", "user_id": USER, "device_id": USER, "session_id": USER, "heartbeat_s": 5,
                "server_time": AT
            })];
            for (conversation, log) in &known.logs {
                let from = given.get(conversation).or_else(|| known.acked.get(conversation)).copied().unwrap_or(0);
                frames.extend((from + 1..=log.len() as u64).map(|seq| known.event(*conversation, seq)));
            }
            frames.push(json!({"type": "synced"}));
            known.hellos.push(given);
            known.connected += 1;
            (frames, self.signals.subscribe())
        });
        self.talk(&mut socket, backlog.into_iter().map(say).collect(), &mut signals).await;
        self.change(|known| known.connected -= 1);
    }

    async fn talk(&self, socket: &mut Socket, backlog: Vec<WsMessage>, signals: &mut broadcast::Receiver<Signal>) {
        let say = |frame: Value| WsMessage::text(frame.to_string());
        for frame in backlog {
            if socket.send(frame).await.is_err() {
                return;
            }
        }
        loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Ok(Signal::Frame(frame)) => if socket.send(say(frame)).await.is_err() { return },
                    Ok(Signal::HangUp(Some(code))) => {
                        let frame = CloseFrame { code: code.into(), reason: "test".into() };
                        let _ = socket.close(Some(frame)).await;
                        return;
                    }
                    Ok(Signal::HangUp(None)) | Err(_) => return,
                },
                frame = socket.next() => {
                    let Some(Ok(frame)) = frame else { return };
                    let WsMessage::Text(frame) = frame else { continue };
                    let frame: Value = serde_json::from_str(&frame).expect("JSON");
                    match self.handle(&frame) {
                        Handled::Answer(answer) => if socket.send(say(answer)).await.is_err() { return },
                        Handled::Silence => {}
                        Handled::HangUp => return,
                    }
                }
            }
        }
    }

    fn handle(&self, frame: &Value) -> Handled {
        let id = |name: &str| frame[name].as_str().and_then(|id| id.parse::<Uuid>().ok()).expect("an id");
        match frame["type"].as_str().expect("a type") {
            "send" => self.change(|known| {
                let fault = known.faults.pop_front();
                if let Some(Fault::Refuse(status)) = fault {
                    let error = json!({"type": "error", "ref": frame["ref"], "problem": problem(status)});
                    return Handled::Answer(error);
                }
                let content = frame["content"].as_str().expect("a content");
                let (seq, fresh) = known.append(id("conversation_id"), id("message_id"), content);
                if fresh {
                    self.signal(Signal::Frame(known.event(id("conversation_id"), seq)));
                }
                if fault.is_some() {
                    return Handled::HangUp;
                }
                Handled::Answer(json!({
                    "type": "ok", "ref": frame["ref"], "message_id": id("message_id"), "seq": seq, "sent_at": AT,
                    "position": "c1.1"
                }))
            }),
            kind @ ("ack" | "read") => {
                let seq = frame["seq"].as_u64().expect("a seq");
                self.change(|known| {
                    let fault = if kind == "read" { known.faults.pop_front() } else { None };
                    match fault {
                        Some(Fault::HangUpInsteadOfAnswer) => return Handled::HangUp,
                        Some(Fault::Refuse(status)) => {
                            let problem = problem(status);
                            return Handled::Answer(json!({"type": "error", "ref": frame["ref"], "problem": problem}));
                        }
                        None => {}
                    }
                    let marks = if kind == "ack" { &mut known.acked } else { &mut known.read };
                    marks.insert(id("conversation_id"), seq);
                    match frame.get("ref") {
                        Some(reference) => Handled::Answer(json!({"type": "ok", "ref": reference})),
                        None => Handled::Silence,
                    }
                })
            }
            "auth" => {
                let token = frame["access_token"].as_str().expect("a token");
                self.change(|known| {
                    assert!(known.access.contains(token));
                    known.renewals += 1;
                });
                Handled::Answer(json!({"type": "ok", "ref": frame["ref"]}))
            }
            "ping" => Handled::Answer(json!({"type": "pong"})),
            other => panic!("a frame of type {other}"),
        }
    }
}

enum Handled {
    Answer(Value),
    Silence,
    HangUp,
}

fn problem(status: u16) -> Value {
    json!({
        "type": "https://parlance.invalid/problems/test", "title": "Test", "status": status, "detail": "a test",
        "retryable": status == 429 || status == 503, "trace_id": "0"
    })
}

fn refusal(status: StatusCode) -> Response {
    (status, [(header::CONTENT_TYPE, "application/problem+json")], problem(status.as_u16()).to_string()).into_response()
}

async fn log_in(State(peer): State<Peer>) -> Response {
    peer.change(Known::tokens)
}

async fn refresh(State(peer): State<Peer>, Json(body): Json<Value>) -> Response {
    peer.change(|known| {
        if known.refresh.is_empty() || body["refresh_token"] != known.refresh {
            return refusal(StatusCode::UNAUTHORIZED);
        }
        known.refreshes += 1;
        known.tokens()
    })
}

async fn me(State(peer): State<Peer>, headers: HeaderMap) -> Response {
    peer.change(|known| {
        if !known.authorized(&headers) {
            return refusal(StatusCode::UNAUTHORIZED);
        }
        if let Some(Fault::Refuse(status)) = known.faults.pop_front() {
            return refusal(StatusCode::from_u16(status).expect("a status"));
        }
        Json(json!({
            "user_id": USER, "username": "ann", "display_name": null, "avatar_file_id": null, "created_at": AT,
            "last_seen": null
        }))
        .into_response()
    })
}

async fn upgrade(State(peer): State<Peer>, mut request: Request<Body>) -> Response {
    if peer.known.borrow().refuse_upgrades {
        return refusal(StatusCode::SERVICE_UNAVAILABLE);
    }
    if !peer.known.borrow().authorized(request.headers()) {
        return refusal(StatusCode::UNAUTHORIZED);
    }
    let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgrade.await.expect("upgraded"));
        peer.serve(WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
    });
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        (header::SEC_WEBSOCKET_PROTOCOL, "parlance.v1"),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
