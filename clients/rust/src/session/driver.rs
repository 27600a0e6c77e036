//! The task behind a session: connects, writes what is due, reads what comes, and connects again.

mod dial;
mod frames;

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use schemas::{rest::MessageSent, ws::ClientFrame};
use time::OffsetDateTime;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{self, Message as WsMessage};
use uuid::Uuid;

use super::{
    CloseReason, SessionOptions, Update,
    acks::Acks,
    inbox::Inbox,
    marks::Marks,
    outbox::{Draft, Outbox},
    reads::Reads,
    store::OutboxStore,
    wire::{AUTH_REF, read_ref},
};
use crate::{
    client::{Access, Client},
    error::Error,
};
use dial::{Socket, dial, encode, goodbye};

/// How long a write may be stuck before the connection is given up.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// How long the server may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

/// How many cursors one `hello` carries at most; conversations beyond it begin where the server knows, and repeats are dropped.
const MAX_CURSORS: usize = 1500;

/// After how many connections in a row that the server ended as not understood the session gives up.
const MAX_PROTOCOL_ERRORS: u32 = 3;

/// A connection that held for so long was a good one: what comes after it is a new trouble.
const LASTING: Duration = Duration::from_secs(10);

/// The outbox' store, shared by the session's handles and its driver.
pub(super) type SharedStore = Arc<std::sync::Mutex<Box<dyn OutboxStore>>>;

pub(super) fn share(store: Box<dyn OutboxStore>) -> SharedStore {
    Arc::new(std::sync::Mutex::new(store))
}

/// Runs a piece of work on the store where it may block.
pub(super) async fn with_store<T: Send + 'static>(
    store: &SharedStore,
    work: impl FnOnce(&mut dyn OutboxStore) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || {
        let mut store = store.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(store.as_mut())
    })
    .await
    .map_err(std::io::Error::from)?
}

/// Who waits for the answer to a message, and the room that the message takes in the outbox.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) answered: oneshot::Sender<Result<MessageSent, Error>>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the session asks of its driver.
#[derive(Debug)]
pub(super) enum Command {
    Send { draft: Draft, waiter: Waiter },
    Close(oneshot::Sender<()>),
}

/// Why a connection, or the try to make one, ended.
#[derive(Debug)]
enum End {
    /// Try again: after the back-off, and no sooner than this.
    Again { reason: String, not_before: Duration },
    /// The server did not understand us.
    NotUnderstood { reason: String },
    /// The access token is no good: renew it, then try again.
    Unauthorized { token: String },
    /// It is over.
    Over(CloseReason),
}

impl End {
    fn again(reason: impl std::fmt::Display) -> Self {
        Self::Again { reason: reason.to_string(), not_before: Duration::ZERO }
    }
}

pub(super) struct Driver {
    client: Client,
    options: SessionOptions,
    commands: mpsc::Receiver<Command>,
    updates: mpsc::Sender<Update>,
    marks: Arc<Marks>,
    store: Option<SharedStore>,
    inbox: Inbox,
    acks: Acks,
    reads: Reads,
    outbox: Outbox,
    waiters: HashMap<Uuid, Waiter>,
    /// Updates that the application had no room for yet.
    held: VecDeque<Update>,
    closing: Option<oneshot::Sender<()>>,
}

/// A connection and what belongs to it alone.
struct Live {
    socket: Socket,
    token: String,
    renew_at: OffsetDateTime,
    renewal: Option<BoxFuture<'static, Result<Access, Error>>>,
    welcomed: bool,
    opened: Instant,
    heard: Instant,
    pinged: Instant,
    heartbeat: Duration,
}

/// What made the driver wake.
enum Wake {
    Frame(Option<Result<WsMessage, tungstenite::Error>>),
    Command(Option<Command>),
    Marks,
    Room(bool),
    Renewed(Result<Access, Error>),
    Time,
    Dropped,
}

