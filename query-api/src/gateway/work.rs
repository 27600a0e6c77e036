//! What sessions want done and takes time: reading, sending, finding out where a device begins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use platform::auth::Caller;
use platform::http::Problem as Refusal;
use platform::traces::{self, Span};
use schemas::Position;
use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use tokio::time::sleep;
use uuid::Uuid;

use super::Shared;
use super::hub::Mailbox;
use super::protocol::event::Receipt;
use super::session::{Action, Advance, Page, Plan, Range, Stay};

/// How long one look at the read models' progress takes at most.
const LOOK: Duration = Duration::from_secs(1);
/// Read models that are not whole are waited for this often, this long; then the device begins with what there is.
const WHOLE_PAUSE: Duration = Duration::from_millis(250);
const WHOLE_TRIES: u32 = 40;

/// How a piece of work ended.
pub(crate) enum Done {
    /// Where the device begins.
    Started(Result<Plan, Failed>),
    /// The conversations that the user is in.
    Stays(Result<Vec<Stay>, Failed>),
    /// Events, or which could not be read.
    Read(Result<Vec<Page>, Vec<Range>>),
    /// Watermarks.
    Receipts(Result<Vec<Receipt>, Failed>),
    /// A `send`.
    Sent(Option<Box<str>>, Result<MessageSent, Problem>),
    /// An `ack` or a `read`.
    Advanced(Advance, Result<(), Problem>),
}

/// It was logged, and may be tried again.
pub(crate) struct Failed;

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        // Logs it.
        let _ = Refusal::from(error);
        Self
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        tracing::warn!(detail = problem.detail, "the command side did not answer: {}", problem.detail);
        Self
    }
}

/// One piece of work.
pub(crate) type Work = BoxFuture<'static, Done>;

/// Whether a piece of work is to be finished though its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody may depend on it.
    Command,
    /// Only the connection wanted to know.
    Question,
}

/// The work that an action stands for, if it is one that takes time.
pub(crate) fn begin(
    shared: &Arc<Shared>,
    mailbox: &Arc<Mailbox>,
    caller: &Caller,
    action: Action,
) -> Option<(Kind, Work)> {
    let (shared, caller) = (shared.clone(), *caller);
    let work: (Kind, Work) = match action {
        Action::Start { given } => {
            let mailbox = mailbox.clone();
            (Kind::Question, Box::pin(async move { Done::Started(start(&shared, &mailbox, &caller, given).await) }))
        }
        Action::Stays => {
            let mailbox = mailbox.clone();
            (Kind::Question, Box::pin(async move { Done::Stays(stays(&shared, &mailbox, caller.user_id).await) }))
        }
        Action::Read(ranges) => (
            Kind::Question,
            Box::pin(async move {
                Done::Read(shared.store.pages(&ranges).await.map_err(|error| {
                    let Failed = error.into();
                    ranges
                }))
            }),
        ),
        Action::Receipts(conversations) => (
            Kind::Question,
            Box::pin(async move {
                Done::Receipts(shared.store.receipts(caller.user_id, &conversations).await.map_err(Failed::from))
            }),
        ),
        Action::Send { reference, conversation_id, message, traceparent } => {
            let sending = async move {
                Done::Sent(reference, send(&shared, &caller, conversation_id, *message, traceparent).await)
            };
            (Kind::Command, Box::pin(sending))
        }
        Action::Advance(advance) => (
            Kind::Command,
            Box::pin(async move {
                let receipt = receipt(&advance);
                let result = shared.port.advance_receipt(&caller, advance.conversation_id, receipt).await;
                Done::Advanced(advance, result)
            }),
        ),
        Action::Verify { .. } | Action::Keep(_) | Action::Forget(_) | Action::Close(..) | Action::Drop => return None,
    };
    Some(work)
}

/// What an `ack` or a `read` is to the command side.
pub(crate) fn receipt(advance: &Advance) -> AdvanceReceipt {
    AdvanceReceipt { delivered_to: advance.delivered_to, read_to: advance.read_to }
}

async fn send(
    shared: &Shared,
    caller: &Caller,
    conversation_id: Uuid,
    message: SendMessage,
    traceparent: Option<Arc<str>>,
) -> Result<MessageSent, Problem> {
    let mut span = traces::begin("send", traces::Kind::Server, traceparent.as_deref());
    let within = span.as_ref().map(Span::traceparent).or(traceparent);
    let sent = shared.port.send(caller, conversation_id, message, within).await;
    if let (Some(span), Err(problem)) = (&mut span, &sent) {
        span.set("http.response.status_code", i64::from(problem.status));
        span.fail("it was not sent");
    }
    sent
}

/// Waits until the read models have what is committed now; answers how far that is, by shard.
async fn caught_up(shared: &Shared) -> Result<Box<[u64]>, Failed> {
    let committed: Vec<Position> = shared.port.positions().await?;
    while !shared.checkpoints.reached(&committed, LOOK).await {}
    let shards = committed.iter().map(|place| usize::from(place.shard) + 1).max().unwrap_or(0);
    let mut by_shard = vec![0; shards];
    for place in committed {
        by_shard[usize::from(place.shard)] = place.position;
    }
    Ok(by_shard.into())
}

/// Finds out where a device begins, and has it told from here on what happens.
async fn start(
    shared: &Shared,
    mailbox: &Arc<Mailbox>,
    caller: &Caller,
    given: Vec<(Uuid, u64)>,
) -> Result<Plan, Failed> {
    // First who comes into a conversation from now on is told, then what was before is read.
    if let Some(heard) = shared.hub.enter(mailbox) {
        heard.await;
    }
    if !shared.live.connected(mailbox.connected()).await {
        shared.unknown.notify_one();
    }
    // It may have gone meanwhile, and said so before this was said.
    if mailbox.is_gone() {
        shared.live.disconnected(mailbox.connected()).await;
    }
    let read_at = caught_up(shared).await?;
    let (user_id, device_id) = (caller.user_id, caller.device_id);
    let mut tries = 0;
    let stored = loop {
        let cursors = shared.cursors.of(user_id, device_id).await?;
        let (stored, whole) = shared.store.stored(user_id, cursors, device_id, &given).await?;
        if whole || tries == WHOLE_TRIES {
            break stored;
        }
        tries += 1;
        sleep(WHOLE_PAUSE).await;
    };
    // Heard before the heads are read: nothing falls between the two.
    let listen = |stay: &Stay| shared.hub.listen(mailbox, stay.conversation_id, stay.head, Some(stay.members)).1;
    join_all(stored.stays.iter().filter_map(listen).collect::<Vec<_>>()).await;
    let conversations: Vec<Uuid> = stored.stays.iter().map(|stay| stay.conversation_id).collect();
    let heads = if conversations.is_empty() { HashMap::new() } else { shared.port.heads(&conversations).await? };
    let plan = Plan { read_at, ..Plan::new(&stored, &given, &heads) };
    if plan.is_new {
        shared.cursors.enrol(user_id, device_id, &plan.store).await?;
    } else {
        plan.store.iter().for_each(|cursor| shared.cursors.keep(user_id, device_id, *cursor));
    }
    Ok(plan)
}

/// Finds out which conversations the user is in, and has the session told what happens in them.
async fn stays(shared: &Shared, mailbox: &Arc<Mailbox>, user_id: Uuid) -> Result<Vec<Stay>, Failed> {
    caught_up(shared).await?;
    let mut stays = shared.store.stays(user_id).await?;
    for stay in &mut stays {
        let told = shared.hub.join(mailbox, stay.conversation_id, stay.head, Some(stay.members));
        stay.head = stay.head.max(told);
    }
    Ok(stays)
}
