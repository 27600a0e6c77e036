//! How fast some projections alone apply a backlog: `cargo run --release -p projectors --example consumer [RECORDS] [NAME …]`.
//!
//! People talk in pairs and in groups of eight; what they say is delivered and read, each by an event of its own. It waits
//! in a log in memory, as read from a durable PostgreSQL's tables it goes into, in the batches that runners make. What is
//! said of the processor is its time, whoever else takes a share of it.

use std::collections::BTreeSet;
use std::fs;
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
use testkit::{Database, eventually};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SHARDS: u16 = 16;
const PAIRS: u64 = 2_000;
const GROUPS: u64 = 50;
/// One message in so many is said in a group.
const IN_GROUP: u64 = 10;
const GROUP: u64 = 8;
const BOUND: Duration = Duration::from_mins(10);
/// Of a tick of the kernel's accounts.
const TICKS_PER_S: f64 = 100.0;

/// What waits, by shard.
struct Log {
    shards: Vec<Vec<Arc<Record>>>,
    heads: Vec<u64>,
    clock: OffsetDateTime,
}

#[async_trait]
impl Backfill for Log {
    async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let records = if topic == Topic::Conversations { &self.shards[usize::from(shard)][..] } else { &[] };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(records.get(after..).unwrap_or_default().iter().take(limit).cloned().collect())
    }
}

impl Log {
    fn of(count: usize) -> Self {
        let conversations = usize::try_from(PAIRS + GROUPS).unwrap_or(0);
        let shards = vec![Vec::new(); usize::from(SHARDS)];
        let clock = OffsetDateTime::UNIX_EPOCH + Duration::from_hours(480_000);
        let mut log = Self { shards, heads: vec![0; conversations], clock };
        for conversation in 0..PAIRS + GROUPS {
            let members =
                (0..size(conversation)).map(|n| InitialMember { user_id: member(conversation, n), role: Role::Owner });
            let (kind, name, history, by) = (Kind::Group, None, History::All, member(conversation, 0));
            let members = members.collect();
            log.numbered(conversation, Body::Created(ConversationCreated { kind, name, history, members, by }));
        }
        let mut said = 0_u64;
        while log.len() < count {
            // Knuth's multiplier, for an order that is none and always the same.
            let dice = said.wrapping_mul(6_364_136_223_846_793_005) >> 33;
            let conversation = if said.is_multiple_of(IN_GROUP) { PAIRS + dice % GROUPS } else { dice % PAIRS };
            log.talk(conversation, dice);
            said += 1;
        }
        log
    }

    fn len(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }

    fn heads(&self) -> Vec<Position> {
        let head = |topic, shard| match topic {
            Topic::Conversations => self.shards[usize::from(shard)].len() as u64,
            Topic::Users => 0,
        };
        let places = Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)));
        places.map(|(topic, shard)| Position { topic, shard, position: head(topic, shard) }).collect()
    }

    /// Somebody says something, and all others get it and read it.
    fn talk(&mut self, conversation: u64, dice: u64) {
        let sender = (dice >> 16) % size(conversation);
        let seq = self.head(conversation) + 1;
        self.clock += Duration::from_millis(1 + dice % 7);
        let message = Message {
            message_id: id(dice),
            conversation_id: id(conversation),
            seq,
            sender_id: member(conversation, sender),
            kind: "text".to_owned(),
            content: Some(
                "The words of a message of the usual length: some eighty characters or a little more.".to_owned(),
            ),
            file_ids: vec![],
            reply_to: None,
            mentions: vec![],
            created_at: self.clock,
            edited_at: None,
            deleted: false,
        };
        self.numbered(conversation, Body::MessageSent(Box::new(message)));
        for read in [false, true] {
            for other in (0..size(conversation)).filter(|other| *other != sender) {
                self.receipt(conversation, member(conversation, other), seq, read);
            }
        }
    }

    fn head(&mut self, conversation: u64) -> u64 {
        self.heads[usize::try_from(conversation).unwrap_or(0)]
    }

    fn numbered(&mut self, conversation: u64, body: Body) {
        let head = &mut self.heads[usize::try_from(conversation).unwrap_or(0)];
        *head += 1;
        let numbered = Numbered { conversation_id: id(conversation), seq: *head, at: self.clock, body };
        self.append(conversation, self.clock, Event::Numbered(numbered));
    }

    fn receipt(&mut self, conversation: u64, user_id: Uuid, up_to: u64, read: bool) {
        let at = self.clock + Duration::from_millis(if read { 100 + up_to * 97 % 20_000 } else { up_to * 13 % 300 });
        let (conversation_id, delivered_to, read_to) = (id(conversation), up_to, if read { up_to } else { 0 });
        let moved = ReceiptMoved { conversation_id, user_id, device_id: None, up_to, delivered_to, read_to, at };
        self.append(conversation, at, if read { Event::MessageRead(moved) } else { Event::MessageDelivered(moved) });
    }

    fn append(&mut self, conversation: u64, at: OffsetDateTime, event: Event) {
        let shard = u16::try_from(conversation % u64::from(SHARDS)).unwrap_or(0);
        let records = &mut self.shards[usize::from(shard)];
        records.push(Arc::new(Record {
            topic: Topic::Conversations,
            shard,
            position: records.len() as u64 + 1,
            event_id: Uuid::now_v7(),
            key: id(conversation),
            at,
            correlation: None,
            causation: None,
            trace: None,
            session: None,
            event,
        }));
    }
}