impl Driver {
    pub(super) fn new(
        client: Client,
        mut options: SessionOptions,
        commands: mpsc::Receiver<Command>,
        updates: mpsc::Sender<Update>,
        marks: Arc<Marks>,
        store: Option<SharedStore>,
        restored: Vec<Draft>,
    ) -> Self {
        let mut outbox = Outbox::new(options.pipeline, options.answer_within);
        for draft in restored {
            outbox.push(draft);
        }
        Self {
            inbox: Inbox::new(std::mem::take(&mut options.cursors)),
            acks: Acks::new(options.ack_every, options.ack_within),
            client,
            options,
            commands,
            updates,
            marks,
            store,
            reads: Reads::default(),
            outbox,
            waiters: HashMap::new(),
            held: VecDeque::new(),
            closing: None,
        }
    }

    /// Runs until the session is over, then says why.
    pub(super) async fn run(mut self) {
        let reason = self.reconnect_until_over().await;
        self.commands.close();
        // First, for who closes a session may take its last updates later, or never.
        if let Some(closing) = self.closing.take() {
            let _ = closing.send(());
        }
        while let Some(update) = self.held.pop_front() {
            if self.updates.send(update).await.is_err() {
                break;
            }
        }
        // Nobody listens any more if this fails.
        let _ = self.updates.send(Update::Closed(reason)).await;
    }

    async fn reconnect_until_over(&mut self) -> CloseReason {
        let mut attempt = 0;
        let mut not_understood = 0;
        let mut refused: Option<String> = None;
        loop {
            let (end, welcomed) = match self.connect(refused.take()).await {
                Ok(mut live) => {
                    let end = self.serve(&mut live).await;
                    self.disconnected();
                    if live.opened.elapsed() > LASTING {
                        attempt = 0;
                        not_understood = 0;
                    }
                    (end, live.welcomed)
                }
                Err(end) => (end, false),
            };
            // A token that is refused time and again, once the connection stands, is no reason to hurry.
            if welcomed && !matches!(end, End::Unauthorized { .. }) {
                attempt = 0;
            }
            let (reason, not_before) = match end {
                End::Over(reason) => return reason,
                End::Unauthorized { token } => {
                    // Once a token: a new one that is refused as well waits as every other failure does.
                    refused = Some(token);
                    if attempt == 0 {
                        attempt += 1;
                        continue;
                    }
                    ("the token was refused".to_owned(), Duration::ZERO)
                }
                End::NotUnderstood { reason } => {
                    not_understood += 1;
                    if not_understood >= MAX_PROTOCOL_ERRORS {
                        tracing::error!(%reason, "the server does not understand this client");
                        return CloseReason::Protocol;
                    }
                    (reason, Duration::ZERO)
                }
                End::Again { reason, not_before } => (reason, not_before),
            };
            let wait = self.options.backoff.draw(attempt).max(not_before);
            attempt = attempt.saturating_add(1);
            tracing::debug!(%reason, ?wait, "the session is offline");
            self.tell(Update::Offline { reason, retry_in: wait });
            if let Some(over) = self.idle(tokio::time::sleep(wait)).await.break_value() {
                return over;
            }
        }
    }

    /// Waits for a piece of work while commands and marks are taken in.
    async fn idle<T>(&mut self, work: impl Future<Output = T>) -> ControlFlow<CloseReason, T> {
        tokio::pin!(work);
        let mut open = true;
        loop {
            let wake = tokio::select! {
                biased;
                done = &mut work => return ControlFlow::Continue(done),
                command = self.commands.recv(), if open => Wake::Command(command),
                () = self.marks.moved() => Wake::Marks,
                permit = self.updates.reserve(), if !self.held.is_empty() => Wake::Room(give(permit, &mut self.held)),
                () = self.updates.closed() => Wake::Dropped,
            };
            match wake {
                Wake::Command(Some(command)) => self.take_command(command),
                Wake::Command(None) => open = false,
                Wake::Marks => self.take_marks(),
                Wake::Room(false) | Wake::Dropped => return ControlFlow::Break(CloseReason::Asked),
                Wake::Room(true) | Wake::Frame(_) | Wake::Renewed(_) | Wake::Time => {}
            }
            if self.closing.is_some() {
                return ControlFlow::Break(CloseReason::Asked);
            }
        }
    }

