//! The Rust client library of Parlance: REST calls, and a live session with resume, dedupe, order and an outbox.
//!
//! A [`Server`] is an address; there one registers and logs in. A [`Client`] is a user logged in on a device: it makes
//! REST calls, and renews its tokens by itself. A [`Session`] is the client's live connection: it stays online over lost
//! connections and restarts of the server, hands every event of a conversation to the application once and in order, and
//! retries each message under its one id until the server has answered for it.
//!
//! ```no_run
//! use parlance_client::{Register, Server, SessionOptions, Update};
//!
//! # async fn talk() -> Result<(), parlance_client::Error> {
//! let server = Server::new("http://localhost:8080")?;
//! server.register(&Register {
//!     username: "ann".into(),
//!     email: "ann@example.org".into(),
//!     password: "correct horse 9 battery".into(),
//!     display_name: None,
//! }).await?;
//! let ann = server.log_in("ann", "correct horse 9 battery", None).await?;
//! let ben = ann.find_users("ben", None).await?.items.remove(0);
//! let conversation = ann.open_direct(ben.user_id).await?.conversation_id;
//!
//! let (session, mut updates) = ann.open_session(SessionOptions::default()).await?;
//! let sent = session.send(conversation, "Hello, Ben").await?.outcome().await?;
//! println!("committed as number {}", sent.seq);
//!
//! while let Some(update) = updates.next().await {
//!     match update {
//!         Update::Event(event) => {
//!             if let Some(message) = event.message() {
//!                 println!("{}: {}", message.sender_id, message.content.unwrap_or_default());
//!                 session.read(event.conversation_id, event.seq);
//!             }
//!         }
//!         Update::Receipt(receipt) => println!("{} has up to {}", receipt.user_id, receipt.delivered_to),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use client::{Client, Identity, Range};
pub use error::Error;
pub use schemas::{
    ConversationCreated, History, Kind, MemberJoined, MemberLeft, Message, PositionToken, Role,
    rest::{
        AdvanceReceipt, ChangeConversation, ChangePassword, ChangeProfile, Conversation, ConversationOpened,
        CreateConversation, Delivery, Done, Member, MemberReceipt, MemberState, MessageSent, MessageView, Page,
        Problem, ReceiptAdvanced, Register, Registered, SendMessage, SessionTokens, Ticket, User,
    },
};
pub use server::Server;
pub use session::{
    AckPolicy, Backoff, CloseReason, Draft, Event, FileStore, MemoryStore, OutboxStore, Pending, ReceiptMoved, Session,
    SessionOptions, Update, Updates, Welcome,
};

/// A plain text message under an id of its own.
pub fn text_message(content: impl Into<String>) -> SendMessage {
    SendMessage {
        message_id: uuid::Uuid::now_v7(),
        content: content.into(),
        kind: None,
        reply_to: None,
        mentions: Vec::new(),
        file_ids: Vec::new(),
    }
}
