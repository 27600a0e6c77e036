//! What an append costs, beside the least that PostgreSQL asks for the same number of rows; and what verifying costs,
//! beside reading the table. Prints figures of this machine: `cargo run --release -p event-store --example append_throughput`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use domain::kernel::{LogTopic, Payload, Stored};
use event_store::{Command, Context, EventStore, Options, Reads, Workspace};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, PgPool};
use testkit::Database;
use uuid::Uuid;

const FOR: Duration = Duration::from_secs(4);
const KEYS: usize = 50;

/// A message's event, by its size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Said {
    sender_id: Uuid,
    r#type: String,
    content: String,
}

impl DomainEvent for Said {
    fn event_type(&self) -> String {
        self.type_name().to_owned()
    }
    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Payload for Said {
    fn type_name(&self) -> &'static str {
        "message.sent"
    }
    fn version(&self) -> i16 {
        1
    }
    fn encode(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
    fn decode(_: &str, json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }
    fn current_version(_: &str) -> Option<i16> {
        Some(1)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Message(Option<String>);

impl Aggregate for Message {
    const TYPE: &'static str = "message";
    type Command = Said;
    type Event = Said;
    type Error = std::convert::Infallible;
    type Services = ();

    async fn handle(&mut self, said: Said, (): &(), sink: &EventSink<Self>) -> Result<(), Self::Error> {
        sink.write(said, self).await;
        Ok(())
    }

    fn apply(&mut self, said: Said) {
        self.0 = Some(said.content);
    }
}

impl Stored for Message {
    const CODE: i16 = 4;
    const TOPIC: LogTopic = LogTopic::Conversations;
}

struct Say {
    conversation: Uuid,
    id: Uuid,
    said: Said,
}

impl Command for Say {
    type Output = u64;
    type Refusal = ();

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }
    fn key(&self) -> Uuid {
        self.conversation
    }
    fn reads(&self, reads: &mut Reads) {
        reads.fresh::<Message>(self.id);
    }
    fn decide(&self, work: &mut Workspace<'_>) -> Result<u64, ()> {
        Ok(work.emit_numbered::<Message>(self.id, self.said.clone()).position)
    }
}

/// Time on a processor of a process, all threads: what the kernel counts in nanoseconds.
fn processor_time(pid: &str) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(what: &str, rows: u64, elapsed: Duration, server: Duration, own: Duration) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / rows as f64;
    println!(
        "{what:<44} {:>9.0} rows/s  PostgreSQL {:>5.1} us/row  own {:>5.1} us/row",
        rows as f64 / elapsed.as_secs_f64(),
        micros(server),
        micros(own)
    );
}

/// Commits of so many bare rows from one client.
async fn floor(pool: &PgPool, batch: usize) -> Result<()> {
    let mut connection: PgConnection = pool.acquire().await?.detach();
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS public.floor; CREATE TABLE public.floor (id bigint PRIMARY KEY, body text NOT NULL)",
    )
    .execute(&mut connection)
    .await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
    let body = "x".repeat(200);
    let (began, server, own) = (Instant::now(), processor_time(&pid.to_string())?, processor_time("self")?);
    let mut rows = 0_i64;
    let size = i64::try_from(batch)?;
    while began.elapsed() < FOR {
        sqlx::query("INSERT INTO public.floor SELECT * FROM unnest($1::bigint[], $2::text[])")
            .bind((rows..rows + size).collect::<Vec<_>>())
            .bind(vec![body.as_str(); batch])
            .execute(&mut connection)
            .await?;
        rows += size;
    }
    let elapsed = began.elapsed();
    let server = processor_time(&pid.to_string())?.saturating_sub(server);
    let own = processor_time("self")?.saturating_sub(own);
    report(&format!("floor: commits of {batch} bare rows"), u64::try_from(rows)?, elapsed, server, own);
    connection.close().await?;
    Ok(())
}

/// So many senders, each waiting for its answer before it says the next.
async fn appends(pool: &PgPool, store: &EventStore, senders: usize) -> Result<()> {
    let keys: Arc<[Uuid]> = (0..KEYS).map(|_| Uuid::now_v7()).collect();
    let lane = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'parlance lane%'";
    let say = |conversation| Say {
        conversation,
        id: Uuid::now_v7(),
        said: Said { sender_id: Uuid::now_v7(), r#type: "text".into(), content: "x".repeat(200) },
    };
    for key in &*keys {
        store.execute(say(*key), Context::default()).await?;
    }
    let pid = sqlx::query_scalar::<_, i32>(lane).fetch_one(pool).await?.to_string();
    let (began, server, own) = (Instant::now(), processor_time(&pid)?, processor_time("self")?);
    let batches = Arc::new(AtomicU64::new(0));
    let mut committed = store.committed();
    let counting = tokio::spawn({
        let batches = Arc::clone(&batches);
        async move {
            while committed.next().await.is_some() {
                batches.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let sending = (0..senders).map(|sender| {
        let (store, keys) = (store.clone(), Arc::clone(&keys));
        tokio::spawn(async move {
            let mut said = 0_u64;
            while began.elapsed() < FOR {
                let answer = store.execute(say(keys[sender % keys.len()]), Context::default()).await;
                said += u64::from(answer.is_ok());
            }
            said
        })
    });
    let mut rows = 0;
    for said in futures::future::join_all(sending).await {
        rows += said?;
    }
    let elapsed = began.elapsed();
    let server = processor_time(&pid)?.saturating_sub(server);
    let own = processor_time("self")?.saturating_sub(own);
    counting.abort();
    let size = rows / batches.load(Ordering::Relaxed).max(1);
    report(&format!("append: {senders} senders, {size} events a commit"), rows, elapsed, server, own);
    Ok(())
}

async fn verify(pool: &PgPool, store: &EventStore) -> Result<()> {
    let (began, own) = (Instant::now(), processor_time("self")?);
    let mut connection = pool.acquire().await?.detach();
    let mut chunks = connection.copy_out_raw("COPY log.events TO STDOUT (FORMAT binary)").await?;
    while chunks.try_next().await?.is_some() {}
    drop(chunks);
    let (read, reading) = (began.elapsed(), processor_time("self")?.saturating_sub(own));
    let (began, own) = (Instant::now(), processor_time("self")?);
    let verification = store.log().verify().await?;
    let (verified, verifying) = (began.elapsed(), processor_time("self")?.saturating_sub(own));
    anyhow::ensure!(verification.is_sound(), "the log is not sound");
    println!(
        "verify: {} events in {verified:.2?} (own {verifying:.2?}), a binary COPY of them {read:.2?} (own {reading:.2?}): {:.2}x",
        verification.events(),
        verified.as_secs_f64() / read.as_secs_f64()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = Database::durable().await;
    let pool = database.pool();
    let store = EventStore::open(pool.clone(), Options { lanes: 1, ..Options::default() }).await?;
    for _ in 0..2 {
        floor(pool, 1).await?;
        floor(pool, 100).await?;
        floor(pool, 200).await?;
        for senders in [1, 100, 200, 400] {
            appends(pool, &store, senders).await?;
        }
    }
    verify(pool, &store).await?;
    verify(pool, &store).await?;
    store.close().await;
    Ok(())
}
