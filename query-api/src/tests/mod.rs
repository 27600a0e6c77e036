//! The endpoints over a real PostgreSQL, through the router and the HTTP frame; each test writes the read models itself.

mod audit;
mod cached;
mod commands;
mod conversations;
mod describes;
mod freshness;
mod messages;
mod model;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use platform::applied::AppliedPositions;
use platform::auth::{AuthSettings, Authenticator, Keyring, Revocations};
use platform::cache::Answers;
use schemas::rest::{Conversation, MessageView, Page};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::Database;
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use self::commands::Commands;
use crate::{Dependencies, Dependency, Documents, Operations, QueryState};

/// The session of everybody's token.
pub(crate) const SESSION: Uuid = Uuid::from_u128(0x5e55);

/// A database of one's own with the routes over it.
pub(crate) struct World {
    database: Database,
    authenticator: Authenticator,
    applied: AppliedPositions,
    pub(crate) commands: Arc<Commands>,
    router: Router,
}

/// An answer.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body of a success.
    pub(crate) fn is<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, StatusCode::OK, "{}", self.json());
        serde_json::from_slice(&self.body).expect("the body is of its type")
    }

    /// Asserts that it is a problem, about this parameter if one is given.
    pub(crate) fn is_problem(&self, status: u16, parameter: Option<&str>) {
        let body = self.json();
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(body["status"], status);
        if let Some(parameter) = parameter {
            assert_eq!(body["errors"][0]["parameter"], parameter, "{body}");
        }
    }
}

