//! All read models are filled anew while people talk and read.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use parlance_client::{Client, text_message};
use testkit::app::App;
use tokio::process::Command;
use uuid::Uuid;

use crate::pairs::user;

/// What the reader's conversation holds: several pages.
const MESSAGES: usize = 300;
const BOUND: Duration = Duration::from_mins(5);

/// What was seen meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Rebuilt {
    /// How long the rebuild took.
    pub took: Duration,
    /// How often the whole conversation was read meanwhile, always the same.
    pub reads: u32,
}

/// One who reads, and what there is to read.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    conversation: Uuid,
}

impl Reader {
    /// Somebody with a conversation that nobody writes in any more.
    pub async fn prepare(app: &App) -> anyhow::Result<Self> {
        let run = Uuid::new_v4().simple().to_string();
        let client = user(&app.server(), &format!("reader-{}", &run[..8])).await?;
        let conversation = client.create_group("all of it", Vec::new()).await?.conversation_id;
        let mut last = None;
        for n in 0..MESSAGES {
            last = Some(client.send(conversation, &text_message(format!("message {n}"))).await?.position);
        }
        let client = client.at_least(&last.context("something was said")?).strictly();
        Ok(Self { client, conversation })
    }

    /// Reads all of it again and again while `parlance rebuild all` runs.
    pub async fn while_rebuilt(self, mut rebuild: Command) -> anyhow::Result<Rebuilt> {
        let begun = Instant::now();
        let mut running = rebuild.spawn().context("the rebuild does not start")?;
        let mut reads = 0;
        while running.try_wait()?.is_none() {
            ensure!(begun.elapsed() < BOUND, "the rebuild is not over after {BOUND:?}");
            self.read().await?;
            reads += 1;
        }
        let took = begun.elapsed();
        let status = running.wait().await?;
        ensure!(status.success(), "the rebuild ended with {status}");
        self.read().await?;
        Ok(Rebuilt { took, reads })
    }

    async fn read(&self) -> anyhow::Result<()> {
        let told = self.client.conversation(self.conversation).await?;
        let head = u64::try_from(MESSAGES + 1)?;
        ensure!(
            (told.last_seq, told.unread) == (head, 0),
            "the list tells of {} with {} unread",
            told.last_seq,
            told.unread
        );
        let history = self.client.history(self.conversation, 0).await?;
        let is_whole = history.iter().map(|view| view.message.seq).eq(2..=head);
        ensure!(is_whole, "{} messages are told of {MESSAGES}", history.len());
        Ok(())
    }
}
