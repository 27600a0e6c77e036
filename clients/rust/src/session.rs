//! A live session over a WebSocket: events in their order, acks, receipts, and an outbox that loses nothing.
//!
//! The session reconnects by itself, with a jittered back-off, and goes on where it was. What decides (order, acks, the
//! outbox) is pure and lives in modules of its own; [`driver`] does the input and output.

mod acks;
mod backoff;
mod driver;
mod inbox;
mod marks;
mod outbox;
mod reads;
mod store;
mod wire;

use std::{collections::HashMap, sync::Arc, time::Duration};

use schemas::rest::{MessageSent, Problem, SendMessage};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

pub use backoff::Backoff;
pub use outbox::Draft;
pub use store::{FileStore, MemoryStore, OutboxStore};
pub use wire::{Event, ReceiptMoved, Welcome};

use crate::{client::Client, error::Error};
use driver::{Command, Driver, Waiter};
use marks::Marks;

/// When the server is told that the device has an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckPolicy {
    /// Once the application asks for the next update: what it was given before, it is taken to have dealt with.
    #[default]
    OnNext,
    /// When the application says so ([`Session::ack`]), once it has the event where it is safe. The server waits with
    /// more when 256 events are not acked.
    Manual,
}

/// How a session is to behave. The defaults suit an application with a person in front of it.
#[derive(Debug)]
pub struct SessionOptions {
    /// What the application has of conversations already: events up to these are not given to it again. For the others
    /// the server knows what this device last acked.
    pub cursors: HashMap<Uuid, u64>,
    /// When events are acked.
    pub acks: AckPolicy,
    /// Acks wait for each other until they cover so many events (the contract asks for 100 or fewer) …
    pub ack_every: u32,
    /// … or the oldest has waited for so long (the contract asks for a second or less).
    pub ack_within: Duration,
    /// How many messages may be on their way before [`Session::send`] waits.
    pub outbox_capacity: usize,
    /// How many messages of one conversation may be in flight at once. With 1 not even a rate limit that hits one of
    /// them can change their order; with more it can.
    pub pipeline: usize,
    /// How many updates wait for the application before the session stops reading from the socket.
    pub update_buffer: usize,
    /// The pace of reconnects, and of retries of messages that the server refused for now.
    pub backoff: Backoff,
    /// How long an answer may take before a message is sent again on the same connection.
    pub answer_within: Duration,
    /// How long a connection may take until the server's welcome.
    pub connect_within: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            cursors: HashMap::new(),
            acks: AckPolicy::OnNext,
            ack_every: 100,
            ack_within: Duration::from_millis(200),
            outbox_capacity: 256,
            pipeline: 1,
            update_buffer: 256,
            backoff: Backoff::default(),
            answer_within: Duration::from_secs(15),
            connect_within: Duration::from_secs(10),
        }
    }
}

/// What a session tells the application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// Connected; the backlog follows.
    Online(Welcome),
    /// Everything that was committed before the connection was made has been given.
    Synced,
    /// A numbered event: of each conversation in ascending `seq` without a gap, each once.
    Event(Event),
    /// A member's watermarks moved.
    Receipt(ReceiptMoved),
    /// The user is no longer a member of this conversation: nothing more of it follows.
    Left(Uuid),
    /// A message that the outbox' store had kept from an earlier run was committed.
    Sent(MessageSent),
    /// A message that the outbox' store had kept from an earlier run was refused for good.
    Refused {
        /// Which.
        message_id: Uuid,
        /// Why.
        problem: Box<Problem>,
    },
    /// The connection is gone; another is tried, after this wait.
    Offline {
        /// Why.
        reason: String,
        /// Until the next try.
        retry_in: Duration,
    },
    /// The session is over; nothing follows.
    Closed(CloseReason),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The application closed it.
    Asked,
    /// It was logged out, revoked, or its refresh token has expired.
    LoggedOut,
    /// Another connection of the same device took its place.
    Replaced,
    /// The server does not understand this client.
    Protocol,
}

/// A live session. Cheap to clone. It goes on until it is closed or the [`Updates`] are dropped.
#[derive(Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    marks: Arc<Marks>,
    store: Option<driver::SharedStore>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("room", &self.room.available_permits()).finish_non_exhaustive()
    }
}

