//! Pages of the timeline, from rows straight to frames.

use bytes::Bytes;
use schemas::{Position, Topic};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, bigint, count};
use crate::gateway::protocol::event::{About, Event, EventHead};
use crate::gateway::session::{Page, Range};

const MESSAGE_SENT: &str = "message.sent";
/// Room for the frame of a usual message.
const USUAL_BYTES: usize = 768;

impl Store {
    /// The events of these ranges, as far as the read model has them; in one statement.
    pub(crate) async fn pages(&self, ranges: &[Range]) -> Result<Vec<Page>, sqlx::Error> {
        let ids: Vec<Uuid> = ranges.iter().map(|range| range.conversation_id).collect();
        let named = &ids;
        let column = |number: fn(&Range) -> u64| ranges.iter().map(|range| bigint(number(range))).collect::<Vec<_>>();
        // What is hidden from before a join is hidden also where it is not known whether it must be.
        let query = |pool| async move {
            sqlx::query(
                "SELECT t.conversation_id, t.seq, t.topic_shard, t.position, t.at, t.event, t.data::text, t.message_id,
                    t.sender_id, t.type,
                    CASE WHEN t.seq < w.joined AND c.history IS DISTINCT FROM 'all' THEN NULL ELSE t.content END,
                    t.reply_to, t.mentions
               FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                    AS w(conversation_id, after, upto, joined, row_limit)
               LEFT JOIN read.conversations c ON c.conversation_id = w.conversation_id
              CROSS JOIN LATERAL (
                    SELECT * FROM read.timeline l
                     WHERE l.conversation_id = w.conversation_id AND l.seq > w.after AND l.seq <= w.upto
                     ORDER BY l.seq LIMIT w.row_limit) t",
            )
            .bind(named)
            .bind(column(|range| range.after))
            .bind(column(|range| range.upto))
            .bind(column(|range| range.joined))
            .bind(column(|range| range.limit))
            .fetch_all(&pool)
            .await
        };
        let rows = self.reads.read(query).await?;
        let mut events = encode(&rows)?;
        events.sort_by_key(|event| (event.conversation_id, event.seq));
        let mut pages: Vec<Page> =
            ids.into_iter().map(|conversation_id| Page { conversation_id, events: Vec::new() }).collect();
        for event in events {
            if let Some(page) = pages.iter_mut().find(|page| page.conversation_id == event.conversation_id) {
                page.events.push(event);
            }
        }
        Ok(pages)
    }
}

/// All frames in one piece of memory, which goes when the last of them is acked.
fn encode(rows: &[PgRow]) -> Result<Vec<Event>, sqlx::Error> {
    let mut bytes = Vec::with_capacity(rows.len() * USUAL_BYTES);
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let begin = bytes.len();
        let (conversation_id, seq, about) = append(&mut bytes, row)?;
        parts.push((conversation_id, seq, about, begin..bytes.len()));
    }
    let bytes = Bytes::from(bytes);
    let event = |(conversation_id, seq, about, part)| Event {
        conversation_id,
        seq,
        about,
        frame: bytes.slice(part),
        push: None,
    };
    Ok(parts.into_iter().map(event).collect())
}

/// A message as [`schemas::Message`] writes it, its text still in the row.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "message_id")]
    id: Uuid,
    conversation_id: Uuid,
    seq: u64,
    sender_id: Uuid,
    r#type: &'a str,
    content: Option<&'a str>,
    file_ids: [Uuid; 0],
    reply_to: Option<Uuid>,
    mentions: Vec<Uuid>,
    #[serde(with = "schemas::rfc3339_ms")]
    created_at: OffsetDateTime,
    edited_at: Option<()>,
    deleted: bool,
}

/// Whom the event of a membership is about.
#[derive(Deserialize)]
struct Whom {
    user_id: Uuid,
}

fn append(bytes: &mut Vec<u8>, row: &PgRow) -> Result<(Uuid, u64, About), sqlx::Error> {
    let conversation_id: Uuid = row.try_get(0)?;
    let seq = count(row.try_get(1)?);
    let shard = u16::try_from(row.try_get::<i16, _>(2)?).unwrap_or_default();
    let place = Position { topic: Topic::Conversations, shard, position: count(row.try_get(3)?) };
    let at: OffsetDateTime = row.try_get(4)?;
    let event: Option<&str> = row.try_get(5)?;
    let head = EventHead { conversation_id, seq, place, at, event: event.unwrap_or(MESSAGE_SENT) };
    let Some(event) = event else {
        let message = Message {
            id: row.try_get(7)?,
            conversation_id,
            seq,
            sender_id: row.try_get(8)?,
            r#type: row.try_get(9)?,
            content: row.try_get(10)?,
            file_ids: [],
            reply_to: row.try_get(11)?,
            mentions: row.try_get::<Option<Vec<Uuid>>, _>(12)?.unwrap_or_default(),
            created_at: at,
            edited_at: None,
            deleted: false,
        };
        head.append(bytes, &message);
        return Ok((conversation_id, seq, About::Other));
    };
    let bad = |error: serde_json::Error| sqlx::Error::Decode(error.into());
    let data: &str = row.try_get(6)?;
    let whom = || serde_json::from_str::<Whom>(data).map(|whom| whom.user_id).map_err(bad);
    let about = match event {
        "conversation.created" => About::Created,
        "conversation.member_joined" => About::Joined(whom()?),
        "conversation.member_left" => About::Left(whom()?),
        _ => About::Other,
    };
    head.append(bytes, serde_json::from_str::<&RawValue>(data).map_err(bad)?);
    Ok((conversation_id, seq, about))
}