    async fn connect(&mut self, refused: Option<String>) -> Result<Live, End> {
        let client = self.client.clone();
        let within = self.options.connect_within;
        let dial = async move {
            match timeout(within, dial(&client, refused)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(End::again("the server did not answer in time")),
            }
        }
        .boxed();
        let (mut socket, access) = match self.idle(dial).await {
            ControlFlow::Continue(outcome) => outcome?,
            ControlFlow::Break(over) => return Err(End::Over(over)),
        };
        let cursors = self.inbox.taken().iter().take(MAX_CURSORS).map(|(id, seq)| (*id, *seq)).collect();
        socket.send(encode(None, ClientFrame::Hello { cursors: Some(cursors) })).await.map_err(End::again)?;
        let now = Instant::now();
        Ok(Live {
            socket,
            token: access.token,
            renew_at: access.renew_at,
            renewal: None,
            welcomed: false,
            opened: now,
            heard: now,
            pinged: now,
            heartbeat: within,
        })
    }

    fn disconnected(&mut self) {
        self.acks.disconnected(Instant::now());
        self.outbox.disconnected();
        self.reads.disconnected();
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, live: &mut Live) -> End {
        let mut open = true;
        loop {
            match timeout(WRITE_WITHIN, self.write_due(live)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return End::again(error),
                Err(_) => return End::again("the connection does not take what we write"),
            }
            if self.closing.is_some() {
                // Said goodbye or not: over in either case.
                let _ = timeout(GOODBYE_WITHIN, goodbye(&mut live.socket)).await;
                return End::Over(CloseReason::Asked);
            }
            let reading = self.held.is_empty();
            if reading && live.heard.elapsed() > 2 * live.heartbeat {
                return End::again("the server is silent");
            }
            let wake_at = self.wake_at(live);
            let wake = tokio::select! {
                frame = live.socket.next(), if reading => Wake::Frame(frame),
                command = self.commands.recv(), if open => Wake::Command(command),
                () = self.marks.moved() => Wake::Marks,
                permit = self.updates.reserve(), if !reading => Wake::Room(give(permit, &mut self.held)),
                renewed = async { live.renewal.as_mut().expect("guarded").await }, if live.renewal.is_some() => Wake::Renewed(renewed),
                () = tokio::time::sleep_until(wake_at.into()) => Wake::Time,
                () = self.updates.closed() => Wake::Dropped,
            };
            match wake {
                Wake::Frame(frame) => {
                    live.heard = Instant::now();
                    if let Err(end) = self.take_message(live, frame) {
                        return end;
                    }
                    // What came together is dealt with together, so that its answers leave together.
                    while self.held.is_empty() {
                        match live.socket.next().now_or_never() {
                            Some(frame) => {
                                if let Err(end) = self.take_message(live, frame) {
                                    return end;
                                }
                            }
                            None => break,
                        }
                    }
                }
                Wake::Command(Some(command)) => {
                    self.take_command(command);
                    while let Ok(command) = self.commands.try_recv() {
                        self.take_command(command);
                    }
                }
                Wake::Command(None) => open = false,
                Wake::Marks => self.take_marks(),
                // What we did not read meanwhile does not count as silence.
                Wake::Room(true) => live.heard = Instant::now(),
                Wake::Time => {}
                Wake::Room(false) | Wake::Dropped => return End::Over(CloseReason::Asked),
                Wake::Renewed(outcome) => {
                    live.renewal = None;
                    match outcome {
                        Ok(access) => {
                            live.renew_at = access.renew_at;
                            live.token = access.token;
                            let frame = ClientFrame::Auth { access_token: live.token.clone() };
                            if let Err(error) = live.socket.feed(encode(Some(AUTH_REF.to_owned()), frame)).await {
                                return End::again(error);
                            }
                        }
                        Err(Error::LoggedOut) => return End::Over(CloseReason::LoggedOut),
                        Err(error) => {
                            // The old token may still be good for a while.
                            tracing::warn!(%error, "the access token could not be renewed");
                            live.renew_at = OffsetDateTime::now_utc() + Duration::from_secs(1);
                        }
                    }
                }
            }
        }
    }

