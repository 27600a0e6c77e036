//! What each frame from the server makes the driver do, and what each close code means.

use std::time::{Duration, Instant};

use schemas::{
    rest::{MessageSent, Problem},
    ws::close,
};
use time::OffsetDateTime;
use tokio_tungstenite::tungstenite::{self, Message as WsMessage};
use uuid::Uuid;

use super::{Driver, End, Live, with_store};
use crate::{
    error::Error,
    session::{
        CloseReason, Update,
        inbox::Verdict,
        wire::{Reference, ServerFrame},
    },
};

/// Refusals for now that say no time are tried again after this, at most.
const MAX_RETRY: Duration = Duration::from_mins(1);

impl Driver {
    pub(super) fn take_message(
        &mut self,
        live: &mut Live,
        message: Option<Result<WsMessage, tungstenite::Error>>,
    ) -> Result<(), End> {
        let text = match message {
            Some(Ok(WsMessage::Text(text))) => text,
            Some(Ok(WsMessage::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                return Err(self.closed(live, code, &reason));
            }
            // Pings are answered by the socket itself.
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => return Err(End::again(error)),
            None => return Err(End::again("the connection ended")),
        };
        let frame = serde_json::from_str(&text).map_err(|error| End::NotUnderstood {
            reason: format!("a frame that the contract does not know: {error}"),
        })?;
        self.take_frame(live, frame)
    }

    fn take_frame(&mut self, live: &mut Live, frame: ServerFrame) -> Result<(), End> {
        match frame {
            ServerFrame::Welcome(welcome) => {
                live.welcomed = true;
                live.heartbeat = Duration::from_secs(welcome.heartbeat_s.max(1));
                self.tell(Update::Online(welcome));
            }
            ServerFrame::Synced => self.tell(Update::Synced),
            ServerFrame::Event(event) => {
                let (conversation, seq) = (event.conversation_id, event.seq);
                match self.inbox.offer(conversation, seq, event.is_joining_of(self.client.user_id())) {
                    Verdict::Take => self.tell(Update::Event(event)),
                    Verdict::Duplicate => self.acks.repeat(conversation, seq, Instant::now()),
                    Verdict::Gap { expected } => {
                        tracing::error!(%conversation, seq, expected, "a gap: event {seq} of {conversation} came instead of {expected}");
                        return Err(End::NotUnderstood {
                            reason: format!("{conversation}/{seq} came instead of {expected}"),
                        });
                    }
                }
            }
            ServerFrame::Receipt(receipt) => self.tell(Update::Receipt(receipt)),
            ServerFrame::Left { conversation_id } => {
                self.inbox.leave(conversation_id);
                self.acks.leave(conversation_id);
                self.reads.leave(conversation_id);
                self.tell(Update::Left(conversation_id));
            }
            ServerFrame::Ok(answer) => match Reference::parse(&answer.r#ref) {
                Reference::Send(message) => {
                    if let Some(draft) = self.outbox.resolve(message) {
                        let sent = answer.into_sent(draft.conversation_id).ok_or_else(|| End::NotUnderstood {
                            reason: "the answer to a send lacks what it promises".to_owned(),
                        });
                        self.settled(message, Ok(sent?));
                    }
                }
                Reference::Read { conversation, seq } => self.reads.settled(conversation, seq),
                Reference::Auth | Reference::Other => {}
            },
            ServerFrame::Error { r#ref, problem } => self.refused(live, r#ref.as_deref(), problem),
            ServerFrame::Unknown => {}
        }
        Ok(())
    }

    fn refused(&mut self, live: &mut Live, reference: Option<&str>, problem: Problem) {
        let retryable = problem.retryable || problem.status == 429;
        let asked = Duration::from_secs(problem.retry_after_s.unwrap_or(0));
        let backoff = self.options.backoff;
        let again = |refusals| Instant::now() + backoff.draw(refusals).max(asked).min(MAX_RETRY);
        match reference.map_or(Reference::Other, Reference::parse) {
            Reference::Send(message) if retryable => {
                self.outbox.retry(message, again(self.outbox.attempts(message).saturating_sub(1)));
            }
            Reference::Send(message) => {
                if self.outbox.resolve(message).is_some() {
                    self.settled(message, Err(problem));
                }
            }
            Reference::Read { conversation, seq } if retryable => self.reads.retry(conversation, seq, again),
            Reference::Read { conversation, seq } => {
                tracing::warn!(%conversation, seq, status = problem.status, detail = %problem.detail, "a read was refused");
                self.reads.settled(conversation, seq);
            }
            Reference::Auth => {
                tracing::warn!(status = problem.status, detail = %problem.detail, "the renewal was refused");
                live.renew_at = OffsetDateTime::now_utc() + Duration::from_secs(1);
            }
            Reference::Other => {
                tracing::warn!(status = problem.status, detail = %problem.detail, "the server refused a frame");
            }
        }
    }

    /// A message was answered for good: whoever waits is told, and the store lets it go.
    fn settled(&mut self, message_id: Uuid, outcome: Result<MessageSent, Problem>) {
        if let Some(store) = self.store.clone() {
            tokio::spawn(async move {
                if let Err(error) = with_store(&store, move |store| store.remove(message_id)).await {
                    tracing::warn!(%message_id, %error, "the outbox' store keeps message {message_id}; it will be sent again");
                }
            });
        }
        let Some(waiter) = self.waiters.remove(&message_id) else {
            self.tell(match outcome {
                Ok(sent) => Update::Sent(sent),
                Err(problem) => Update::Refused { message_id, problem: Box::new(problem) },
            });
            return;
        };
        // Nobody waits for it any more if this fails.
        let _ = waiter.answered.send(outcome.map_err(|problem| Error::Refused(Box::new(problem))));
    }

    /// What a close code means for us.
    fn closed(&self, live: &Live, code: u16, reason: &str) -> End {
        let reason = format!("the server closed with {code} {reason}");
        match code {
            close::PROTOCOL => End::NotUnderstood { reason },
            close::TOKEN => End::Unauthorized { token: live.token.clone() },
            close::REPLACED => End::Over(CloseReason::Replaced),
            // Many are sent away at once: they should not all come back at once.
            close::DRAINING => {
                End::Again { reason, not_before: self.options.backoff.base.mul_f64(2.0 * rand::random::<f64>()) }
            }
            close::RATE_LIMIT => {
                End::Again { reason, not_before: Duration::from_secs(10).min(self.options.backoff.max) }
            }
            _ => End::Again { reason, not_before: Duration::ZERO },
        }
    }
}
