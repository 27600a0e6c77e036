//! One call: to whoever it is for, else to the next, until one answers or its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use platform::http::{Problem as Refusal, TraceId};
use platform::registry::Members;
use schemas::rest::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::fleet::{Fleet, Whose, follow};

/// How long a call may take, with all tries.
pub(super) const BOUND: Duration = Duration::from_secs(5);
/// Between two rounds of tries: at first, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Makes calls.
#[derive(Debug)]
pub(super) struct Calls {
    fleet: watch::Receiver<Arc<Fleet>>,
    /// Told whenever more can be reached.
    news: watch::Receiver<()>,
    made: AtomicUsize,
}

impl Calls {
    pub(super) fn new(members: watch::Receiver<Members>, token: &str) -> Self {
        metrics::describe_counter!(
            "parlance_remote_commands_retried_total",
            "Calls that went to another command-api because the first could not be reached or went away."
        );
        metrics::describe_histogram!(
            "parlance_remote_commands_duration_seconds",
            metrics::Unit::Seconds,
            "Time from a call to the command side to its answer, with all tries."
        );
        let mut token =
            HeaderValue::from_str(&format!("Bearer {token}")).expect("base64 is made of visible characters");
        token.set_sensitive(true);
        let (publish, news) = watch::channel(());
        Self { fleet: follow(members, token, publish), news, made: AtomicUsize::new(0) }
    }

    /// How many command-apis can be reached.
    pub(super) fn reachable(&self) -> usize {
        self.fleet.borrow().reachable()
    }

    /// Whose a conversation is, by a number that holds while the list of command-apis does.
    pub(super) fn owner(&self, conversation_id: Uuid) -> Option<usize> {
        self.fleet.borrow().owner(conversation_id)
    }

    /// Asks, and reads the answer.
    pub(super) async fn ask<A: DeserializeOwned>(
        &self,
        whose: Whose,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<A, Problem> {
        self.ask_until(Instant::now() + BOUND, whose, path, body).await
    }

    /// As [`Self::ask`], until a time of the caller's.
    pub(super) async fn ask_until<A: DeserializeOwned>(
        &self,
        until: Instant,
        whose: Whose,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<A, Problem> {
        let (answer, trace) = self.call(until, whose, path, body).await?;
        serde_json::from_slice(&answer).map_err(|_| unreadable(path, trace))
    }

    /// Asks for something to be done that has no answer but that it was.
    pub(super) async fn tell(&self, whose: Whose, path: &'static str, body: &impl Serialize) -> Result<(), Problem> {
        self.call(Instant::now() + BOUND, whose, path, body).await.map(drop)
    }

    async fn call(
        &self,
        until: Instant,
        whose: Whose,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(Bytes, TraceId), Problem> {
        let (begun, trace) = (Instant::now(), TraceId::random());
        let body = Bytes::from(serde_json::to_vec(body).map_err(|_| unreadable(path, trace))?);
        let answer = timeout_at(until, self.answered(whose, path, &body, trace)).await;
        metrics::histogram!("parlance_remote_commands_duration_seconds", "route" => path).record(begun.elapsed());
        let Ok((status, answer)) = answer else {
            tracing::warn!(trace_id = %trace, route = path, "the command side did not answer in time");
            let late = Refusal::unavailable("the command side did not answer; whether this was done is not known");
            return Err(late.to_body(trace));
        };
        if status.is_success() {
            return Ok((answer, trace));
        }
        Err(serde_json::from_slice(&answer).unwrap_or_else(|_| unreadable(path, trace)))
    }

    /// Tries one after the other, again and again.
    async fn answered(&self, whose: Whose, path: &str, body: &Bytes, trace: TraceId) -> (StatusCode, Bytes) {
        let turn = self.made.fetch_add(1, Ordering::Relaxed);
        let mut news = self.news.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            news.mark_unchanged();
            let fleet = self.fleet.borrow().clone();
            for link in fleet.order(whose, turn) {
                if let Ok(answer) = link.post(path, body.clone(), trace).await {
                    return answer;
                }
                metrics::counter!("parlance_remote_commands_retried_total").increment(1);
            }
            tokio::select! {
                Ok(()) = news.changed() => {}
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }
}

/// What another version of us might answer, or something else at our address.
fn unreadable(path: &str, trace: TraceId) -> Problem {
    tracing::error!(trace_id = %trace, route = path, "the command side's answer cannot be read");
    Refusal::unavailable("the command side's answer cannot be read").to_body(trace)
}
