//! Receipts of devices on their way to the log. Those that only this process knows of: of each member of each
//! conversation the first at once, then at most one every 100 ms, which carries all that came meanwhile. Those that
//! others keep until it is settled what became of them: at once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use event_store::{EventStore, ExecuteError};
use futures::future::join_all;
use lru::LruCache;
use parking_lot::Mutex;
use platform::http::{Problem, RequestContext};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::commands::{AdvanceReceipt, Moved};
use crate::execute::stored;
use crate::service::Service;

/// Between two commands for one member of one conversation.
const PACE: Duration = Duration::from_millis(100);
/// Before a command that the log could not take is tried again.
const AWAY: Duration = Duration::from_secs(1);
/// Members of conversations whose receipts may be under way at once.
const MOST: usize = 65_536;
/// Members of conversations whose watermarks are remembered, to know without the log that nothing moves.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// A conversation and its member.
type Key = (Uuid, Uuid);

/// What a device says about its user's progress in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptMove {
    /// The conversation.
    pub conversation_id: Uuid,
    /// The member.
    pub user_id: Uuid,
    /// The device that acked or read.
    pub device_id: Uuid,
    /// Everything up to this `seq` is on the device.
    pub delivered_to: Option<u64>,
    /// Everything up to this `seq` was read.
    pub read_to: Option<u64>,
}

