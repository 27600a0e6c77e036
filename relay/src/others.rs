//! What command-apis in other processes commit, as they tell it: as a process's own, a short cut past the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_store::{CommittedBatch, CommittedLines, Log};
use platform::auth::Keyring;
use platform::internal::{Committed, Told, Untold};
use platform::registry::Members;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::leadership::{Leadership, Place, places};

/// Batches that wait; then nothing more is read from those who tell them, who in the end leave some out.
const WAITING: usize = 256;
/// Between tries to follow one: at first, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Follows what others commit, until it is dropped.
///
/// Within a shard positions come in order from each of them, but not from all together, and some may not come at all.
pub struct Others {
    batches: mpsc::Receiver<CommittedBatch>,
    /// How many are followed.
    count: Arc<AtomicUsize>,
    _following: AbortOnDropHandle<()>,
}

impl Others {
    /// Follows those that take commands (`platform::registry::watch`) but for `own`, this process's URL if it takes
    /// commands too, in the shards of `log` that are led; they are shown the installation's key.
    pub fn follow(
        members: watch::Receiver<Members>,
        own: Option<String>,
        keyring: &Keyring,
        leadership: Leadership,
        log: &Log,
    ) -> Self {
        metrics::describe_gauge!(
            "parlance_relay_followed",
            "Command-apis of other processes that tell this relay what they commit."
        );
        let (tell, batches) = mpsc::channel(WAITING);
        let count = Arc::new(AtomicUsize::new(0));
        let follower =
            Follower { keyring: keyring.clone(), wanted: Committed::default(), tell, count: Arc::clone(&count) };
        let all = All { members, own, leadership, places: places(log).collect(), follower };
        let following = AbortOnDropHandle::new(tokio::spawn(all.follow()));
        Self { batches, count, _following: following }
    }

    /// Whether anybody tells anything.
    pub(crate) fn tell(&self) -> bool {
        self.count() > 0
    }

    /// How many do.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The next batch.
    pub(crate) async fn next(&mut self) -> Option<CommittedBatch> {
        self.batches.recv().await
    }

    /// The next batch, if one is there.
    pub(crate) fn try_next(&mut self) -> Option<CommittedBatch> {
        self.batches.try_recv().ok()
    }
}

/// Those who are followed.
struct All {
    members: watch::Receiver<Members>,
    own: Option<String>,
    leadership: Leadership,
    places: Vec<Place>,
    follower: Follower,
}

impl All {
    /// Follows everybody on the list in what is led, as both change.
    async fn follow(mut self) {
        let mut following: HashMap<String, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            let wanted = self.wanted();
            if self.follower.wanted != wanted {
                // All of them are asked anew.
                following.clear();
                self.follower.wanted = wanted;
            }
            let list = self.members.borrow_and_update().clone();
            following.retain(|url, _| list.contains(url));
            for url in list.iter().filter(|url| Some(*url) != self.own.as_ref()) {
                following.entry(url.clone()).or_insert_with(|| {
                    AbortOnDropHandle::new(tokio::spawn(self.follower.clone().keep_on(url.clone())))
                });
            }
            // Where nothing will be heard any more of one, the other goes on.
            tokio::select! {
                Ok(()) = self.members.changed() => {}
                true = self.leadership.changed() => {}
                else => return std::future::pending().await,
            }
        }
    }

    /// What is to be asked for.
    fn wanted(&self) -> Committed {
        let led = self.places.iter().filter(|place| self.leadership.leads(**place));
        Committed { shards: led.map(|(topic, shard)| (topic.code(), *shard)).collect() }
    }
}

/// Why one is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Unfollowed {
    #[error(transparent)]
    Untold(#[from] Untold),
    #[error("what it tells cannot be read")]
    Unreadable(#[from] serde_json::Error),
}

/// One who follows.
#[derive(Clone)]
struct Follower {
    keyring: Keyring,
    /// What is asked for.
    wanted: Committed,
    tell: mpsc::Sender<CommittedBatch>,
    count: Arc<AtomicUsize>,
}

/// One more is followed, as long as this is kept.
struct Followed<'a>(&'a AtomicUsize);

impl<'a> Followed<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("parlance_relay_followed").increment(1);
        Self(count)
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("parlance_relay_followed").decrement(1);
    }
}

impl Follower {
    /// Follows one, and again whenever it could not go on.
    async fn keep_on(self, url: String) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut began = false;
            let ended = self.follow(&url, &mut began).await;
            if began {
                pause = FIRST_PAUSE;
            }
            let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            tracing::debug!(url, reason, "what {url} commits is found in the log alone: {reason}");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Hands on what one tells, until it ends.
    async fn follow(&self, url: &str, began: &mut bool) -> Result<(), Unfollowed> {
        let mut told = Told::by(url, &self.keyring, &self.wanted).await?;
        *began = true;
        let _followed = Followed::new(&self.count);
        tracing::info!(url, "follows what {url} commits");
        let mut lines = CommittedLines::default();
        while let Some(piece) = told.next().await? {
            for batch in lines.feed(&piece)? {
                // Nobody takes it any more once the relay has ended, and this with it.
                let _ = self.tell.send(batch).await;
            }
        }
        Ok(())
    }
}