/// What the session tells, in order.
#[derive(Debug)]
pub struct Updates {
    queue: mpsc::Receiver<Update>,
    marks: Arc<Marks>,
    acks: AckPolicy,
    /// The event given last, acked when the next is asked for.
    given: Option<(Uuid, u64)>,
}

impl Updates {
    /// The next update; `None` once the session is over.
    pub async fn next(&mut self) -> Option<Update> {
        if let Some((conversation, seq)) = self.given.take() {
            self.marks.ack(conversation, seq);
        }
        let update = self.queue.recv().await;
        if let Some(Update::Event(event)) = &update
            && self.acks == AckPolicy::OnNext
        {
            self.given = Some((event.conversation_id, event.seq));
        }
        update
    }
}

/// A message on its way.
#[derive(Debug)]
pub struct Pending {
    message_id: Uuid,
    answer: oneshot::Receiver<Result<MessageSent, Error>>,
}

impl Pending {
    /// The id of the message.
    pub fn message_id(&self) -> Uuid {
        self.message_id
    }

    /// Waits for the server's answer, over as many connections as it takes.
    pub async fn outcome(self) -> Result<MessageSent, Error> {
        self.answer.await.unwrap_or(Err(Error::Closed))
    }
}

impl Session {
    pub(crate) async fn open(
        client: Client,
        options: SessionOptions,
        store: Option<Box<dyn OutboxStore>>,
    ) -> Result<(Self, Updates), Error> {
        let (store, restored) = match store {
            Some(mut store) => {
                let (store, restored) = tokio::task::spawn_blocking(move || {
                    let restored = store.load();
                    (store, restored)
                })
                .await
                .map_err(|error| Error::Store(error.into()))?;
                (Some(driver::share(store)), restored.map_err(Error::Store)?)
            }
            None => (None, Vec::new()),
        };
        let (commands, inbox) = mpsc::channel(options.outbox_capacity.max(1));
        let (sender, updates) = mpsc::channel(options.update_buffer.max(1));
        let marks = Arc::new(Marks::default());
        let session = Self {
            commands,
            room: Arc::new(Semaphore::new(options.outbox_capacity.max(1))),
            marks: Arc::clone(&marks),
            store: store.clone(),
        };
        let updates = Updates { queue: updates, marks: Arc::clone(&marks), acks: options.acks, given: None };
        tokio::spawn(Driver::new(client, options, inbox, sender, marks, store, restored).run());
        Ok((session, updates))
    }

    /// Queues a message under an id of its own and says when it has left the caller's hands: with a store, once it is
    /// safe there. Waits while the outbox is full.
    pub async fn send(&self, conversation: Uuid, content: impl Into<String>) -> Result<Pending, Error> {
        self.send_message(conversation, crate::text_message(content)).await
    }

    /// The same with all that a message may carry. It is retried under its id until the server has answered for good.
    pub async fn send_message(&self, conversation: Uuid, message: SendMessage) -> Result<Pending, Error> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Error::Closed)?;
        let message_id = message.message_id;
        let draft = Draft { conversation_id: conversation, message };
        if let Some(store) = &self.store {
            driver::with_store(store, {
                let draft = draft.clone();
                move |store| store.put(&draft)
            })
            .await
            .map_err(Error::Store)?;
        }
        let (answered, answer) = oneshot::channel();
        let waiter = Waiter { answered, _room: room };
        self.commands.send(Command::Send { draft, waiter }).await.map_err(|_| Error::Closed)?;
        Ok(Pending { message_id, answer })
    }

    /// The device durably has everything of a conversation up to `seq`. Told to the server together with others, soon.
    pub fn ack(&self, conversation: Uuid, seq: u64) {
        self.marks.ack(conversation, seq);
    }

    /// The user has read everything of a conversation up to `seq`. Told to the server until it has answered.
    pub fn read(&self, conversation: Uuid, seq: u64) {
        self.marks.read(conversation, seq);
    }

    /// Closes the session: what is still in the outbox stays in its store, if it has one. Where a connection stands, acks
    /// that are owed are written, and the server has read them when this returns, unless it takes more than 5 s.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            // Answered or dropped: over in either case.
            let _ = closed.await;
        }
    }
}
