//! Watermarks that nobody waits for: of each member of each conversation the furthest, sent together now and then, once
//! the call before is answered, and kept while nobody takes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use platform::auth::Caller;
use platform::http::{Problem as Refusal, TraceId};
use platform::internal::{MOST_MOVES, ReceiptMove, ReceiptsTaken, TAKE_RECEIPTS, TakeReceipts};
use schemas::rest::{AdvanceReceipt, Problem};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::call::Calls;
use super::fleet::Whose;

/// Members of conversations whose watermarks may wait at once.
const MOST: usize = 65_536;
/// Between two calls: each costs a commit and a record of its own all along the road, and what comes meanwhile is one.
const PACE: Duration = Duration::from_millis(50);
/// Before what was not taken is tried again: at first, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A conversation and its member.
type Key = (Uuid, Uuid);

/// A watermark and the device that told it.
type Mark = Option<(u64, Uuid)>;

/// The watermarks of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    delivered: Mark,
    read: Mark,
}

impl Marks {
    /// The further ones; of two equal ones the later.
    fn merge(self, later: Self) -> Self {
        let furthest = |one: Mark, later: Mark| match (one, later) {
            (Some(one), Some(later)) if one.0 > later.0 => Some(one),
            (one, later) => later.or(one),
        };
        Self { delivered: furthest(self.delivered, later.delivered), read: furthest(self.read, later.read) }
    }

    /// What is to be told of them: two moves where they are two devices'.
    fn moves(self, (conversation_id, user_id): Key) -> impl Iterator<Item = ReceiptMove> {
        let moved = |device_id, delivered_to, read_to| ReceiptMove {
            conversation_id,
            user_id,
            device_id,
            delivered_to,
            read_to,
        };
        let (one, other) = match (self.delivered, self.read) {
            (Some((delivered, device)), Some((read, same))) if device == same => {
                (Some(moved(device, Some(delivered), Some(read))), None)
            }
            (delivered, read) => (
                delivered.map(|(to, device)| moved(device, Some(to), None)),
                read.map(|(to, device)| moved(device, None, Some(to))),
            ),
        };
        one.into_iter().chain(other)
    }

    fn of(moved: &ReceiptMove) -> Self {
        let mark = |to: Option<u64>| to.map(|to| (to, moved.device_id));
        Self { delivered: mark(moved.delivered_to), read: mark(moved.read_to) }
    }
}

/// What waits.
#[derive(Debug)]
pub(super) struct Receipts {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<HashMap<Key, Marks>>,
    came: Notify,
    stop: CancellationToken,
}

impl Receipts {
    /// Sends what comes from now on.
    pub(super) fn start(calls: Arc<Calls>) -> Self {
        let shared =
            Arc::new(Shared { waiting: Mutex::default(), came: Notify::new(), stop: CancellationToken::new() });
        let tasks = TaskTracker::new();
        tasks.spawn(run(shared.clone(), calls));
        Self { shared, tasks }
    }

    /// Takes a caller's watermarks.
    pub(super) fn take(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: &AdvanceReceipt,
    ) -> Result<(), Box<Problem>> {
        let refuse = |detail| Err(Box::new(Refusal::unavailable(detail).to_body(TraceId::random())));
        if self.shared.stop.is_cancelled() {
            return refuse("the server is stopping");
        }
        let Caller { user_id, device_id, .. } = *caller;
        let AdvanceReceipt { delivered_to, read_to } = *receipt;
        let moved = ReceiptMove { conversation_id, user_id, device_id, delivered_to, read_to };
        if self.shared.put(&moved, MOST) {
            self.shared.came.notify_one();
            Ok(())
        } else {
            refuse("too many receipts wait")
        }
    }

