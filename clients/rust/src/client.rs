//! A user logged in on a device: commands and queries, with tokens that renew themselves.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use schemas::{
    Kind, PositionToken, Role,
    rest::{
        AdvanceReceipt, ChangeConversation, ChangePassword, ChangeProfile, Conversation, ConversationOpened,
        CreateConversation, Done, Member, MemberReceipt, MemberState, MessageSent, MessageView, Page, ReceiptAdvanced,
        Refresh, SendMessage, Session as SessionInfo, SessionTokens, SetMember, Ticket, User,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    error::Error,
    server::{Call, NO_BODY, Server},
    session::{OutboxStore, Session, SessionOptions, Updates},
};

/// How much of its life an access token may have left before it is renewed: a fifth, a minute at most.
pub(crate) fn renewal_margin(life: Duration) -> Duration {
    (life / 5).min(Duration::from_mins(1))
}

/// Which part of a conversation's messages to ask for; both ends exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// The newest.
    #[default]
    Newest,
    /// Those before a seq, page by page towards the beginning.
    Before(u64),
    /// Those after a seq, page by page towards the end.
    After(u64),
}

/// A user logged in on a device. Cheap to clone; clones share their tokens.
///
/// An access token is renewed before it expires, and when the server refuses it; one renewal runs at a time. When the
/// refresh token is refused too, every call fails with [`Error::LoggedOut`].
#[derive(Clone)]
pub struct Client {
    server: Server,
    identity: Identity,
    tokens: Arc<Mutex<Held>>,
    min_position: Option<PositionToken>,
    strict: bool,
}

/// Who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user_id: Uuid,
    /// The device.
    pub device_id: Uuid,
    /// The session of the device.
    pub session_id: Uuid,
}

/// The tokens in use.
struct Held {
    tokens: SessionTokens,
    /// When to renew the access token.
    renew_at: OffsetDateTime,
    logged_out: bool,
}

impl Held {
    fn new(tokens: SessionTokens) -> Self {
        let life = Duration::try_from(tokens.access_expires_at - OffsetDateTime::now_utc()).unwrap_or_default();
        Self { renew_at: tokens.access_expires_at - renewal_margin(life), tokens, logged_out: false }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server.address())
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// An access token, and when to renew it.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) token: String,
    pub(crate) renew_at: OffsetDateTime,
}

impl Client {
    pub(crate) fn new(server: Server, tokens: SessionTokens) -> Self {
        let identity = Identity { user_id: tokens.user_id, device_id: tokens.device_id, session_id: tokens.session_id };
        Self { server, identity, tokens: Arc::new(Mutex::new(Held::new(tokens))), min_position: None, strict: false }
    }

    /// A client that goes on with tokens of an earlier run ([`Client::tokens`]).
    pub fn resume(server: Server, tokens: SessionTokens) -> Self {
        Self::new(server, tokens)
    }

    /// The tokens as they are now, to be kept somewhere safe.
    pub async fn tokens(&self) -> SessionTokens {
        self.tokens.lock().await.tokens.clone()
    }

    /// Who this client is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The user of this client.
    pub fn user_id(&self) -> Uuid {
        self.identity.user_id
    }

    /// The server of this client.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The same client, whose queries wait (300 ms at most) until they show what happened at `position`.
    #[must_use]
    pub fn at_least(&self, position: &PositionToken) -> Self {
        let mut client = self.clone();
        match &mut client.min_position {
            Some(held) => held.merge(position),
            held => *held = Some(position.clone()),
        }
        client
    }

    /// The same client, whose queries are refused where they would show less than was asked for by
    /// [`at_least`](Self::at_least), and tried again.
    #[must_use]
    pub fn strictly(&self) -> Self {
        Self { strict: true, ..self.clone() }
    }

    // ---- session ----

    /// A token that is good for now.
    pub(crate) async fn access(&self) -> Result<Access, Error> {
        let mut held = self.tokens.lock().await;
        if held.logged_out {
            return Err(Error::LoggedOut);
        }
        if held.renew_at <= OffsetDateTime::now_utc() {
            self.renew(&mut held).await?;
        }
        Ok(Access { token: held.tokens.access_token.clone(), renew_at: held.renew_at })
    }

    /// A token other than the one that the server has just refused.
    pub(crate) async fn access_instead_of(&self, refused: &str) -> Result<Access, Error> {
        let mut held = self.tokens.lock().await;
        if held.logged_out {
            return Err(Error::LoggedOut);
        }
        if held.tokens.access_token == refused {
            self.renew(&mut held).await?;
        }
        Ok(Access { token: held.tokens.access_token.clone(), renew_at: held.renew_at })
    }

    /// Renews the tokens now.
    pub async fn refresh(&self) -> Result<(), Error> {
        let mut held = self.tokens.lock().await;
        self.renew(&mut held).await
    }

