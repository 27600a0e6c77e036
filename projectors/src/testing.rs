//! What the tests of projections share: a log in memory, events, a bench for one projection, processes that project.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use platform::applied::AppliedPositions;
use platform::bus::{Backfill, Bounds, Bus, BusError, InProcessBus};
use platform::live::{InProcessLive, LiveBus};
use schemas::{
    AuditFilters, AuditRead, Body, ConversationCreated, ConversationRenamed, Event, History, InitialMember, Kind,
    MemberJoined, MemberLeft, MemberRoleChanged, Message, Numbered, Position, ReceiptMoved, Record, Role,
    SessionChanged, SettingsChanged, Topic, UserProfileChanged, UserRegistered, UserRole, UserRoleChanged,
};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool};
use testkit::{Database, eventually};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::database::connect;
use crate::projection::Projection;
use crate::registry::PROJECTIONS;

pub(crate) const SHARDS: u16 = 4;

pub(crate) fn ann() -> Uuid {
    Uuid::from_u128(1)
}

pub(crate) fn ben() -> Uuid {
    Uuid::from_u128(2)
}

pub(crate) fn cleo() -> Uuid {
    Uuid::from_u128(3)
}

thread_local! {
    /// Milliseconds since 1970, as events have it; one test's time passes for no other.
    static CLOCK: Cell<i64> = const { Cell::new(1_700_000_000_000) };
}

/// Each millisecond but once.
fn now() -> OffsetDateTime {
    pass(Duration::milliseconds(1));
    OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(CLOCK.get())
}

/// Lets time pass in events.
pub(crate) fn pass(time: Duration) {
    CLOCK.set(CLOCK.get() + i64::try_from(time.whole_milliseconds()).unwrap());
}

/// An event and its ordering key.
pub(crate) type Keyed = (Uuid, Event);

pub(crate) fn registered(user: u128, username: &str) -> Keyed {
    let user_id = Uuid::from_u128(user);
    let (username, email) = (Some(username.to_owned()), Some(format!("{username}@example.org")));
    (user_id, Event::UserRegistered(UserRegistered { user_id, username, display_name: None, email, at: now() }))
}

pub(crate) fn profile(user: u128, name: &str) -> Keyed {
    let user_id = Uuid::from_u128(user);
    let display_name = Some(name.to_owned());
    (user_id, Event::UserProfileChanged(UserProfileChanged { user_id, display_name, avatar_file_id: None, at: now() }))
}

pub(crate) fn role(user: u128, granted: bool) -> Keyed {
    let user_id = Uuid::from_u128(user);
    let changed = UserRoleChanged { user_id, role: UserRole::Operator, at: now() };
    (user_id, if granted { Event::UserRoleGranted(changed) } else { Event::UserRoleRevoked(changed) })
}

/// A reading of the audit.
pub(crate) fn reading(user: u128) -> Keyed {
    let user_id = Uuid::from_u128(user);
    (user_id, Event::AuditRead(AuditRead { user_id, filters: AuditFilters::default(), at: now() }))
}

pub(crate) fn session(user: u128, session: u128, what: fn(SessionChanged) -> Event) -> Keyed {
    let user_id = Uuid::from_u128(user);
    let changed = SessionChanged {
        user_id,
        session_id: Uuid::from_u128(session),
        device_id: Uuid::from_u128(session + 100),
        device_name: Some("phone".to_owned()),
        address: Some("10.0.0.1".to_owned()),
        user_agent: Some("phone/1".to_owned()),
        at: now(),
    };
    (user_id, what(changed))
}

/// A conversation that numbers its events.
pub(crate) struct Room {
    pub(crate) id: Uuid,
    pub(crate) seq: u64,
}

impl Room {
    pub(crate) fn new(id: u128) -> Self {
        Self { id: Uuid::from_u128(id), seq: 0 }
    }

    fn numbered(&mut self, body: Body) -> Keyed {
        self.seq += 1;
        (self.id, Event::Numbered(Numbered { conversation_id: self.id, seq: self.seq, at: now(), body }))
    }

    pub(crate) fn created(&mut self, members: &[(Uuid, Role)]) -> Keyed {
        let members = members.iter().map(|&(user_id, role)| InitialMember { user_id, role }).collect();
        let (kind, name, history, by) = (Kind::Group, None, History::All, ann());
        self.numbered(Body::Created(ConversationCreated { kind, name, history, members, by }))
    }

