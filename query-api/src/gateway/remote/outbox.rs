//! Messages on their way: those of one conversation one call after the other, each with all that came meanwhile.
//!
//! Two calls at once could arrive in another order than that in which a sender said their messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use platform::auth::Caller;
use platform::http::{MAX_BODY_BYTES, Problem as Refusal, TraceId};
use platform::internal::{MOST_MESSAGES, MessagesSent, Outcome, SEND};
use schemas::rest::{MessageSent, Problem, SendMessage};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::call::{BOUND, Calls};
use super::fleet::Whose;

/// Messages that may wait or be under way at once.
const MOST: usize = 32_768;
/// What the bodies of several messages in one call may come to, in bytes; the rest is what stands around them.
const LONGEST: usize = MAX_BODY_BYTES - 1024;

const STOPPING: &str = "the server is stopping";

/// What is on its way.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    calls: Arc<Calls>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// What waits in each conversation that has a call under way.
    queues: HashMap<Uuid, VecDeque<Waiting>>,
    /// How many wait or are under way in all.
    count: usize,
}

#[derive(Debug)]
struct Waiting {
    /// As it goes out: a `platform::internal::Spoken`.
    spoken: Box<RawValue>,
    until: Instant,
    answer: oneshot::Sender<Result<MessageSent, Problem>>,
}

/// A `platform::internal::Spoken` that is only looked at.
#[derive(Serialize)]
struct Spoken<'a> {
    caller: &'a Caller,
    message: &'a SendMessage,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

/// A `platform::internal::SendMessages` of what was written before.
#[derive(Serialize)]
struct SendMessages<'a> {
    conversation_id: Uuid,
    messages: Vec<&'a RawValue>,
}

impl Outbox {
    pub(super) fn new(calls: Arc<Calls>) -> Self {
        let shared = Arc::new(Shared { calls, table: Mutex::default() });
        Self { shared, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Sends a message, after those of its conversation that came before. One who stops waiting does not take it back.
    pub(super) async fn send(
        &self,
        caller: Caller,
        conversation_id: Uuid,
        message: SendMessage,
        traceparent: Option<&str>,
    ) -> Result<MessageSent, Problem> {
        let spoken = serde_json::value::to_raw_value(&Spoken { caller: &caller, message: &message, traceparent })
            .map_err(|_| unavailable("the message cannot be handed on"))?;
        let (answer, answered) = oneshot::channel();
        self.put(conversation_id, Waiting { spoken, until: Instant::now() + BOUND, answer }).map_err(unavailable)?;
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable(STOPPING)),
        }
    }

    /// Puts a message behind those of its conversation, or says why not.
    fn put(&self, conversation_id: Uuid, waiting: Waiting) -> Result<(), &'static str> {
        if self.stop.is_cancelled() {
            return Err(STOPPING);
        }
        let mut table = self.shared.table.lock();
        if table.count >= MOST {
            return Err("too many messages wait");
        }
        table.count += 1;
        if let Some(queue) = table.queues.get_mut(&conversation_id) {
            queue.push_back(waiting);
        } else {
            table.queues.insert(conversation_id, VecDeque::from([waiting]));
            self.tasks.spawn(self.shared.clone().run(conversation_id));
        }
        Ok(())
    }

    /// Takes nothing more, and waits until all was answered.
    pub(super) async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Shared {
    /// Sends what waits in a conversation, until nothing does.
    async fn run(self: Arc<Self>, conversation_id: Uuid) {
        while let Some(batch) = self.next(conversation_id) {
            let until = batch.iter().map(|waiting| waiting.until).min().unwrap_or_else(Instant::now);
            let messages = batch.iter().map(|waiting| &*waiting.spoken).collect();
            let body = SendMessages { conversation_id, messages };
            let outcomes =
                self.calls.ask_until::<MessagesSent>(until, Whose::Owner(conversation_id), SEND, &body).await;
            self.table.lock().count -= batch.len();
            let mut outcomes = outcomes.map(|sent| sent.outcomes.into_iter());
            for Waiting { answer, .. } in batch {
                let outcome = match &mut outcomes {
                    Ok(outcomes) => match outcomes.next() {
                        Some(Outcome::Sent(sent)) => Ok(sent),
                        Some(Outcome::Refused(problem)) => Err(problem),
                        None => Err(unavailable("the command side did not say what came of it")),
                    },
                    Err(problem) => Err(problem.clone()),
                };
                // Whoever is gone does not ask.
                let _ = answer.send(outcome);
            }
        }
    }

    /// What goes out next, as much as one call takes; nothing where the conversation is done with.
    fn next(&self, conversation_id: Uuid) -> Option<Vec<Waiting>> {
        let mut table = self.table.lock();
        let queue = table.queues.get_mut(&conversation_id)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(waiting) = queue.front() {
            bytes += waiting.spoken.get().len() + 1;
            if !batch.is_empty() && (bytes > LONGEST || batch.len() == MOST_MESSAGES) {
                break;
            }
            batch.extend(queue.pop_front());
        }
        if batch.is_empty() {
            table.queues.remove(&conversation_id);
            return None;
        }
        Some(batch)
    }
}

fn unavailable(detail: &'static str) -> Problem {
    Refusal::unavailable(detail).to_body(TraceId::random())
}
