//! `GET /v1/conversations/{conversation_id}/messages`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{PathId, Problem, Query};
use schemas::Message;
use schemas::rest::{Delivery, MessageView, Page};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{delivery, status_with_last_to_leave};
use crate::access::{Membership, access_cte};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::page::{Cursor, Key, Paging, PagingParameters, signed, unsigned};
use crate::refusals::{NotMember, Refused};
use crate::state::QueryState;
use crate::status::{Present, Reach};

/// One statement a page: whether the caller may, the messages, and how far all who are there have got.
///
/// Parameters: the conversation, the caller, items, where to begin (exclusive). The columns of a row mean what its
/// first one says: 0 the access (`seq` is `left_seq`), 1 a message, 2 the lowest watermarks (`seq` is where they
/// joined) of one of the page's senders, or, without `sender_id`, of all others: one look at each member, however many
/// messages.
macro_rules! page_statement {
    ($beyond:literal, $order:literal) => {
        concat!(
            "WITH ",
            access_cte!(),
            ", page AS MATERIALIZED (
                SELECT t.seq, t.sender_id, t.message_id, t.type, t.content, t.reply_to, t.mentions, t.at
                  FROM read.timeline t
                 WHERE t.conversation_id = $1 AND t.seq ",
            $beyond,
            " $4 AND t.seq > (SELECT horizon FROM access WHERE left_seq IS NULL) AND t.message_id IS NOT NULL
                 ORDER BY t.seq ",
            $order,
            " LIMIT $3), senders AS MATERIALIZED (
                SELECT array_agg(DISTINCT sender_id) AS ids FROM page), present AS (
                SELECT CASE WHEN m.user_id = ANY((SELECT ids FROM senders)::uuid[]) THEN m.user_id END AS sender_id,
                       min(m.joined_seq) AS joined,
                       min(coalesce(r.delivered_to, m.joined_seq)) AS delivered,
                       min(coalesce(r.read_to, m.joined_seq)) AS read
                  FROM read.members m
                  LEFT JOIN read.receipts r
                    ON r.conversation_id = $1 AND r.user_id = m.user_id AND r.left_seq IS NULL
                 WHERE m.conversation_id = $1 AND m.left_seq IS NULL AND (SELECT ids FROM senders) IS NOT NULL
                 GROUP BY 1)
             SELECT 0::smallint, left_seq AS seq, NULL::uuid AS sender_id, NULL::bigint AS delivered,
                    NULL::bigint AS read, NULL::uuid AS message_id, NULL::text AS type, NULL::text AS content,
                    NULL::uuid AS reply_to, NULL::uuid[] AS mentions, NULL::timestamptz AS at
               FROM access
             UNION ALL
             SELECT 1::smallint, seq, sender_id, NULL, NULL, message_id, type, content, reply_to, mentions, at FROM page
             UNION ALL
             SELECT 2::smallint, joined, sender_id, delivered, read, NULL, NULL, NULL, NULL, NULL, NULL FROM present"
        )
    };
}
const BACKWARD: &str = page_statement!("<", "DESC");
const FORWARD: &str = page_statement!(">", "ASC");

const ACCESS: i16 = 0;
const MESSAGE: i16 = 1;

/// Where status stays when of those who were there nobody but the sender is left. Seldom asked.
///
/// Parameters: the conversation, the messages' numbers and senders.
const STAYED: &str = concat!(
    "SELECT t.seq, coalesce(",
    status_with_last_to_leave!(),
    ", 0)
       FROM (SELECT $1::uuid AS conversation_id, seq, sender_id
               FROM unnest($2::bigint[], $3::uuid[]) AS u(seq, sender_id)) t"
);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct List {
    /// Only messages before this number; with neither `before` nor `after` the newest.
    #[serde(default)]
    before: Option<u64>,
    /// Only messages after this number.
    #[serde(default)]
    after: Option<u64>,
}

/// Where a page begins, exclusive, and which way it goes; the pages after it go the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum From {
    /// Towards the first message.
    #[serde(rename = "b")]
    Before(u64),
    /// Towards the newest.
    #[serde(rename = "a")]
    After(u64),
}

impl Key for From {
    const LIST: &'static str = "messages";
}