/// Some instant, and `n` seconds after it.
pub(crate) fn at(n: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("a time") + Duration::seconds(n)
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::keeping(None).await
    }

    /// Where answers are kept.
    pub(crate) async fn keeping(answers: Option<Answers>) -> Self {
        let database = Database::new().await;
        let pool = database.pool().clone();
        let settings = AuthSettings::default();
        let keyring = Keyring::open(&pool, None).await.unwrap();
        let revocations = Revocations::open(pool.clone(), settings.access_ttl, CancellationToken::new()).await.unwrap();
        let authenticator = Authenticator::new(keyring, revocations, settings);
        let applied = AppliedPositions::default();
        let commands = Arc::new(Commands::default());
        let queries = PgPoolOptions::new()
            .max_connections(5)
            .connect_with(crate::steady_plans(database.options()))
            .await
            .unwrap();
        let state = QueryState::new(Dependencies {
            reads: queries.into(),
            applied: applied.clone(),
            authenticator: authenticator.clone(),
            shard_of: Arc::new(|_| 3),
            commands: commands.clone(),
            documents: Documents::of([crate::openapi()]).unwrap(),
            answers,
        });
        let operations = Operations::new([Dependency::postgres(pool)], || "parlance_up 1\n".to_owned());
        let router = platform::http::frame(crate::router(state).merge(crate::operations_router(operations)));
        Self { database, authenticator, applied, commands, router }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    pub(crate) fn token(&self, user: Uuid) -> String {
        self.authenticator.issue(user, SESSION, Uuid::from_u128(7)).0
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.unwrap().to_vec();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, user: Uuid, path: &str) -> Answered {
        let bearer = format!("Bearer {}", self.token(user));
        self.send(Method::GET, path, &[("authorization", &bearer)]).await
    }

    pub(crate) async fn user(&self, username: &str, display_name: Option<&str>) -> Uuid {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO read.users (user_id, username, display_name, display_name_folded, email, created_at)
             VALUES ($1, $2, $3, $4, $2 || '@example.org', $5)",
        )
        .bind(id)
        .bind(username)
        .bind(display_name)
        .bind(display_name.map(str::to_lowercase))
        .bind(at(0))
        .execute(self.pool())
        .await
        .unwrap();
        id
    }

    /// A conversation whose head is its `created`, with these first members; the first is its owner.
    pub(crate) async fn conversation(&self, kind: &str, history: &str, members: &[Uuid]) -> Uuid {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO read.conversations
                    (conversation_id, type, name, history, member_count, last_seq, last_message_seq, updated_at)
             VALUES ($1, $2, $3, $4, 0, 0, NULL, $5)",
        )
        .bind(id)
        .bind(kind)
        .bind((kind == "group").then_some("us"))
        .bind(history)
        .bind(at(0))
        .execute(self.pool())
        .await
        .unwrap();
        self.event(id, 1).await;
        for (nth, member) in members.iter().enumerate() {
            self.join(id, *member, 0, if nth == 0 { "owner" } else { "member" }).await;
        }
        id
    }

    /// A stay that began at `joined_seq`; 0 for first members.
    pub(crate) async fn join(&self, conversation: Uuid, user: Uuid, joined_seq: i64, role: &str) {
        sqlx::query("INSERT INTO read.members VALUES ($1, $2, $3, NULL, $4, $5)")
            .bind(conversation)
            .bind(user)
            .bind(joined_seq)
            .bind(role)
            .bind(at(joined_seq))
            .execute(self.pool())
            .await
            .unwrap();
        sqlx::query("UPDATE read.conversations SET member_count = member_count + 1 WHERE conversation_id = $1")
            .bind(conversation)
            .execute(self.pool())
            .await
            .unwrap();
        if joined_seq > 0 {
            self.event(conversation, joined_seq).await;
        }
    }

    pub(crate) async fn leave(&self, conversation: Uuid, user: Uuid, left_seq: i64) {
        for table in ["members", "receipts"] {
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "UPDATE read.{table} SET left_seq = $3
                  WHERE conversation_id = $1 AND user_id = $2 AND left_seq IS NULL"
            )))
            .bind(conversation)
            .bind(user)
            .bind(left_seq)
            .execute(self.pool())
            .await
            .unwrap();
        }
        sqlx::query("UPDATE read.conversations SET member_count = member_count - 1 WHERE conversation_id = $1")
            .bind(conversation)
            .execute(self.pool())
            .await
            .unwrap();
        self.event(conversation, left_seq).await;
    }

    /// A numbered event that is no message.
    pub(crate) async fn event(&self, conversation: Uuid, seq: i64) {
        sqlx::query(
            "INSERT INTO read.timeline (conversation_id, seq, topic_shard, position, at, event, data)
             VALUES ($1, $2, 3, $2, $3, 'conversation.renamed', '{}')",
        )
        .bind(conversation)
        .bind(seq)
        .bind(at(seq))
        .execute(self.pool())
        .await
        .unwrap();
        self.head(conversation, seq, None).await;
    }

    pub(crate) async fn message(&self, conversation: Uuid, seq: i64, sender: Uuid) -> Uuid {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO read.timeline
                    (conversation_id, seq, topic_shard, position, at, message_id, sender_id, type, content)
             VALUES ($1, $2, 3, $2, $3, $4, $5, 'text', 'number ' || $2)",
        )
        .bind(conversation)
        .bind(seq)
        .bind(at(seq))
        .bind(id)
        .bind(sender)
        .execute(self.pool())
        .await
        .unwrap();
        self.head(conversation, seq, Some(seq)).await;
        id
    }

    async fn head(&self, conversation: Uuid, seq: i64, message: Option<i64>) {
        sqlx::query(
            "UPDATE read.conversations
                SET last_seq = $2, last_message_seq = coalesce($3, last_message_seq), updated_at = $4
              WHERE conversation_id = $1",
        )
        .bind(conversation)
        .bind(seq)
        .bind(message)
        .bind(at(seq))
        .execute(self.pool())
        .await
        .unwrap();
    }

    /// Moves the watermarks of a present member.
    pub(crate) async fn receipt(&self, conversation: Uuid, user: Uuid, delivered_to: i64, read_to: i64) {
        sqlx::query(
            "INSERT INTO read.receipts (conversation_id, user_id, left_seq, delivered_to, delivered_at, read_to, read_at)
             VALUES ($1, $2, NULL, $3, $5, $4, $5)
                 ON CONFLICT (conversation_id, user_id, left_seq)
                 DO UPDATE SET delivered_to = excluded.delivered_to, read_to = excluded.read_to",
        )
        .bind(conversation)
        .bind(user)
        .bind(delivered_to)
        .bind(read_to)
        .bind(at(1000))
        .execute(self.pool())
        .await
        .unwrap();
    }

    pub(crate) async fn one(&self, user: Uuid, conversation: Uuid) -> Conversation {
        self.get(user, &format!("/v1/conversations/{conversation}")).await.is()
    }

    /// All pages of a list, and how many items each had.
    pub(crate) async fn pages<T: DeserializeOwned>(&self, user: Uuid, path: &str) -> (Vec<Page<T>>, Vec<usize>) {
        let mut pages: Vec<Page<T>> = vec![self.get(user, path).await.is()];
        while let Some(cursor) = pages.last().and_then(|page| page.next_cursor.clone()) {
            let separator = if path.contains('?') { '&' } else { '?' };
            pages.push(self.get(user, &format!("{path}{separator}cursor={cursor}")).await.is());
            assert!(pages.len() < 1000, "paging ends");
        }
        let counts = pages.iter().map(|page| page.items.len()).collect();
        (pages, counts)
    }
}

/// The numbers of messages.
pub(crate) fn seqs<'a>(messages: impl IntoIterator<Item = &'a MessageView>) -> Vec<u64> {
    messages.into_iter().map(|view| view.message.seq).collect()
}