/// The receipts under way.
pub(crate) struct Receipts {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

struct Shared {
    store: EventStore,
    table: Mutex<Table>,
    stop: CancellationToken,
}

struct Table {
    /// A slot for each member with a command under way or just done; what came meanwhile waits in it.
    slots: HashMap<Key, Option<Waiting>>,
    /// Watermarks that are reached: they never go back while the user stays, and mean nothing once they have left.
    reached: LruCache<Key, (u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waiting {
    delivered: Option<Moved>,
    read: Option<Moved>,
}

impl Waiting {
    fn merge(self, later: Self) -> Self {
        Self { delivered: furthest(self.delivered, later.delivered), read: furthest(self.read, later.read) }
    }
}

/// The further one; of two equal ones the later.
fn furthest(one: Option<Moved>, later: Option<Moved>) -> Option<Moved> {
    match (one, later) {
        (Some(one), Some(later)) if one.to > later.to => Some(one),
        (one, later) => later.or(one),
    }
}

impl Service {
    /// Takes a receipt and carries it out soon: at once, or with those that follow within 100 ms.
    ///
    /// The caller has checked that it is not beyond the conversation's head; one that turns out to be is dropped, as is
    /// that of one who is no longer a member.
    ///
    /// # Errors
    /// 503 while too many wait.
    pub fn take_receipt(&self, receipt: ReceiptMove) -> Result<(), Problem> {
        let (key, waiting) = receipt.into_waiting();
        self.inner.receipts.take(key, waiting)
    }

    /// Carries receipts out at once; of how many of them, from the first on, it is settled whether they move anything.
    /// The log could not take the next one: it may be tried again.
    pub(crate) async fn settle_receipts(&self, receipts: impl Iterator<Item = ReceiptMove>) -> usize {
        let shared = &self.inner.receipts.shared;
        let settled = join_all(receipts.map(async |receipt| {
            let (key, waiting) = receipt.into_waiting();
            let has_reached = shared.table.lock().has_reached(key, waiting);
            has_reached || shared.carry_out(key, waiting).await
        }));
        settled.await.into_iter().take_while(|settled| *settled).count()
    }
}

impl ReceiptMove {
    fn into_waiting(self) -> (Key, Waiting) {
        let moved = |to: u64| Moved { to, device_id: Some(self.device_id) };
        let waiting = Waiting { delivered: self.delivered_to.map(moved), read: self.read_to.map(moved) };
        ((self.conversation_id, self.user_id), waiting)
    }
}

impl Table {
    /// Whether it is known, without the log, that nothing moves.
    fn has_reached(&mut self, key: Key, waiting: Waiting) -> bool {
        let (delivered, read) = self.reached.get(&key).copied().unwrap_or_default();
        let stale = |moved: Option<Moved>, reached| moved.is_none_or(|moved| moved.to <= reached);
        stale(waiting.delivered, delivered) && stale(waiting.read, read)
    }
}

impl Receipts {
    pub(crate) fn new(store: EventStore) -> Self {
        let table = Table { slots: HashMap::new(), reached: LruCache::new(REMEMBERED) };
        let shared = Shared { store, table: Mutex::new(table), stop: CancellationToken::new() };
        Self { shared: Arc::new(shared), tasks: TaskTracker::new() }
    }

    fn take(&self, key: Key, waiting: Waiting) -> Result<(), Problem> {
        {
            let mut table = self.shared.table.lock();
            if table.has_reached(key, waiting) {
                return Ok(());
            }
            if let Some(slot) = table.slots.get_mut(&key) {
                *slot = Some(slot.unwrap_or_default().merge(waiting));
                return Ok(());
            }
            if table.slots.len() >= MOST {
                return Err(Problem::unavailable("too many receipts wait"));
            }
            table.slots.insert(key, None);
        }
        self.tasks.spawn(self.shared.clone().run(key, waiting));
        Ok(())
    }

    /// Carries out what waits, without its pace.
    pub(crate) async fn drain(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Shared {
    /// Carries out what comes for one member, until nothing came for as long as the pace is.
    async fn run(self: Arc<Self>, key: Key, first: Waiting) {
        let mut next = first;
        loop {
            let done = self.carry_out(key, next).await;
            let stopping = tokio::select! {
                () = self.stop.cancelled() => true,
                () = tokio::time::sleep(if done { PACE } else { AWAY }) => false,
            };
            let mut table = self.table.lock();
            let came = table.slots.get_mut(&key).and_then(Option::take);
            next = match (done, came) {
                (true, Some(came)) => came,
                (false, came) if !stopping => next.merge(came.unwrap_or_default()),
                _ => {
                    table.slots.remove(&key);
                    return;
                }
            };
        }
    }

    /// Whether it was carried out, or never will be.
    async fn carry_out(&self, key: Key, waiting: Waiting) -> bool {
        let (conversation_id, user_id) = key;
        let Waiting { delivered, read } = waiting;
        let command = AdvanceReceipt { conversation_id, user_id, delivered, read };
        match self.store.execute(command, stored(&RequestContext::bare())).await {
            Ok(executed) => {
                self.table.lock().reached.put(key, executed.output);
                true
            }
            Err(ExecuteError::Refused(refusal)) => {
                tracing::debug!(%conversation_id, %user_id, ?refusal, "a receipt of {user_id} was refused");
                true
            }
            Err(ExecuteError::Busy | ExecuteError::Unavailable(_) | ExecuteError::Closed) => false,
            Err(error) => {
                tracing::error!(%conversation_id, %user_id, %error, "a receipt of {user_id} is lost: {error}");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use testkit::eventually;

    use super::*;
    use crate::testing::{Account, Api};

    const BOUND: Duration = Duration::from_mins(1);

    async fn conversation() -> (Api, Account, Account, Uuid) {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let direct = api.direct(&ann, &ben).await;
        for _ in 0..50 {
            api.say(&ann, direct).await;
        }
        (api, ann, ben, direct)
    }

    fn receipt(by: &Account, conversation_id: Uuid, delivered_to: Option<u64>, read_to: Option<u64>) -> ReceiptMove {
        let Account { user_id, device_id, .. } = *by;
        ReceiptMove { conversation_id, user_id, device_id, delivered_to, read_to }
    }

    async fn marks(api: &Api, by: &Account, conversation: Uuid) -> (u64, u64) {
        let path = format!("/v1/conversations/{conversation}/receipts/me");
        let answer = api.put(&path, by, json!({})).await.ok();
        (answer["delivered_to"].as_u64().unwrap(), answer["read_to"].as_u64().unwrap())
    }

    #[tokio::test]
    async fn the_first_goes_at_once_and_the_rest_together() {
        let (api, _, ben, direct) = conversation().await;
        for seq in 1..=40 {
            api.service.take_receipt(receipt(&ben, direct, Some(seq), seq.checked_sub(10))).unwrap();
        }
        eventually("all is stored", BOUND, async || marks(&api, &ben, direct).await == (40, 30)).await;
        assert_eq!(api.events("message.delivered").await, 2);
        assert_eq!(api.events("message.read").await, 1);
    }

    #[tokio::test]
    async fn what_moves_nothing_does_not_come_to_the_log() {
        let (api, _, ben, direct) = conversation().await;
        api.service.take_receipt(receipt(&ben, direct, Some(20), Some(20))).unwrap();
        let idle = || api.service.inner.receipts.shared.table.lock().slots.is_empty();
        eventually("it is done", BOUND, async || idle()).await;
        api.service.take_receipt(receipt(&ben, direct, Some(20), Some(7))).unwrap();
        assert!(idle());
    }

    #[tokio::test]
    async fn draining_stores_what_waits() {
        let (api, ann, ben, direct) = conversation().await;
        for seq in [1, 2, 9] {
            api.service.take_receipt(receipt(&ben, direct, Some(seq), None)).unwrap();
            api.service.take_receipt(receipt(&ann, direct, None, Some(seq))).unwrap();
        }
        api.service.drain().await;
        assert_eq!(marks(&api, &ben, direct).await, (9, 0));
        assert_eq!(marks(&api, &ann, direct).await, (9, 9));
    }

    #[tokio::test]
    async fn what_is_refused_is_dropped() {
        let (api, ann, ben, direct) = conversation().await;
        let stranger = Account { user_id: Uuid::now_v7(), ..ann };
        api.service.take_receipt(receipt(&stranger, direct, Some(1), None)).unwrap();
        api.service.take_receipt(receipt(&ben, direct, Some(500), None)).unwrap();
        api.service.drain().await;
        assert_eq!(marks(&api, &ben, direct).await, (0, 0));
        assert_eq!(api.events("message.delivered").await, 0);
    }

    #[test]
    fn the_further_one_counts_and_of_equal_ones_the_later() {
        let moved = |to, device| Some(Moved { to, device_id: Some(Uuid::from_u128(device)) });
        assert_eq!(furthest(moved(2, 1), moved(1, 2)), moved(2, 1));
        assert_eq!(furthest(moved(1, 1), moved(2, 2)), moved(2, 2));
        assert_eq!(furthest(moved(2, 1), moved(2, 2)), moved(2, 2));
        assert_eq!(furthest(moved(2, 1), None), moved(2, 1));
        assert_eq!(furthest(None, moved(2, 1)), moved(2, 1));
    }
}
