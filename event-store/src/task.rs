//! Commands behind one type, with the way back to their callers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::command::{Command, Context, ExecuteError, Executed, LogPosition, Reads};
use crate::event::UnreadableEvent;
use crate::workspace::Workspace;

/// A command in a lane.
pub(crate) struct Task {
    pub(crate) work: Box<dyn Work>,
    /// Its shard among those of all topics.
    pub(crate) shard: usize,
    pub(crate) key: Uuid,
    pub(crate) context: Option<Arc<Context>>,
    /// The context as it is stored.
    pub(crate) metadata: Option<Arc<str>>,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Accepted,
    Refused,
    /// It panicked.
    Defect(String),
}

/// Why a command was not decided, or its decision not kept.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Unavailable(Arc<sqlx::Error>),
    Rejected(Arc<sqlx::Error>),
    Unreadable(Arc<UnreadableEvent>),
    Defect(String),
}

/// A command whose types are forgotten.
pub(crate) trait Work: Send {
    fn reads(&self, reads: &mut Reads);
    /// Decides and remembers the result; forgets that of an earlier time. Undoes what a refusal left.
    fn decide(&mut self, work: Workspace<'_>) -> Decision;
    /// Tells the caller what was decided last.
    fn answer(self: Box<Self>, position: LogPosition, changed: bool);
    fn fail(self: Box<Self>, failure: Failure);
}

type Answer<C> = Result<Executed<<C as Command>::Output>, ExecuteError<<C as Command>::Refusal>>;

struct Typed<C: Command> {
    command: C,
    decided: Option<Result<C::Output, C::Refusal>>,
    reply: oneshot::Sender<Answer<C>>,
}

/// The command without its types, and where its answer comes.
pub(crate) fn erase<C: Command>(command: C) -> (Box<dyn Work>, oneshot::Receiver<Answer<C>>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Typed { command, decided: None, reply }), answer)
}

impl<C: Command> Work for Typed<C> {
    fn reads(&self, reads: &mut Reads) {
        self.command.reads(reads);
    }

    fn decide(&mut self, mut work: Workspace<'_>) -> Decision {
        // One defective command must not end the lane. What it leaves half done is undone, so it is safe to go on.
        match catch_unwind(AssertUnwindSafe(|| self.command.decide(&mut work))) {
            Ok(Ok(output)) => {
                work.keep();
                self.decided = Some(Ok(output));
                Decision::Accepted
            }
            Ok(Err(refusal)) => {
                work.undo();
                self.decided = Some(Err(refusal));
                Decision::Refused
            }
            Err(panic) => {
                work.undo();
                self.decided = None;
                Decision::Defect(message(&*panic))
            }
        }
    }

    fn answer(self: Box<Self>, position: LogPosition, changed: bool) {
        let answer = match self.decided {
            Some(Ok(output)) => Ok(Executed { output, position, changed }),
            Some(Err(refusal)) => Err(ExecuteError::Refused(refusal)),
            None => Err(ExecuteError::Defect("answered before it was decided".to_owned())),
        };
        // A caller that is gone needs no answer.
        let _ = self.reply.send(answer);
    }

    fn fail(self: Box<Self>, failure: Failure) {
        let _ = self.reply.send(Err(match failure {
            Failure::Unavailable(error) => ExecuteError::Unavailable(error),
            Failure::Rejected(error) => ExecuteError::Rejected(error),
            Failure::Unreadable(error) => ExecuteError::Unreadable(error),
            Failure::Defect(message) => ExecuteError::Defect(message),
        }));
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panicked").to_owned()
}
