//! Bounded waiting for a condition: what tests do instead of sleeping.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks `condition` again and again until it holds; panics with `what` once `bound` has passed.
///
/// # Example
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
///
/// let mut asked = 0;
/// testkit::eventually("the third question", Duration::from_secs(1), async || {
///     asked += 1;
///     asked == 3
/// })
/// .await;
/// # });
/// ```
pub async fn eventually(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, bound, async || condition().await.then_some(())).await;
}

/// As [`eventually`], for a condition that brings something along.
pub async fn eventually_some<T>(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_ok(what, bound, async || condition().await.ok_or("it was not so")).await
}

/// As [`eventually_some`], for a condition that says what is still missing: the panic repeats what it said last.
pub async fn eventually_ok<T, M: Display>(
    what: &str,
    bound: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, M>,
) -> T {
    let end = Instant::now() + bound;
    let mut pause = FIRST_PAUSE;
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(missing) => assert!(Instant::now() < end, "not within {bound:?}: {what}: {missing}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_found_is_handed_on() {
        let mut asked = 0;
        let found = eventually_some("a number", Duration::from_secs(1), async || {
            asked += 1;
            (asked > 4).then_some(asked)
        })
        .await;
        assert_eq!(found, 5);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 20ms: pigs fly")]
    async fn the_bound_ends_the_wait() {
        eventually("pigs fly", Duration::from_millis(20), async || false).await;
    }

    #[tokio::test]
    #[should_panic(expected = "not within 20ms: pigs fly: they have no wings")]
    async fn what_was_missing_at_last_is_said() {
        eventually_ok("pigs fly", Duration::from_millis(20), async || Err::<(), _>("they have no wings")).await;
    }
}
