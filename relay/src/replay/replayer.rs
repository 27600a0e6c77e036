//! Does what is asked for of the shards that are led, beside the live records and slower than they.

use std::error::Error;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::requests::{self, Open};
use crate::leadership::places;
use crate::schedule::back_off;
use crate::work::{Failure, Work};

/// How often new requests are looked for.
const POLL: Duration = Duration::from_secs(1);
/// Of so many parts of the time one is spent on publishing again: live records have the others, and wait for a page at
/// the most.
const SHARE: u32 = 4;

/// The one who publishes again.
pub(crate) struct Replayer {
    pool: PgPool,
    work: Work,
}

impl Replayer {
    /// Records are read and published by `work`, in its pages.
    pub(crate) fn new(pool: PgPool, work: Work) -> Self {
        Self { pool, work }
    }

    /// Runs until `shutdown`, in the midst of whatever it does: whoever leads the shard next goes on.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let serving = async {
            let mut failures = 0;
            loop {
                match self.round().await {
                    Ok(0) => {
                        failures = 0;
                        sleep(POLL).await;
                    }
                    Ok(_) => failures = 0,
                    Err(failure) => {
                        if failures == 0 {
                            tell(&failure);
                        }
                        sleep(back_off(failures)).await;
                        failures = failures.saturating_add(1);
                    }
                }
            }
        };
        shutdown.run_until_cancelled(serving).await;
    }

    /// A page of each open request; how many there were. One that fails holds no other.
    async fn round(&self) -> Result<usize, Failure> {
        let led = places(&self.work.log).filter(|place| self.work.leadership.leads(*place));
        let open = requests::open(&self.pool, led).await.map_err(Failure::Requests)?;
        let mut trouble = None;
        let mut moved = 0;
        for part in &open {
            let began = Instant::now();
            match self.page(part).await {
                Ok(()) => moved += 1,
                Err(failure) => trouble = Some(failure),
            }
            sleep(began.elapsed() * (SHARE - 1)).await;
        }
        match trouble {
            Some(failure) if moved == 0 => Err(failure),
            _ => Ok(moved),
        }
    }

    async fn page(&self, part: &Open) -> Result<(), Failure> {
        let _in_use = self.work.leadership.begin(part.place);
        if !self.work.leadership.leads(part.place) {
            return Ok(());
        }
        let mut page = self.work.page(part.place, part.done_to).await?;
        page.records.retain(|record| record.position <= part.last);
        let Some(last) = page.records.last().map(|record| record.position) else {
            return match page.hurdle {
                Some(hurdle) => self.stop(part, hurdle).await,
                // The log does not have what was asked for, though it had when that was asked.
                None => self.stop(part, Failure::Incomplete(part.done_to + 1)).await,
            };
        };
        self.work.republish(part.replay, &page.records).await?;
        metrics::counter!("parlance_relay_replayed_records_total").increment(page.records.len() as u64);
        requests::move_to(&self.pool, part, last).await.map_err(Failure::Requests)
    }

    /// What the log cannot give, it will not give by waiting.
    async fn stop(&self, part: &Open, hurdle: Failure) -> Result<(), Failure> {
        let Some(stall) = hurdle.stall() else { return Err(hurdle) };
        tell_of_the_end(part, &hurdle);
        requests::fail(&self.pool, part, &stall.to_string()).await.map_err(Failure::Requests)
    }
}

fn tell(error: &(dyn Error + 'static)) {
    tracing::warn!(error, "records cannot be published again, and it is tried again");
}

fn tell_of_the_end(part: &Open, error: &(dyn Error + 'static)) {
    let (topic, shard, after) = (part.place.0.name(), part.place.1, part.done_to);
    tracing::error!(error, topic, shard, after, "{topic}/{shard} cannot be published again after {after}");
}