    pub(crate) fn renamed(&mut self, name: &str) -> Keyed {
        self.numbered(Body::Renamed(ConversationRenamed { name: name.to_owned(), by: ann() }))
    }

    pub(crate) fn history(&mut self, history: History) -> Keyed {
        self.numbered(Body::SettingsChanged(SettingsChanged { history, by: ann() }))
    }

    pub(crate) fn joined(&mut self, user_id: Uuid, role: Role) -> Keyed {
        self.numbered(Body::MemberJoined(MemberJoined { user_id, role, by: ann() }))
    }

    pub(crate) fn left(&mut self, user_id: Uuid) -> Keyed {
        self.numbered(Body::MemberLeft(MemberLeft { user_id, by: user_id }))
    }

    pub(crate) fn role(&mut self, user_id: Uuid, role: Role) -> Keyed {
        self.numbered(Body::MemberRoleChanged(MemberRoleChanged { user_id, role, by: ann() }))
    }

    pub(crate) fn said(&mut self, sender_id: Uuid) -> Keyed {
        self.said_with(sender_id, |_| {})
    }

    pub(crate) fn said_with(&mut self, sender_id: Uuid, change: impl FnOnce(&mut Message)) -> Keyed {
        let seq = self.seq + 1;
        let mut message = Message {
            message_id: Uuid::from_u64_pair(self.id.as_u64_pair().1, seq),
            conversation_id: self.id,
            seq,
            sender_id,
            kind: "text".to_owned(),
            content: Some(format!("word {seq}")),
            file_ids: vec![],
            reply_to: None,
            mentions: vec![],
            created_at: now(),
            edited_at: None,
            deleted: false,
        };
        change(&mut message);
        self.numbered(Body::MessageSent(Box::new(message)))
    }

    fn moved(&self, user_id: Uuid, up_to: u64, delivered_to: u64, read_to: u64) -> ReceiptMoved {
        ReceiptMoved { conversation_id: self.id, user_id, device_id: None, up_to, delivered_to, read_to, at: now() }
    }

    pub(crate) fn delivered(&self, user_id: Uuid, delivered_to: u64, read_to: u64) -> Keyed {
        (self.id, Event::MessageDelivered(self.moved(user_id, delivered_to, delivered_to, read_to)))
    }

    pub(crate) fn read(&self, user_id: Uuid, delivered_to: u64, read_to: u64) -> Keyed {
        (self.id, Event::MessageRead(self.moved(user_id, read_to, delivered_to, read_to)))
    }
}

/// A log in memory, which a bus can stand on.
#[derive(Default)]
pub(crate) struct MemoryLog(Mutex<Shards>);

type Shards = HashMap<(Topic, u16), Vec<Arc<Record>>>;

impl MemoryLog {
    pub(crate) fn append(&self, (key, event): Keyed) -> Arc<Record> {
        let topic = event.topic();
        let shard = u16::try_from(key.as_u128() % u128::from(SHARDS)).unwrap();
        let mut shards = self.0.lock();
        let records = shards.entry((topic, shard)).or_default();
        let data = event.data().unwrap();
        let at = OffsetDateTime::parse(data["at"].as_str().unwrap(), &Rfc3339).unwrap();
        let record = Arc::new(Record {
            topic,
            shard,
            position: records.len() as u64 + 1,
            event_id: Uuid::now_v7(),
            key,
            at,
            correlation: None,
            causation: None,
            trace: None,
            session: None,
            event,
        });
        records.push(Arc::clone(&record));
        record
    }

    pub(crate) fn heads(&self) -> Vec<Position> {
        let shards = self.0.lock();
        let all = Topic::ALL.into_iter().flat_map(|topic| (0..SHARDS).map(move |shard| (topic, shard)));
        let position = |place| shards.get(&place).map_or(0, |records| records.len() as u64);
        all.map(|(topic, shard)| Position { topic, shard, position: position((topic, shard)) }).collect()
    }
}

#[async_trait]
impl Backfill for MemoryLog {
    async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
        tokio::task::yield_now().await;
        let shards = self.0.lock();
        let after = usize::try_from(after).unwrap();
        let records = shards.get(&(topic, shard)).map_or(&[][..], |records| records.get(after..).unwrap_or_default());
        Ok(records.iter().take(limit).cloned().collect())
    }
}

