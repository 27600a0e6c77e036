//! How fast a backlog is projected: `cargo run --release -p projectors --example backlog [RECORDS]`.
//!
//! Messages and receipts of 200 conversations wait in a log in memory; the read models stand in a PostgreSQL that keeps
//! what it answered. The same rows in bare inserts of the same size show what the machine gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use platform::applied::AppliedPositions;
use platform::bus::{Backfill, Bounds, BusError, InProcessBus};
use platform::live::InProcessLive;
use projectors::Parts;
use schemas::{
    Body, ConversationCreated, Event, History, InitialMember, Kind, Message, Numbered, Position, ReceiptMoved, Record,
    Role, Topic,
};
use sqlx::{Connection, PgConnection};
use testkit::Database;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SHARDS: u16 = 16;
const CONVERSATIONS: u64 = 200;
/// One record in so many is a receipt, as when two people talk and acks are coalesced.
const RECEIPTS: u64 = 4;
const BATCH: usize = 2000;
const BOUND: Duration = Duration::from_mins(5);

/// What waits, by shard.
struct Log(Vec<Vec<Arc<Record>>>);

#[async_trait]
impl Backfill for Log {
    async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let records = if topic == Topic::Conversations { &self.0[usize::from(shard)][..] } else { &[] };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(records.get(after..).unwrap_or_default().iter().take(limit).cloned().collect())
    }
}

impl Log {
    fn of(count: u64) -> Self {
        let mut shards = vec![Vec::new(); usize::from(SHARDS)];
        let mut heads = vec![0; usize::try_from(CONVERSATIONS).unwrap_or(0)];
        for number in 0..count {
            let conversation = number % CONVERSATIONS;
            let head = &mut heads[usize::try_from(conversation).unwrap_or(0)];
            let event = if *head > 1 && (number / CONVERSATIONS).is_multiple_of(RECEIPTS) {
                receipt(conversation, *head)
            } else {
                *head += 1;
                numbered(conversation, *head)
            };
            let shard = u16::try_from(conversation % u64::from(SHARDS)).unwrap_or(0);
            let records: &mut Vec<Arc<Record>> = &mut shards[usize::from(shard)];
            records.push(Arc::new(Record {
                topic: Topic::Conversations,
                shard,
                position: records.len() as u64 + 1,
                event_id: Uuid::now_v7(),
                key: id(conversation),
                at: OffsetDateTime::now_utc(),
                correlation: None,
                causation: None,
                trace: None,
                session: None,
                event,
            }));
        }
        Self(shards)
    }

    fn heads(&self) -> Vec<Position> {
        let head = |topic, shard| match topic {
            Topic::Conversations => self.0[usize::from(shard)].len() as u64,
            Topic::Users => 0,
        };
        let places = Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)));
        places.map(|(topic, shard)| Position { topic, shard, position: head(topic, shard) }).collect()
    }
}

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x0198_0000_0000_7000, number)
}

fn numbered(conversation: u64, seq: u64) -> Event {
    let (conversation_id, at) = (id(conversation), OffsetDateTime::now_utc());
    let body = if seq == 1 {
        let member = |user, role| InitialMember { user_id: id(user), role };
        let members = vec![member(1000 + conversation, Role::Owner), member(2000 + conversation, Role::Member)];
        let (kind, name, history, by) = (Kind::Group, None, History::All, id(1000 + conversation));
        Body::Created(ConversationCreated { kind, name, history, members, by })
    } else {
        Body::MessageSent(Box::new(Message {
            message_id: Uuid::now_v7(),
            conversation_id,
            seq,
            sender_id: id(1000 + conversation),
            kind: "text".to_owned(),
            content: Some(format!("The words of message {seq}, of the usual length: some eighty characters or more.")),
            file_ids: vec![],
            reply_to: None,
            mentions: vec![],
            created_at: at,
            edited_at: None,
            deleted: false,
        }))
    };
    Event::Numbered(Numbered { conversation_id, seq, at, body })
}

fn receipt(conversation: u64, up_to: u64) -> Event {
    Event::MessageDelivered(ReceiptMoved {
        conversation_id: id(conversation),
        user_id: id(2000 + conversation),
        device_id: None,
        up_to,
        delivered_to: up_to,
        read_to: 0,
        at: OffsetDateTime::now_utc(),
    })
}

/// As many rows of the size of a message, with one index, and nothing else.
async fn bare(connection: &mut PgConnection, count: usize) -> anyhow::Result<Duration> {
    sqlx::raw_sql("CREATE TABLE bare (id uuid PRIMARY KEY, at timestamptz NOT NULL, content text NOT NULL)")
        .execute(&mut *connection)
        .await?;
    let content = "The words of a message of the usual length: some eighty characters or a little more.";
    let began = Instant::now();
    for first in (0..count).step_by(BATCH) {
        let ids: Vec<Uuid> = (first..count.min(first + BATCH)).map(|_| Uuid::now_v7()).collect();
        let contents = vec![content; ids.len()];
        sqlx::query("INSERT INTO bare SELECT id, now(), content FROM unnest($1::uuid[], $2::text[]) AS u(id, content)")
            .bind(ids)
            .bind(contents)
            .execute(&mut *connection)
            .await?;
    }
    Ok(began.elapsed())
}

/// How long it took until every projection of every consumer had applied all.
async fn all_applied(connection: &mut PgConnection, heads: &[Position], began: Instant) -> anyhow::Result<Duration> {
    let total: u64 = heads.iter().map(|head| head.position).sum();
    loop {
        let least: Option<i64> = sqlx::query_scalar(
            "SELECT min(applied)::bigint FROM (SELECT sum(position) AS applied FROM read.checkpoints \
              WHERE topic = $1 GROUP BY projection) AS each",
        )
        .bind(Topic::Conversations.code())
        .fetch_one(&mut *connection)
        .await?;
        if least.is_some_and(|least| least.cast_unsigned() >= total) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < BOUND, "not applied by all within {BOUND:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let count = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse::<u64>()).context("RECORDS")?;
    let log = Arc::new(Log::of(count));
    let heads = log.heads();
    let database = Database::durable().await;
    let mut connection = PgConnection::connect(&database.url()).await?;
    let floor = bare(&mut connection, usize::try_from(count)?).await?;

    let (applied, stop) = (AppliedPositions::default(), CancellationToken::new());
    let parts = Parts {
        pool: database.pool().clone(),
        bus: Arc::new(InProcessBus::new(heads.clone(), log, Bounds::default())),
        applied: applied.clone(),
        live: Arc::new(InProcessLive::default()),
        marks: None,
        shards: SHARDS,
    };
    let began = Instant::now();
    let running = tokio::spawn(projectors::run(parts, stop.clone()));
    ensure!(applied.reached(&heads, BOUND).await, "not applied within {BOUND:?}");
    let took = began.elapsed();
    let all = all_applied(&mut connection, &heads, began).await?;
    stop.cancel();
    running.await?;

    let (stored, parked): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM read.timeline), (SELECT count(*) FROM read.parked)")
            .fetch_one(&mut connection)
            .await?;
    ensure!(parked == 0, "{parked} records were put aside");
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    println!("projected  {count} events ({stored} in the timeline) in {took:.2?}: {:.0} events/s", rate(took));
    println!("beside it  by the last of all consumers in {all:.2?}: {:.0} events/s", rate(all));
    println!("bare rows  {count} rows in {floor:.2?}: {:.0} rows/s", rate(floor));
    println!("ratio      {:.2}", rate(took) / rate(floor));
    Ok(())
}