    async fn renew(&self, held: &mut Held) -> Result<(), Error> {
        let body = Refresh { refresh_token: held.tokens.refresh_token.clone(), device_id: self.identity.device_id };
        // The same device may use a token twice within ten seconds: a lost answer logs nobody out.
        let call = Call { body: Some(&body), repeatable: true, ..Call::new(Method::POST, &["sessions", "refresh"]) };
        match self.server.call(call).await {
            Ok(tokens) => {
                *held = Held::new(tokens);
                Ok(())
            }
            Err(error) if error.status() == Some(401) => {
                held.logged_out = true;
                Err(Error::LoggedOut)
            }
            Err(error) => Err(error),
        }
    }

    /// Logs out on this device.
    pub async fn log_out(&self) -> Result<(), Error> {
        self.delete(&["sessions", "current"]).await?;
        self.tokens.lock().await.logged_out = true;
        Ok(())
    }

    /// Ends another session of this user.
    pub async fn log_out_session(&self, session_id: Uuid) -> Result<(), Error> {
        self.delete(&["sessions", &session_id.to_string()]).await
    }

    /// Ends all sessions of this user, this one too.
    pub async fn log_out_everywhere(&self) -> Result<(), Error> {
        self.delete(&["sessions"]).await?;
        self.tokens.lock().await.logged_out = true;
        Ok(())
    }

    /// A ticket with which a WebSocket can be opened once, within 30 s, without a header.
    pub async fn ws_ticket(&self) -> Result<Ticket, Error> {
        self.command(Method::POST, &["ws-tickets"], NO_BODY, true).await
    }

    // ---- commands ----

    /// Changes what others see of this user.
    pub async fn change_profile(&self, change: &ChangeProfile) -> Result<Done, Error> {
        self.command(Method::PATCH, &["users", "me"], Some(change), true).await
    }

    /// Changes the password, and ends the other sessions.
    pub async fn change_password(&self, change: &ChangePassword) -> Result<Done, Error> {
        self.command(Method::PUT, &["users", "me", "password"], Some(change), false).await
    }

    /// Creates a conversation. With its `conversation_id` given, a lost answer is no reason for doubt: it is asked again.
    pub async fn create_conversation(&self, new: &CreateConversation) -> Result<ConversationOpened, Error> {
        let repeatable = new.conversation_id.is_some() || new.kind == Kind::Direct;
        self.command(Method::POST, &["conversations"], Some(new), repeatable).await
    }

    /// The direct conversation with another user, made if there is none.
    pub async fn open_direct(&self, with: Uuid) -> Result<ConversationOpened, Error> {
        self.create_conversation(&CreateConversation {
            conversation_id: None,
            kind: Kind::Direct,
            name: None,
            member_ids: vec![with],
            history: None,
        })
        .await
    }

    /// Creates a group under an id of its own.
    pub async fn create_group(&self, name: &str, member_ids: Vec<Uuid>) -> Result<ConversationOpened, Error> {
        self.create_conversation(&CreateConversation {
            conversation_id: Some(Uuid::now_v7()),
            kind: Kind::Group,
            name: Some(name.to_owned()),
            member_ids,
            history: None,
        })
        .await
    }

    /// Renames a group, or changes its settings.
    pub async fn change_conversation(&self, conversation: Uuid, change: &ChangeConversation) -> Result<Done, Error> {
        self.command(Method::PATCH, &["conversations", &conversation.to_string()], Some(change), true).await
    }

    /// Adds a member to a group, or changes their role.
    pub async fn put_member(&self, conversation: Uuid, user: Uuid, role: Role) -> Result<Done, Error> {
        let path = ["conversations", &conversation.to_string(), "members", &user.to_string()];
        self.command(Method::PUT, &path, Some(&SetMember { role }), true).await
    }

    /// Takes a member out of a group.
    pub async fn remove_member(&self, conversation: Uuid, user: Uuid) -> Result<Done, Error> {
        let path = ["conversations", &conversation.to_string(), "members", &user.to_string()];
        self.command(Method::DELETE, &path, NO_BODY, true).await
    }

    /// Leaves a group.
    pub async fn leave(&self, conversation: Uuid) -> Result<Done, Error> {
        let path = ["conversations", &conversation.to_string(), "members", "me"];
        self.command(Method::DELETE, &path, NO_BODY, true).await
    }

    /// Sends a message by REST. Its id makes it safe to ask again when the answer is lost, and that is done.
    pub async fn send(&self, conversation: Uuid, message: &SendMessage) -> Result<MessageSent, Error> {
        let path = ["conversations", &conversation.to_string(), "messages"];
        self.command(Method::POST, &path, Some(message), true).await
    }

    /// Moves the own watermarks forward.
    pub async fn mark(&self, conversation: Uuid, marks: &AdvanceReceipt) -> Result<ReceiptAdvanced, Error> {
        let path = ["conversations", &conversation.to_string(), "receipts", "me"];
        self.command(Method::PUT, &path, Some(marks), true).await
    }

    // ---- queries ----

    /// The own account.
    pub async fn me(&self) -> Result<User, Error> {
        self.get(&["users", "me"], &[]).await
    }

    /// Another user.
    pub async fn user(&self, user: Uuid) -> Result<User, Error> {
        self.get(&["users", &user.to_string()], &[]).await
    }