fn size(conversation: u64) -> u64 {
    if conversation < PAIRS { 2 } else { GROUP }
}

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x0198_0000_0000_7000, number)
}

fn member(conversation: u64, number: u64) -> Uuid {
    id(1_000_000 + conversation * GROUP + number)
}

/// What processes have taken of the processor: this one, and PostgreSQL's with those that have ended.
struct Taken {
    own_s: f64,
    postgres_s: f64,
}

impl Taken {
    /// Up to now; `backend` is a process of the server.
    fn now(backend: i32) -> anyhow::Result<Self> {
        let server = stat(&backend.to_string())?.parent;
        let mut postgres = 0.0;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // A process may end while it is looked at.
            let Ok(stat) = stat(&name) else { continue };
            if name == server {
                postgres += stat.ticks + stat.children_ticks;
            } else if stat.parent == server {
                postgres += stat.ticks;
            }
        }
        Ok(Self { own_s: stat("self")?.ticks / TICKS_PER_S, postgres_s: postgres / TICKS_PER_S })
    }
}

struct Stat {
    parent: String,
    ticks: f64,
    children_ticks: f64,
}

fn stat(process: &str) -> anyhow::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, after_name) = text.rsplit_once(')').context("a process has a name")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).context("a number");
    let parent = fields.get(1).context("a process has a parent")?;
    Ok(Stat {
        parent: (*parent).to_owned(),
        ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(300_000), |count| count.parse::<usize>()).context("RECORDS")?;
    let mut names: BTreeSet<String> = arguments.collect();
    if names.is_empty() {
        names.insert("analytics".to_owned());
    }
    let all = projectors::list();
    ensure!(names.iter().all(|name| all.iter().any(|one| one.name == name)), "a projection of no such name");
    let log = Arc::new(Log::of(count));
    let (heads, count) = (log.heads(), log.len());
    let database = Database::durable().await;
    let mut connection = PgConnection::connect(&database.url()).await?;
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
    // The others have nothing to do.
    let (topics, shards, positions): (Vec<i16>, Vec<i16>, Vec<i64>) =
        heads.iter().map(|at| (at.topic.code(), at.shard.cast_signed(), at.position.cast_signed())).collect();
    let others: Vec<&str> = all.iter().map(|one| one.name).filter(|name| !names.contains(*name)).collect();
    sqlx::query(
        "INSERT INTO read.checkpoints (projection, topic, shard, position) \
         SELECT name, topic, shard, position \
           FROM unnest($1::text[]) AS name, unnest($2::smallint[], $3::smallint[], $4::bigint[]) AS u(topic, shard, position)",
    )
    .bind(others)
    .bind(topics)
    .bind(shards)
    .bind(positions)
    .execute(&mut connection)
    .await?;

    let stop = CancellationToken::new();
    let parts = Parts {
        pool: database.pool().clone(),
        bus: Arc::new(InProcessBus::new(heads, log, Bounds::default())),
        applied: AppliedPositions::default(),
        live: Arc::new(InProcessLive::default()),
        marks: None,
        shards: SHARDS,
    };
    let (began, before) = (Instant::now(), Taken::now(backend)?);
    let running = tokio::spawn(projectors::run(parts, stop.clone()));
    let wanted = i64::try_from(count * names.len())?;
    let names: Vec<String> = names.into_iter().collect();
    let reached = tokio::sync::Mutex::new(connection);
    eventually("the backlog is applied", BOUND, async || {
        sqlx::query_scalar::<_, i64>(
            "SELECT coalesce(sum(position), 0)::bigint FROM read.checkpoints WHERE projection = ANY($1) AND topic = 1",
        )
        .bind(&names)
        .fetch_one(&mut *reached.lock().await)
        .await
        .is_ok_and(|reached| reached == wanted)
    })
    .await;
    let (took, after) = (began.elapsed(), Taken::now(backend)?);
    stop.cancel();
    running.await?;

    let mut connection = reached.into_inner();
    let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM read.parked").fetch_one(&mut connection).await?;
    ensure!(parked == 0, "{parked} records were put aside");
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let count = count as f64;
    let us = |before: f64, after: f64| (after - before) / count * 1e6;
    println!("{}: {count} events in {took:.2?}: {:.0} events/s", names.join(", "), count / took.as_secs_f64());
    println!(
        "processor: {:.1} us an event here, {:.1} us in PostgreSQL",
        us(before.own_s, after.own_s),
        us(before.postgres_s, after.postgres_s)
    );
    let sizes: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT relname::text, pg_total_relation_size(oid), (SELECT n_live_tup FROM pg_stat_all_tables WHERE relid = c.oid) \
           FROM pg_class c WHERE relnamespace = 'read'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 65536 \
          ORDER BY 2 DESC",
    )
    .fetch_all(&mut connection)
    .await?;
    for (table, bytes, rows) in sizes {
        println!("{table}: {} kB, {rows} rows", bytes / 1024);
    }
    Ok(())
}