/// A log and a bus on it.
pub(crate) struct World {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) bus: Arc<InProcessBus>,
}

impl World {
    pub(crate) fn new() -> Self {
        let log = Arc::new(MemoryLog::default());
        let bounds = Bounds { records: 500, ..Bounds::default() };
        Self { bus: Arc::new(InProcessBus::new(log.heads(), Arc::clone(&log) as _, bounds)), log }
    }

    pub(crate) async fn append(&self, event: Keyed) -> Arc<Record> {
        let record = self.log.append(event);
        self.bus.publish(&[Arc::clone(&record)]).await.unwrap();
        record
    }
}

/// A process that projects.
pub(crate) struct Member {
    pub(crate) applied: AppliedPositions,
    stop: DropGuard,
    running: JoinHandle<()>,
}

impl Member {
    pub(crate) fn start(world: &World, pool: &PgPool) -> Self {
        Self::telling(world, pool, Arc::new(InProcessLive::default()))
    }

    pub(crate) fn telling(world: &World, pool: &PgPool, live: Arc<dyn LiveBus>) -> Self {
        let (applied, stop) = (AppliedPositions::default(), CancellationToken::new());
        let bus: Arc<dyn Bus> = Arc::clone(&world.bus) as _;
        let parts =
            crate::Parts { pool: pool.clone(), bus, applied: applied.clone(), live, marks: None, shards: SHARDS };
        let running = tokio::spawn(crate::run(parts, stop.clone()));
        Self { applied, stop: stop.drop_guard(), running }
    }

    pub(crate) async fn leave(self) {
        drop(self.stop);
        self.running.await.unwrap();
    }
}

/// Waits until all that is published by now is applied by all projections, whoever does it.
pub(crate) async fn applied_all(world: &World, pool: &PgPool) {
    let mut missing: Vec<(&str, Position)> = Vec::new();
    for projection in PROJECTIONS.iter().map(|projection| projection.describe()) {
        let heads = world.log.heads().into_iter();
        let own = heads.filter(|head| head.position > 0 && projection.topics.contains(&head.topic));
        missing.extend(own.map(|head| (projection.name, head)));
    }
    eventually("all is applied", std::time::Duration::from_secs(30), async || {
        let rows: Vec<(String, i16, i16, i64)> =
            sqlx::query_as("SELECT projection, topic, shard, position FROM read.checkpoints")
                .fetch_all(pool)
                .await
                .unwrap();
        let applied: HashMap<_, _> = rows
            .into_iter()
            .map(|(name, topic, shard, position)| ((name, topic, shard.cast_unsigned()), position.cast_unsigned()))
            .collect();
        missing.retain(|(name, head)| {
            let place = ((*name).to_owned(), head.topic.code(), head.shard);
            applied.get(&place).is_none_or(|position| *position < head.position)
        });
        missing.is_empty()
    })
    .await;
}

/// All rows of all tables.
pub(crate) async fn rows(connection: &mut PgConnection) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for table in PROJECTIONS.iter().flat_map(|projection| projection.describe().tables) {
        let query = format!("SELECT '{table} ' || to_jsonb(t)::text FROM {table} t");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut *connection).await.unwrap();
        all.extend(rows);
    }
    all
}

/// One projection over a database of its own.
pub(crate) struct Bench {
    projection: &'static dyn Projection,
    database: Database,
    log: MemoryLog,
    kept: Mutex<Vec<Arc<Record>>>,
}

impl Bench {
    pub(crate) async fn new(projection: &'static dyn Projection) -> Self {
        let database = Database::new().await;
        Self { projection, database, log: MemoryLog::default(), kept: Mutex::default() }
    }

    /// For the next batch.
    pub(crate) fn keep(&self, event: Keyed) -> Arc<Record> {
        let record = self.log.append(event);
        self.kept.lock().push(Arc::clone(&record));
        record
    }

    pub(crate) async fn apply(&self) {
        let batch = std::mem::take(&mut *self.kept.lock());
        self.projection.apply(&mut self.connection().await, &batch).await.unwrap();
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        connect(self.database.pool(), "read").await.unwrap()
    }

    pub(crate) async fn rows<R>(&self, query: &'static str) -> Vec<R>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        sqlx::query_as(query).fetch_all(&mut self.connection().await).await.unwrap()
    }
}
