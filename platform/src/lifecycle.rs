//! The life of a process: tasks that are tracked, and two ways to be told to stop.
//!
//! *Draining* says: take nothing new, finish what you have. *Aborting* says: the time for that is over. Both reach
//! everything that holds a [`Lifecycle`]; [`Lifecycle::shutdown`] goes from one to the other.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

/// After the order to abort; whoever still runs then is left behind.
const ABORT_BOUND: Duration = Duration::from_millis(500);

/// A handle on the life of the process; clones are the same life.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    aborting: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Everything finished in time.
    pub drained: bool,
    /// An essential task ended by itself.
    pub failed: bool,
}

impl Lifecycle {
    /// A new life.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that [`Lifecycle::shutdown`] waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Runs a task that the process cannot do without: should it end, fail or panic before it was told to drain, the
    /// whole process drains, so that whoever watches over it starts a sound one.
    pub fn spawn_essential<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let life = self.clone();
        // A task of its own, so that its panic is an outcome to look at.
        let running = self.tasks.spawn(task);
        self.tasks.spawn(async move {
            let reason = match running.await {
                Ok(Ok(())) if life.is_draining() => return,
                Ok(Ok(())) => "it came to its end".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::error!(task = name, reason, "the task {name} ended; the process stops");
            life.failed.store(true, Ordering::Relaxed);
            life.drain();
        });
    }

    /// Tells everything to drain.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Completes when it is time to drain.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Whether it is time to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Completes when the time to drain is over.
    pub fn aborting(&self) -> WaitForCancellationFuture<'_> {
        self.aborting.cancelled()
    }

    /// The order to drain, as a token to hand on.
    #[must_use]
    pub fn drain_token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Completes at the end of the process's time: SIGTERM, SIGINT (Ctrl-C), or an essential task that ended. A second
    /// signal, while draining, aborts.
    ///
    /// Signals are heeded from this call on, so that one that comes before the wait begins is not the process's death.
    ///
    /// # Errors
    /// A system that does not let us heed them.
    pub fn end(&self) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let life = self.clone();
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
                _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
                () = life.draining() => {}
            }
            life.drain();
            let aborting = life.aborting.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = aborting.cancelled() => {}
                }
                aborting.cancel();
            });
        })
    }

    /// Drains, at most `bound`, then aborts.
    pub async fn shutdown(&self, bound: Duration) -> Outcome {
        self.drain();
        self.tasks.close();
        let drained = tokio::select! {
            finished = timeout(bound, self.tasks.wait()) => finished.is_ok(),
            () = self.aborting() => false,
        };
        self.aborting.cancel();
        if !drained {
            tracing::warn!(tasks = self.tasks.len(), "not everything drained in time");
            // Those that heed the order end here; the others are dropped with the runtime.
            if timeout(ABORT_BOUND, self.tasks.wait()).await.is_err() {
                tracing::warn!(tasks = self.tasks.len(), "tasks are left behind");
            }
        }
        Outcome { drained, failed: self.failed.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const BOUND: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn tasks_finish_what_they_have_before_the_process_ends() {
        let life = Lifecycle::new();
        let finished = Arc::new(AtomicBool::new(false));
        life.spawn({
            let (life, finished) = (life.clone(), finished.clone());
            async move {
                life.draining().await;
                tokio::task::yield_now().await;
                finished.store(true, Ordering::SeqCst);
            }
        });
        let outcome = life.shutdown(BOUND).await;
        assert_eq!(outcome, Outcome { drained: true, failed: false });
        assert!(finished.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn who_does_not_drain_is_told_to_abort() {
        let life = Lifecycle::new();
        life.spawn({
            let life = life.clone();
            async move { life.aborting().await }
        });
        let outcome = life.shutdown(Duration::from_millis(10)).await;
        assert_eq!(outcome, Outcome { drained: false, failed: false });
        assert!(life.tasks.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_an_essential_task_is_the_end_of_the_process() {
        for panics in [false, true] {
            let life = Lifecycle::new();
            life.spawn_essential("relay", async move {
                assert!(!panics, "as it must");
                Err("the log is gone")
            });
            timeout(BOUND, life.end().unwrap()).await.unwrap();
            let outcome = life.shutdown(BOUND).await;
            assert_eq!(outcome, Outcome { drained: true, failed: true });
        }
    }

    #[tokio::test]
    async fn an_essential_task_may_end_when_told_to() {
        let life = Lifecycle::new();
        life.spawn_essential("relay", {
            let life = life.clone();
            async move {
                life.draining().await;
                Ok::<(), Infallible>(())
            }
        });
        let outcome = life.shutdown(BOUND).await;
        assert_eq!(outcome, Outcome { drained: true, failed: false });
    }
}
