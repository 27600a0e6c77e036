//! Bodies of the REST calls, shared by servers and clients.

mod command;
mod problem;
mod query;

pub use command::{
    AdvanceReceipt, ChangeConversation, ChangePassword, ChangeProfile, ConversationOpened, CreateConversation, Done,
    LogIn, MessageSent, ReceiptAdvanced, Refresh, Register, Registered, SendMessage, SessionTokens, SetMember,
    Subscribe, SubscriptionKeys, Ticket,
};
pub use problem::{FieldError, Problem};
pub use query::{
    AuditEntry, Conversation, Delivery, DependencyHealth, Health, HealthStatus, Member, MemberReceipt, MemberState,
    MessageView, Page, PushSubscription, Reaction, Session, User, VapidPublicKey,
};