    /// Takes nothing more, and waits until all was sent, or could not be.
    pub(super) async fn drain(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    /// Puts watermarks with those that wait; whether there was room.
    fn put(&self, moved: &ReceiptMove, most: usize) -> bool {
        let mut waiting = self.waiting.lock();
        let key = (moved.conversation_id, moved.user_id);
        if waiting.len() >= most && !waiting.contains_key(&key) {
            return false;
        }
        let marks = waiting.entry(key).or_default();
        *marks = marks.merge(Marks::of(moved));
        true
    }

    /// Puts back what was not taken: older than what came since, so it goes under it.
    fn put_back(&self, moved: &ReceiptMove) {
        let mut waiting = self.waiting.lock();
        let marks = waiting.entry((moved.conversation_id, moved.user_id)).or_default();
        *marks = Marks::of(moved).merge(*marks);
    }
}

async fn run(shared: Arc<Shared>, calls: Arc<Calls>) {
    let mut pause = FIRST_PAUSE;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let waiting = std::mem::take(&mut *shared.waiting.lock());
        if waiting.is_empty() {
            if shared.stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = shared.came.notified() => {}
                () = shared.stop.cancelled() => {}
            }
            continue;
        }
        if send(&shared, &calls, waiting).await {
            pause = FIRST_PAUSE;
            shared.stop.run_until_cancelled(pace.tick()).await;
            continue;
        }
        if shared.stop.is_cancelled() {
            let count = shared.waiting.lock().len();
            return tracing::warn!(count, "{count} receipts could not be handed on before the end");
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = shared.stop.cancelled() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sends watermarks to the owners of their conversations; whether all were taken. The others wait again.
async fn send(shared: &Shared, calls: &Calls, waiting: HashMap<Key, Marks>) -> bool {
    let mut of_owners: HashMap<Option<usize>, (Uuid, Vec<ReceiptMove>)> = HashMap::new();
    for (key, marks) in waiting {
        let (_, moves) = of_owners.entry(calls.owner(key.0)).or_insert_with(|| (key.0, Vec::new()));
        moves.extend(marks.moves(key));
    }
    let chunks = of_owners.into_values().flat_map(|(conversation_id, moves)| {
        let chunks: Vec<_> = moves.chunks(MOST_MOVES).map(<[_]>::to_vec).collect();
        chunks.into_iter().map(move |moves| (conversation_id, moves))
    });
    let sent = join_all(chunks.map(async |(conversation_id, moves)| {
        let body = TakeReceipts { moves };
        let answer = calls.ask::<ReceiptsTaken>(Whose::Owner(conversation_id), TAKE_RECEIPTS, &body).await;
        let taken = answer.map_or(0, |answer| answer.taken);
        let left = body.moves.get(taken..).unwrap_or_default();
        for moved in left {
            shared.put_back(moved);
        }
        left.is_empty()
    }));
    sent.await.into_iter().all(|all| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(conversation: u128, device: u128, delivered_to: Option<u64>, read_to: Option<u64>) -> ReceiptMove {
        let [conversation_id, device_id] = [conversation, device].map(Uuid::from_u128);
        ReceiptMove { conversation_id, user_id: Uuid::from_u128(1), device_id, delivered_to, read_to }
    }

    fn shared() -> Shared {
        Shared { waiting: Mutex::default(), came: Notify::new(), stop: CancellationToken::new() }
    }

    fn told(shared: &Shared) -> Vec<ReceiptMove> {
        std::mem::take(&mut *shared.waiting.lock()).into_iter().flat_map(|(key, marks)| marks.moves(key)).collect()
    }

    #[test]
    fn the_furthest_of_each_is_told_with_the_device_that_got_there() {
        let shared = shared();
        for one in [moved(1, 1, Some(5), Some(3)), moved(1, 2, Some(4), None), moved(1, 1, None, Some(4))] {
            assert!(shared.put(&one, MOST));
        }
        assert_eq!(told(&shared), [moved(1, 1, Some(5), Some(4))]);
        assert!(shared.put(&moved(1, 1, Some(5), Some(3)), MOST) && shared.put(&moved(1, 2, None, Some(3)), MOST));
        assert_eq!(told(&shared), [moved(1, 1, Some(5), None), moved(1, 2, None, Some(3))]);
    }

    #[test]
    fn what_comes_back_goes_under_what_came_since() {
        let shared = shared();
        assert!(shared.put(&moved(1, 2, Some(5), None), MOST));
        shared.put_back(&moved(1, 1, Some(5), Some(2)));
        assert_eq!(told(&shared), [moved(1, 2, Some(5), None), moved(1, 1, None, Some(2))]);
    }

    #[test]
    fn a_full_table_takes_no_other_member() {
        let shared = shared();
        assert!(shared.put(&moved(1, 1, Some(1), None), 1));
        assert!(!shared.put(&moved(2, 1, Some(1), None), 1));
        assert!(shared.put(&moved(1, 1, Some(2), None), 1));
    }
}
