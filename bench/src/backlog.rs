//! How fast relays and projectors work off what piled up while there were none.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use parlance_client::{AckPolicy, Server, SessionOptions};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use sqlx::{Connection, PgConnection};
use testkit::app::{App, Role};
use uuid::Uuid;

use crate::{pairs::user, process::Cpu, process::Watch};

/// Conversations that the backlog is spread over, each with a sender of its own.
const CONVERSATIONS: usize = 32;
/// How many sends of each sender are under way.
const UNDER_WAY: usize = 64;
const CONTENT_BYTES: usize = 200;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);
const BOUND: Duration = Duration::from_mins(5);
const KAFKA_BOUND: Duration = Duration::from_secs(10);

/// What working it off took, from the first move to the last.
#[derive(Debug, Clone)]
pub struct WorkedOff {
    /// Events that were worked off.
    pub events: u64,
    /// For so long.
    pub took: Duration,
    /// What it cost whom.
    pub cpu: Cpu,
}

impl WorkedOff {
    /// Events a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand events")]
    pub fn per_s(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

/// Messages pile up while there is no relay; then relays publish them, and nobody reads them meanwhile: on two cores whoever
/// does takes from what is measured.
pub async fn drain(app: &mut App, count: usize) -> anyhow::Result<WorkedOff> {
    let brokers = app.place().engines().context("a stack")?.kafka.address().to_owned();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &brokers).create()?;
    let mut database = PgConnection::connect_with(&app.database().await?).await?;
    let place = app.place().clone();
    let server = app.server();
    let conversations = Senders::prepare(&server).await?;
    let roles = app.roles().context("a stack")?;
    roles.take_away(&place, Role::Relay).await?;
    roles.take_away(&place, Role::Projectors).await?;
    conversations.say(count).await?;
    let behind: i64 = sqlx::query_scalar("SELECT sum(head)::bigint FROM log.shards").fetch_one(&mut database).await?;
    let published = || tokio::task::block_in_place(|| published(&consumer));
    let drained = work_off(app, Role::Relay, behind.cast_unsigned(), async || published()).await?;
    app.roles().context("a stack")?.bring_back(&place, Role::Projectors).await?;
    Ok(drained)
}

/// Messages pile up while there are no projectors; then they are applied to the read models.
pub async fn project(app: &mut App, count: usize) -> anyhow::Result<WorkedOff> {
    let mut database = PgConnection::connect_with(&app.database().await?).await?;
    let mut applied = PgConnection::connect_with(&app.database().await?).await?;
    let place = app.place().clone();
    let server = app.server();
    let conversations = Senders::prepare(&server).await?;
    app.roles().context("a stack")?.take_away(&place, Role::Projectors).await?;
    conversations.say(count).await?;
    let behind: i64 = sqlx::query_scalar("SELECT sum(head)::bigint FROM log.shards").fetch_one(&mut database).await?;
    let mut checkpoints = async || -> anyhow::Result<u64> {
        let sum: Option<i64> = sqlx::query_scalar(
            "SELECT sum(position)::bigint FROM \
             (SELECT min(position) AS position FROM read.checkpoints WHERE consumer = 'read_models' \
              GROUP BY topic, shard) AS least",
        )
        .fetch_one(&mut applied)
        .await?;
        Ok(sum.unwrap_or(0).cast_unsigned())
    };
    work_off(app, Role::Projectors, behind.cast_unsigned(), &mut checkpoints).await
}

/// Brings a role back and watches it until all is worked off.
async fn work_off(
    app: &mut App,
    role: Role,
    behind: u64,
    mut progress: impl AsyncFnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<WorkedOff> {
    let begin = progress().await?;
    ensure!(behind > begin, "nothing piled up");
    let place = app.place().clone();
    app.roles().context("a stack")?.bring_back(&place, role).await?;
    let watch = Watch(app.watched()?);
    let (mut first, end) = (None, Instant::now() + BOUND);
    loop {
        let now = progress().await?;
        if now > begin && first.is_none() {
            first = Some((Instant::now(), now, watch.cpu()?));
        }
        if now >= behind {
            let (moved, at, cpu) = first.context("it was done before it was seen to begin")?;
            return Ok(WorkedOff { events: now - at, took: moved.elapsed(), cpu: watch.cpu()?.since(&cpu) });
        }
        ensure!(Instant::now() < end, "{now} of {behind} events after {BOUND:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// How many records there are; none was published twice. Blocks.
fn published(consumer: &BaseConsumer) -> anyhow::Result<u64> {
    let mut sum = 0;
    let metadata = consumer.fetch_metadata(None, KAFKA_BOUND)?;
    for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with("parlance.")) {
        for partition in topic.partitions() {
            let (_, high) = consumer.fetch_watermarks(topic.name(), partition.id(), KAFKA_BOUND)?;
            sum += high.cast_unsigned();
        }
    }
    Ok(sum)
}

/// Those who make the backlog.
struct Senders(Vec<(parlance_client::Session, Uuid)>);

impl Senders {
    async fn prepare(server: &Server) -> anyhow::Result<Self> {
        let run = Uuid::new_v4().simple().to_string();
        let senders = stream::iter(0..CONVERSATIONS).map(|n| {
            let name = format!("backlog-{}-{n}", &run[..8]);
            async move {
                let client = user(server, &name).await?;
                let conversation = client.create_group("backlog", Vec::new()).await?.conversation_id;
                let acks = AckPolicy::Manual;
                let options = SessionOptions { pipeline: UNDER_WAY, acks, ..SessionOptions::default() };
                let (session, mut updates) = client.open_session(options).await?;
                tokio::spawn(async move { while updates.next().await.is_some() {} });
                anyhow::Ok((session, conversation))
            }
        });
        Ok(Self(senders.buffered(4).try_collect().await?))
    }

    async fn say(&self, count: usize) -> anyhow::Result<()> {
        let content = "x".repeat(CONTENT_BYTES);
        let each = count.div_ceil(self.0.len());
        let senders = self.0.iter().map(|(session, conversation)| {
            let say = async || -> anyhow::Result<()> {
                session.send(*conversation, content.clone()).await?.outcome().await?;
                Ok(())
            };
            async move { stream::iter(0..each).map(|_| say()).buffered(UNDER_WAY).try_collect::<()>().await }
        });
        futures::future::try_join_all(senders).await?;
        for (session, _) in &self.0 {
            session.close().await;
        }
        Ok(())
    }
}
