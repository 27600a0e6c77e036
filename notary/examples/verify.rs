//! How long it takes to verify a log by itself and by what was signed of it, beside PostgreSQL's own binary COPY of the same
//! rows, and in how much memory: `cargo run --release -p notary --example verify [EVENTS]`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use domain::kernel::LogTopic;
use domain::message::{Message, Sent};
use event_store::{Command, Context, EventStore, Log, Reads, Workspace};
use futures::TryStreamExt;
use notary::{FileLedger, Notary, Options, SigningKey, Sources, check};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use testkit::Database;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: usize = 200;
const AT_ONCE: usize = 2_000;
const ROUNDS: usize = 5;

/// Somebody says something of the usual length.
struct Say {
    conversation: Uuid,
    id: Uuid,
}

impl Command for Say {
    type Output = ();
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

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), ()> {
        let content = "The words of a message of the usual length: some eighty characters or a little more.".to_owned();
        let sent =
            Sent { sender_id: self.conversation, kind: "text".to_owned(), content, reply_to: None, mentions: vec![] };
        work.emit_numbered::<Message>(self.id, domain::message::MessageEvent::Sent(sent));
        Ok(())
    }
}

async fn fill(pool: &PgPool, count: usize) -> Result<()> {
    let store = EventStore::open(pool.clone(), event_store::Options::default()).await?;
    let conversations: Vec<Uuid> = (0..CONVERSATIONS).map(|_| Uuid::now_v7()).collect();
    let mut under_way: JoinSet<Result<(), ()>> = JoinSet::new();
    for number in 0..count {
        if under_way.len() >= AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            ensure!(done?.is_ok(), "the log refused an event");
        }
        let (store, conversation) = (store.clone(), conversations[number % CONVERSATIONS]);
        let context = Context { session_id: Some(conversation), ..Context::default() };
        under_way.spawn(async move {
            store.execute(Say { conversation, id: Uuid::now_v7() }, context).await.map(drop).map_err(|_| ())
        });
    }
    while let Some(done) = under_way.join_next().await {
        ensure!(done?.is_ok(), "the log refused an event");
    }
    store.close().await;
    Ok(())
}

/// In a process of its own, so that its memory is what verifying takes.
async fn verify(url: &str, folder: &str) -> Result<()> {
    let pool = PgPoolOptions::new().max_connections(2).connect(url).await?;
    let log = Log::open(pool.clone()).await?;
    let folder = std::path::Path::new(folder);
    let key = SigningKey::read(&folder.join("key"))?;
    let mut sources = Sources::new(pool);
    sources.add(FileLedger::read(&folder.join("heads"))?);
    let began = Instant::now();
    let checked = check(&log, sources, &[key.public()]).await?;
    let took = began.elapsed();
    ensure!(checked.is_sound(), "{:?}", checked.findings);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("Linux")?.trim();
    println!("{} {} {} {peak}", took.as_secs_f64(), checked.log.events(), checked.statements);
    Ok(())
}

async fn copy(url: &str) -> Result<Duration> {
    // The driver's own settings are none that psql knows.
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    let began = Instant::now();
    let status = tokio::process::Command::new("psql")
        .args([url, "-qc", "COPY log.events TO STDOUT (FORMAT binary)"])
        .stdout(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "psql");
    Ok(began.elapsed())
}

/// The same through the driver that verifying uses, thrown away as it comes.
async fn drain(url: &str) -> Result<Duration> {
    let mut connection = PgConnection::connect(url).await?;
    let began = Instant::now();
    let mut chunks = connection.copy_out_raw("COPY log.events TO STDOUT (FORMAT binary)").await?;
    let mut bytes = 0;
    while let Some(chunk) = chunks.try_next().await? {
        bytes += chunk.len();
    }
    ensure!(bytes > 0, "nothing was read");
    Ok(began.elapsed())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[tokio::main]
#[expect(clippy::cast_precision_loss, reason = "a rate")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, url, folder] = &arguments[..]
        && verb == "--verify"
    {
        return verify(url, folder).await;
    }
    let count = arguments.first().map_or(Ok(500_000), |count| count.parse()).context("EVENTS")?;
    let (database, folder) = (Database::durable().await, tempfile::tempdir()?);
    fill(database.pool(), count).await?;
    sqlx::query("VACUUM (ANALYZE) log.events").execute(database.pool()).await?;
    let (path, log) = (folder.path().to_string_lossy().into_owned(), Log::open(database.pool().clone()).await?);
    let key = SigningKey::read_or_make(&folder.path().join("key"))?;
    // As many statements as a busy log gets.
    let options = Options { most: 1_000, look: Duration::from_millis(1), ..Options::default() };
    let notary = Notary::new(log, database.pool().clone(), key, &[], options);
    let notary = notary.keeping(FileLedger::open(&folder.path().join("heads"))?);
    let (stop, status) = (CancellationToken::new(), notary.status());
    let (_seat, held) = tokio::sync::watch::channel([Notary::seat()].into_iter().collect());
    let began = Instant::now();
    let running = tokio::spawn(notary.run(held, stop.clone()));
    while !status.check().is_ok_and(|status| status.starts_with("signs")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let signing = began.elapsed();
    stop.cancel();
    running.await?;

    let (url, mut times) = (database.url(), [const { Vec::new() }; 3]);
    let mut told = String::new();
    for _ in 0..ROUNDS {
        times[0].push(copy(&url).await?.as_secs_f64());
        times[1].push(drain(&url).await?.as_secs_f64());
        let output = tokio::process::Command::new(std::env::current_exe()?)
            .args(["--verify", &url, &path])
            .stderr(Stdio::inherit())
            .output()
            .await?;
        ensure!(output.status.success(), "verifying failed");
        told = String::from_utf8(output.stdout)?;
        times[2].push(told.split(' ').next().context("a time")?.parse()?);
    }
    let [copied, drained, verified] = times.map(median);
    let mut told = told.trim().splitn(4, ' ').skip(1);
    let mut next = || told.next().unwrap_or_default();
    println!("{} events, {} statements; peak memory of verifying {}", next(), next(), next());
    println!("signed     in {:.2} s: {:.0} events/s", signing.as_secs_f64(), count as f64 / signing.as_secs_f64());
    println!("COPY       {copied:.3} s by psql, {drained:.3} s by the driver");
    println!("verified   in {verified:.3} s: {:.2} times COPY by psql", verified / copied);
    Ok(())
}
