//! Bounded waiting for what other processes do.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(25);

/// Asks until the condition holds (true) or the bound has passed (false).
pub(crate) async fn until(bound: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + bound;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(PAUSE).await;
    }
}