impl List {
    fn from(&self, paging: &Paging<From>) -> Result<From, Problem> {
        match (self.before, self.after) {
            (Some(_), Some(_)) => Err(Problem::invalid_parameter("after", "not together with `before`")),
            _ if let Some(Cursor(from)) = paging.cursor => Ok(from),
            (Some(before), None) => Ok(From::Before(before)),
            (None, Some(after)) => Ok(From::After(after)),
            (None, None) => Ok(From::Before(u64::MAX)),
        }
    }
}

/// A page of a conversation's messages, ascending by `seq`.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/messages", tag = "messages",
    operation_id = "listMessages", params(("conversation_id" = Uuid, Path), List, PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<MessageView>), Refused, NotMember))]
pub(super) async fn page(
    State(state): State<QueryState>,
    caller: Caller,
    PathId(conversation_id): PathId,
    Query(list): Query<List>,
    Query(paging): Query<Paging<From>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let from = list.from(&paging)?;
    let answer = fresh.of_conversation(conversation_id);
    let (statement, begin) = match from {
        From::Before(seq) => (BACKWARD, seq),
        From::After(seq) => (FORWARD, seq),
    };
    let rows = sqlx::query(statement)
        .bind(conversation_id)
        .bind(caller.user_id)
        .bind(paging.limit.fetched())
        .bind(signed(begin))
        .fetch_all(state.pool())
        .await?;
    let (mut messages, present) = read(conversation_id, &rows)?;
    let more = paging.limit.cut(&mut messages);
    let next_cursor = messages.last().filter(|_| more).map(|last| match from {
        From::Before(_) => Cursor(From::Before(last.seq)).to_text(),
        From::After(_) => Cursor(From::After(last.seq)).to_text(),
    });
    if matches!(from, From::Before(_)) {
        messages.reverse();
    }
    let items = with_status(state.pool(), conversation_id, messages, &present).await?;
    answer.json(&Page { items, next_cursor })
}

fn read(conversation_id: Uuid, rows: &[PgRow]) -> Result<(Vec<Message>, Present), Problem> {
    let mut membership = Membership::Never;
    let mut messages = Vec::with_capacity(rows.len());
    let mut present = Present::default();
    for row in rows {
        match row.try_get(0)? {
            ACCESS => membership = Membership::of(Some(row), 1)?,
            MESSAGE => messages.push(Message {
                message_id: row.try_get(5)?,
                conversation_id,
                seq: unsigned(row.try_get(1)?),
                sender_id: row.try_get(2)?,
                kind: row.try_get(6)?,
                content: row.try_get(7)?,
                file_ids: Vec::new(),
                reply_to: row.try_get(8)?,
                mentions: row.try_get::<Option<Vec<Uuid>>, _>(9)?.unwrap_or_default(),
                created_at: row.try_get(10)?,
                edited_at: None,
                deleted: false,
            }),
            _ => present.add(
                row.try_get(2)?,
                Reach { joined: row.try_get(1)?, delivered: row.try_get(3)?, read: row.try_get(4)? },
            ),
        }
    }
    membership.admit()?;
    Ok((messages, present))
}

async fn with_status(
    pool: &PgPool,
    conversation_id: Uuid,
    messages: Vec<Message>,
    present: &Present,
) -> Result<Vec<MessageView>, sqlx::Error> {
    let mut stayed = Vec::new();
    let mut views = Vec::with_capacity(messages.len());
    for message in messages {
        let status = present.status(signed(message.seq), message.sender_id).unwrap_or_else(|| {
            stayed.push(views.len());
            Delivery::Sent
        });
        views.push(MessageView { message, reactions: Vec::new(), status });
    }
    if stayed.is_empty() {
        return Ok(views);
    }
    let of = |index: &usize| &views[*index].message;
    let seqs: Vec<i64> = stayed.iter().map(|index| signed(of(index).seq)).collect();
    let senders: Vec<Uuid> = stayed.iter().map(|index| of(index).sender_id).collect();
    let found: Vec<(i64, i32)> =
        sqlx::query_as(STAYED).bind(conversation_id).bind(&seqs).bind(&senders).fetch_all(pool).await?;
    for (seq, status) in found {
        if let Ok(nth) = seqs.binary_search(&seq) {
            views[stayed[nth]].status = delivery(status);
        }
    }
    Ok(views)
}