    /// When there is something to do though nothing comes.
    fn wake_at(&self, live: &Live) -> Instant {
        let now = Instant::now();
        let renew_in = Duration::try_from(live.renew_at - OffsetDateTime::now_utc()).unwrap_or_default();
        let mut wake_at = live.pinged + live.heartbeat;
        if self.held.is_empty() {
            wake_at = wake_at.min(live.heard + 2 * live.heartbeat);
        }
        if live.renewal.is_none() {
            wake_at = wake_at.min(now + renew_in);
        }
        if live.welcomed {
            wake_at = [self.acks.due(), self.outbox.due(), self.reads.due()]
                .into_iter()
                .flatten()
                .fold(wake_at, Instant::min);
        } else {
            wake_at = wake_at.min(live.opened + self.options.connect_within);
        }
        // Never in a spin, whatever is overdue.
        wake_at.max(now + Duration::from_millis(1))
    }

    /// Writes all that is due, and flushes it in one go.
    async fn write_due(&mut self, live: &mut Live) -> Result<(), tungstenite::Error> {
        let now = Instant::now();
        if self.closing.is_some() {
            self.take_marks();
        }
        if live.welcomed {
            for draft in self.outbox.drain(now) {
                let reference = draft.message.message_id.to_string();
                let frame = ClientFrame::Send { conversation_id: draft.conversation_id, message: draft.message };
                live.socket.feed(encode(Some(reference), frame)).await?;
            }
            let close_now = self.closing.is_some();
            let acks = if close_now { self.acks.drain_all() } else { self.acks.drain(now) };
            for (conversation_id, seq) in acks {
                live.socket.feed(encode(None, ClientFrame::Ack { conversation_id, seq })).await?;
            }
            for (conversation_id, seq) in self.reads.drain(now) {
                let frame = ClientFrame::Read { conversation_id, seq };
                live.socket.feed(encode(Some(read_ref(conversation_id, seq)), frame)).await?;
            }
        } else if live.opened.elapsed() >= self.options.connect_within {
            return Err(tungstenite::Error::Io(std::io::ErrorKind::TimedOut.into()));
        }
        if live.pinged.elapsed() >= live.heartbeat {
            // Keeps the connection heard at the other end even while we do not read.
            live.pinged = now;
            live.socket.feed(encode(None, ClientFrame::Ping {})).await?;
        }
        if live.renewal.is_none() && live.renew_at <= OffsetDateTime::now_utc() {
            let (client, token) = (self.client.clone(), live.token.clone());
            live.renewal = Some(async move { client.access_instead_of(&token).await }.boxed());
        }
        live.socket.flush().await
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Send { draft, waiter } => {
                let message = draft.message.message_id;
                if self.outbox.push(draft) {
                    self.waiters.insert(message, waiter);
                } else {
                    // Nobody waits for it any more if this fails.
                    let _ = waiter.answered.send(Err(Error::AlreadyQueued));
                }
            }
            Command::Close(done) => self.closing = Some(done),
        }
    }

    fn take_marks(&mut self) {
        let moved = self.marks.take();
        let now = Instant::now();
        for (conversation, seq) in moved.acks {
            self.acks.take(conversation, seq, now);
        }
        for (conversation, seq) in moved.reads {
            self.reads.take(conversation, seq);
        }
    }

    /// Gives the application an update, now or once it has room.
    fn tell(&mut self, update: Update) {
        if !self.held.is_empty() {
            self.held.push_back(update);
        } else if let Err(mpsc::error::TrySendError::Full(update)) = self.updates.try_send(update) {
            self.held.push_back(update);
        }
    }
}

/// Gives the application the first update that waits for room; `false` if it has gone.
fn give(permit: Result<mpsc::Permit<'_, Update>, mpsc::error::SendError<()>>, held: &mut VecDeque<Update>) -> bool {
    let Ok(permit) = permit else { return false };
    if let Some(update) = held.pop_front() {
        permit.send(update);
    }
    true
}
