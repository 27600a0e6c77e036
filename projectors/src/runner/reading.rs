//! What a runner reads: batches of the records that come next.

use std::sync::Arc;
use std::time::Duration;

use platform::bus::{BusError, Subscription};
use schemas::{Position, Record};
use tokio::time::{Instant, timeout_at};

use crate::checkpoints::Places;

const ENOUGH: usize = 500;
const MAX: usize = 2000;

/// The next batch: at once after a pause, else what has come by the time it is due.
pub(super) async fn collect(
    subscription: &mut dyn Subscription,
    last_batch: Option<Instant>,
    pace: Duration,
) -> Result<Vec<Arc<Record>>, BusError> {
    let mut batch = subscription.next(MAX).await?;
    let due = last_batch.map_or_else(Instant::now, |last| last + pace);
    while batch.len() < ENOUGH {
        match timeout_at(due, subscription.next(MAX - batch.len())).await {
            Ok(Ok(more)) => batch.extend(more),
            // What came is applied first: a shard that cannot be read must not hold back the others.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(batch)
}

/// Drops what came before and what does not follow, and moves `read` on; with the first that did not follow.
pub(super) fn news(batch: Vec<Arc<Record>>, read: &mut Places) -> (Vec<Arc<Record>>, Option<Position>) {
    let (mut fresh, mut gap) = (Vec::with_capacity(batch.len()), None);
    for record in batch {
        match read.get_mut(&record.shard) {
            Some(last) if record.position <= *last => {}
            Some(last) if record.position == *last + 1 => {
                *last = record.position;
                fresh.push(record);
            }
            _ => gap = gap.or(Some(record.place())),
        }
    }
    (fresh, gap)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use async_trait::async_trait;

    use super::*;
    use crate::testing::{MemoryLog, registered};

    const PACE: Duration = Duration::from_millis(20);

    /// Says what it is told to say.
    struct Script(VecDeque<Result<Vec<Arc<Record>>, BusError>>);

    #[async_trait]
    impl Subscription for Script {
        async fn next(&mut self, _: usize) -> Result<Vec<Arc<Record>>, BusError> {
            match self.0.pop_front() {
                Some(said) => said,
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn a_shard_that_cannot_be_read_holds_nothing_back() {
        let record = MemoryLog::default().append(registered(5, "ann"));
        let failure = || Err(BusError("gone".into()));
        let mut script = Script(VecDeque::from([Ok(vec![Arc::clone(&record)]), failure(), failure()]));
        let just_now = Some(Instant::now());
        assert_eq!(collect(&mut script, just_now, PACE).await.unwrap(), [record]);
        assert!(collect(&mut script, just_now, PACE).await.is_err());
    }

    #[test]
    fn what_does_not_follow_is_left_to_be_read_again() {
        let log = MemoryLog::default();
        let torn: Vec<_> = (0..4).map(|_| log.append(registered(5, "ann"))).collect();
        let whole: Vec<_> = (0..3).map(|_| log.append(registered(6, "ben"))).collect();
        let mut read = Places::from([(1, 1), (2, 1)]);
        let came = [&torn[0], &whole[0], &torn[2], &whole[1], &torn[3], &whole[2]].map(Arc::clone);
        let (fresh, gap) = news(came.into(), &mut read);
        assert_eq!(fresh, whole[1..]);
        assert_eq!((gap, &read), (Some(torn[2].place()), &Places::from([(1, 1), (2, 3)])));
        let (fresh, gap) = news(torn.clone(), &mut read);
        assert_eq!((fresh.as_slice(), gap), (&torn[1..], None));
        // Nobody asked for this one.
        assert!(news(vec![log.append(registered(7, "cleo"))], &mut read).1.is_some());
    }
}
