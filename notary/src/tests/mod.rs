//! A log that is signed, and what a forger may do to it and to what was signed.

mod forgeries;
mod late;
mod place;
mod signing;

use std::path::PathBuf;
use std::time::Duration;

use domain::conversation::{Conversation, ConversationEvent, Renamed};
use domain::kernel::LogTopic;
use event_store::{Command, Context, EventStore, Log, Reads, ShardHead, Workspace};
use platform::leases::Held;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;
use testkit::{Database, eventually};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::signer::SEAT;
use crate::{Checked, FileLedger, Notary, Options, SigningKey, Sources, Status, check};

const BOUND: Duration = Duration::from_mins(1);

/// Anything happens in a conversation.
struct Happens(Uuid);

impl Command for Happens {
    type Output = ();
    type Refusal = ();

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.0
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Conversation>(self.0);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), ()> {
        let renamed = Renamed { name: "secret".to_owned(), by: self.0 };
        work.emit::<Conversation>(self.0, ConversationEvent::Renamed(renamed));
        Ok(())
    }
}

/// A database with a log, a key and a file outside it.
pub(super) struct World {
    pub(super) database: Database,
    pub(super) store: EventStore,
    pub(super) folder: TempDir,
}

/// A process that signs, or would.
pub(super) struct Signer {
    pub(super) status: Status,
    pub(super) seat: watch::Sender<Held>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Signer {
    pub(super) fn begin(notary: Notary, leads: bool) -> Self {
        let (status, stop) = (notary.status(), CancellationToken::new());
        let (seat, held) = watch::channel(leads.then_some(SEAT).into_iter().collect());
        let running = tokio::spawn(notary.run(held, stop.clone()));
        Self { status, seat, stop, running }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let database = Database::new().await;
        let store = Self::open(&database).await;
        Self { database, store, folder: tempfile::tempdir().unwrap() }
    }

    async fn open(database: &Database) -> EventStore {
        let options = event_store::Options { shards: 4, lanes: 1, ..event_store::Options::default() };
        EventStore::open(database.pool().clone(), options).await.unwrap()
    }

    /// Forgets what it knew of the log.
    pub(super) async fn start_again(&mut self) {
        self.store.close().await;
        self.store = Self::open(&self.database).await;
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("heads.jsonl")
    }

    pub(super) fn key(&self) -> SigningKey {
        SigningKey::read_or_make(&self.folder.path().join("key")).unwrap()
    }

    /// So many events, in as many conversations.
    pub(super) async fn happen(&self, count: usize) {
        for _ in 0..count {
            self.store.execute(Happens(Uuid::now_v7()), Context::default()).await.map_err(|_| "refused").unwrap();
        }
    }

    pub(super) fn sign(&self, leads: bool) -> Signer {
        self.sign_as(leads, Options { look: Duration::from_millis(10), ..Options::default() }, "heads.jsonl")
    }

    pub(super) fn sign_as(&self, leads: bool, options: Options, file: &str) -> Signer {
        let ledger = FileLedger::open(&self.folder.path().join(file)).unwrap();
        Signer::begin(self.notary(options).keeping(ledger), leads)
    }

    pub(super) fn notary(&self, options: Options) -> Notary {
        Notary::new(self.log().clone(), self.database.pool().clone(), self.key(), &[], options)
    }

    /// So many events, and a statement on them.
    pub(super) async fn signed(&self, counts: &[usize]) {
        for count in counts {
            self.happen(*count).await;
            let before = self.statements().await;
            let signer = self.sign(true);
            eventually("it is signed", BOUND, async || self.statements().await > before).await;
            signer.stop().await;
        }
    }

    pub(super) fn log(&self) -> &Log {
        self.store.log()
    }

    /// The statements of the database, each as it stands there.
    pub(super) async fn lines(&self) -> Vec<String> {
        let lines = "SELECT statement FROM state.audit_heads ORDER BY number";
        sqlx::query_scalar(lines).fetch_all(self.database.pool()).await.unwrap()
    }

    pub(super) async fn statements(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM state.audit_heads").fetch_one(self.database.pool()).await.unwrap()
    }

    pub(super) async fn check(&self) -> Checked {
        let mut sources = Sources::new(self.database.pool().clone());
        // Nobody writes to the file meanwhile.
        sources.patience = Duration::ZERO;
        if self.file().exists() {
            sources.add(FileLedger::read(&self.file()).unwrap());
        }
        check(self.log(), sources, &[self.key().public()]).await.unwrap()
    }

    /// What is named as wrong.
    pub(super) async fn found(&self) -> Vec<String> {
        let checked = self.check().await;
        assert_eq!(checked.is_sound(), checked.findings.is_empty());
        checked.findings.into_iter().map(|finding| finding.position.unwrap_or_default()).collect()
    }

    pub(super) async fn longest(&self) -> ShardHead {
        self.log().heads().await.unwrap().into_iter().max_by_key(|shard| shard.head).unwrap()
    }

    pub(super) async fn sql(&self, sql: String) {
        self.database.pool().execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
}
