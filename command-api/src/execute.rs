//! The one way from a command to its answer: every outcome of the log has a status here.

use domain::conversation::ConversationRefusal;
use domain::kernel::LogTopic;
use domain::message::MessageRefusal;
use domain::receipt::ReceiptRefusal;
use domain::session::SessionRefusal;
use domain::user::UserRefusal;
use event_store::{Command, Context, ExecuteError, Executed, LogPosition, Recorded};
use platform::http::{Problem, RequestContext};
use platform::traces::{self, Kind};
use schemas::{Position, PositionToken, Topic};

use crate::service::Service;

/// A refusal that has an answer.
pub(crate) trait Refusal {
    /// What the client is told.
    fn problem(self) -> Problem;
}

impl Service {
    /// Carries a command out; refusals are answers.
    pub(crate) async fn execute<C>(&self, command: C, context: &RequestContext) -> Result<Executed<C::Output>, Problem>
    where
        C: Command,
        C::Refusal: Refusal,
    {
        self.attempt(command, context).await?.map_err(Refusal::problem)
    }

    /// Carries a command out; the caller looks at its refusal.
    pub(crate) async fn attempt<C: Command>(
        &self,
        command: C,
        context: &RequestContext,
    ) -> Result<Result<Executed<C::Output>, C::Refusal>, Problem> {
        let mut stored = stored(context);
        // What the events cause is the child of their commit.
        let mut span = traces::begin("append", Kind::Internal, stored.traceparent.as_deref());
        if let Some(span) = &mut span {
            span.set("parlance.command", name_of::<C>());
            stored.traceparent = Some(span.context().to_string());
        }
        let executed = self.store().execute(command, stored).await;
        if let Some(span) = &mut span {
            match &executed {
                Ok(executed) => span.set("parlance.position", token(executed.position).to_string()),
                Err(ExecuteError::Refused(_)) => span.set("parlance.refused", true),
                Err(_) => span.fail("it was not appended"),
            }
        }
        match executed {
            Ok(executed) => Ok(Ok(executed)),
            Err(ExecuteError::Refused(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// A command's own name, without the modules it is in.
fn name_of<C>() -> &'static str {
    let path = std::any::type_name::<C>();
    path.rsplit("::").next().unwrap_or(path)
}

/// What of a request's context stands with its events.
pub(crate) fn stored(context: &RequestContext) -> Context {
    Context {
        correlation_id: context.correlation_id.as_deref().map(str::to_owned),
        causation_id: context.causation_id,
        traceparent: context.traceparent.as_deref().map(str::to_owned),
        session_id: context.session_id,
    }
}

/// What the log could not do is for the client to try again; what it should have done is logged, once, here.
fn failure<R>(error: &ExecuteError<R>) -> Problem {
    match error {
        ExecuteError::Busy => Problem::unavailable("too many commands wait"),
        ExecuteError::Closed => Problem::unavailable("the server is stopping"),
        ExecuteError::Unavailable(source) => {
            tracing::warn!(error = %source, "the log is not available: {source}");
            Problem::unavailable("the log is not available; whether this was done is not known")
        }
        // Its message may quote values: the lane has logged it with care.
        ExecuteError::Rejected(_) => Problem::unavailable("the log did not take this"),
        ExecuteError::Unreadable(source) => {
            tracing::error!(error = %source, "a stored event cannot be read: {source}");
            Problem::unavailable("something stored cannot be read, and was logged")
        }
        ExecuteError::Defect(message) => {
            tracing::error!("a decision failed: {message}");
            Problem::unavailable("something failed here, and was logged")
        }
        ExecuteError::Refused(_) => Problem::conflict("refused"),
    }
}

/// A place in the log, in the words of the public contract.
pub(crate) fn place(topic: LogTopic, shard: u16, position: u64) -> Position {
    let topic = match topic {
        LogTopic::Users => Topic::Users,
        LogTopic::Conversations => Topic::Conversations,
    };
    Position { topic, shard, position }
}

/// Where a command's effect stands.
pub(crate) fn token(position: LogPosition) -> PositionToken {
    place(position.topic, position.shard, position.position).into()
}

/// Where an event stands.
pub(crate) fn token_of(event: Recorded) -> PositionToken {
    place(event.topic, event.shard, event.position).into()
}

impl Refusal for UserRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Exists | Self::UsernameTaken | Self::EmailTaken => Problem::conflict(self.to_string()),
            Self::Unknown => Problem::not_found(),
            Self::PasswordMoved => Problem::forbidden("this is not the current password"),
        }
    }
}

impl Refusal for SessionRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Exists => Problem::conflict(self.to_string()),
            Self::Unknown => Problem::not_found(),
            Self::Ended => Problem::unauthorized_because(self.to_string()),
        }
    }
}

impl Refusal for ConversationRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Unknown => Problem::not_found(),
            Self::FormerMember | Self::Role => Problem::forbidden(self.to_string()),
            Self::Exists | Self::Direct | Self::LastOwner | Self::Full => Problem::conflict(self.to_string()),
        }
    }
}

impl Refusal for MessageRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Exists => Problem::conflict(self.to_string()),
            Self::Conversation(refusal) => refusal.problem(),
            Self::Mention(index) => Problem::invalid_at(format!("/mentions/{index}"), self.to_string()),
            Self::Reply => Problem::invalid_at("/reply_to", self.to_string()),
        }
    }
}

impl Refusal for ReceiptRefusal {
    fn problem(self) -> Problem {
        let pointer = match self {
            Self::DeliveredBeyondHead { .. } => "/delivered_to",
            Self::ReadBeyondHead { .. } => "/read_to",
        };
        Problem::invalid_at(pointer, self.to_string())
    }
}