    /// Users whose name matches.
    pub async fn find_users(&self, query: &str, cursor: Option<&str>) -> Result<Page<User>, Error> {
        let mut parameters = vec![("query", query.to_owned())];
        parameters.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.get(&["users"], &parameters).await
    }

    /// The own sessions.
    pub async fn sessions(&self) -> Result<Page<SessionInfo>, Error> {
        self.get(&["sessions"], &[]).await
    }

    /// The own conversations, the latest first.
    pub async fn conversations(&self, cursor: Option<&str>) -> Result<Page<Conversation>, Error> {
        let parameters: Vec<_> = cursor.map(|cursor| ("cursor", cursor.to_owned())).into_iter().collect();
        self.get(&["conversations"], &parameters).await
    }

    /// One conversation.
    pub async fn conversation(&self, conversation: Uuid) -> Result<Conversation, Error> {
        self.get(&["conversations", &conversation.to_string()], &[]).await
    }

    /// The members of a conversation.
    pub async fn members(&self, conversation: Uuid, cursor: Option<&str>) -> Result<Page<Member>, Error> {
        let parameters: Vec<_> = cursor.map(|cursor| ("cursor", cursor.to_owned())).into_iter().collect();
        self.get(&["conversations", &conversation.to_string(), "members"], &parameters).await
    }

    /// The watermarks of a conversation's members.
    pub async fn receipts(&self, conversation: Uuid, cursor: Option<&str>) -> Result<Page<MemberReceipt>, Error> {
        let parameters: Vec<_> = cursor.map(|cursor| ("cursor", cursor.to_owned())).into_iter().collect();
        self.get(&["conversations", &conversation.to_string(), "receipts"], &parameters).await
    }

    /// A page of messages, ascending by seq; `limit` is 1 to 200, `cursor` the `next_cursor` of the page before.
    pub async fn messages(
        &self,
        conversation: Uuid,
        range: Range,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<MessageView>, Error> {
        let mut parameters = vec![("limit", limit.to_string())];
        match range {
            Range::Newest => {}
            Range::Before(seq) => parameters.push(("before", seq.to_string())),
            Range::After(seq) => parameters.push(("after", seq.to_string())),
        }
        parameters.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.get(&["conversations", &conversation.to_string(), "messages"], &parameters).await
    }

    /// All messages of a conversation from the one after `after` on, page by page, in the order in which they are answered.
    pub async fn history(&self, conversation: Uuid, after: u64) -> Result<Vec<MessageView>, Error> {
        let mut messages = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.messages(conversation, Range::After(after), 200, cursor.as_deref()).await?;
            messages.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(messages);
            }
        }
    }

    /// One message.
    pub async fn message(&self, conversation: Uuid, message: Uuid) -> Result<MessageView, Error> {
        self.get(&["conversations", &conversation.to_string(), "messages", &message.to_string()], &[]).await
    }

    /// Who has a message, and who read it.
    pub async fn message_receipts(&self, conversation: Uuid, message: Uuid) -> Result<Page<MemberState>, Error> {
        self.get(&["conversations", &conversation.to_string(), "messages", &message.to_string(), "receipts"], &[]).await
    }

    // ---- live ----

    /// Opens a live session, whose outbox lives as long as it does.
    pub async fn open_session(&self, options: SessionOptions) -> Result<(Session, Updates), Error> {
        Session::open(self.clone(), options, None).await
    }

    /// Opens a live session whose outbox is kept in a store: what an earlier session left there is sent first.
    pub async fn open_session_with(
        &self,
        options: SessionOptions,
        store: impl OutboxStore,
    ) -> Result<(Session, Updates), Error> {
        Session::open(self.clone(), options, Some(Box::new(store))).await
    }

    // ---- the way out ----

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&'static str, String)]) -> Result<T, Error> {
        let call = Call { query, ..Call::<()>::new(Method::GET, path) };
        self.authorized(call, async |call| self.server.call(call).await).await
    }

    async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        let call = Call::<()>::new(Method::DELETE, path);
        self.authorized(call, async |call| self.server.call_empty(call).await).await
    }

    async fn command<B, T>(&self, method: Method, path: &[&str], body: Option<&B>, repeatable: bool) -> Result<T, Error>
    where
        B: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let call = Call { body, repeatable, ..Call::new(method, path) };
        self.authorized(call, async |call| self.server.call(call).await).await
    }

    /// Makes a call with a good token; once more with a new one when the server refuses it.
    async fn authorized<B, T>(
        &self,
        call: Call<'_, B>,
        make: impl AsyncFn(Call<'_, B>) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        B: Serialize + ?Sized,
    {
        let queries = call.method == Method::GET;
        let with = |token| Call {
            bearer: Some(token),
            min_position: self.min_position.as_ref().filter(|_| queries),
            strict: self.strict,
            ..call.clone()
        };
        let access = self.access().await?;
        match make(with(&access.token)).await {
            Err(error) if error.status() == Some(401) => {
                let access = self.access_instead_of(&access.token).await?;
                make(with(&access.token)).await
            }
            outcome => outcome,
        }
    }
}
