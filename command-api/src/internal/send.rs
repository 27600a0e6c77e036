//! Messages of one conversation, said in the order in which they came.

use axum::extract::State;
use futures::future::{join_all, maybe_done};
use platform::http::{Json, Problem, RequestContext};
use platform::internal::{MOST_MESSAGES, MessagesSent, Outcome, SendMessages, Spoken};

use super::credential::Colleague;
use crate::service::Service;

/// `POST /internal/v1/messages`
pub(super) async fn send(
    _: Colleague,
    State(service): State<Service>,
    context: RequestContext,
    Json(SendMessages { conversation_id, messages }): Json<SendMessages>,
) -> Result<Json<MessagesSent>, Problem> {
    if messages.len() > MOST_MESSAGES {
        return Err(Problem::invalid_at("/messages", "too many at once"));
    }
    let context = context.unrecorded();
    // Limits may be counted elsewhere, and their answers come in any order; so they come before the first is said.
    let admitted = join_all(messages.into_iter().map(async |Spoken { caller, message, traceparent }| {
        service.still_welcome(&caller)?;
        let admitted = service.admit(&caller, message).await?;
        Ok((admitted, context.clone().by(&caller).traced(traceparent)))
    }))
    .await;
    let mut said: Vec<_> = admitted
        .into_iter()
        .map(|admitted| {
            Box::pin(maybe_done(async {
                match admitted {
                    Ok((admitted, context)) => service.say(conversation_id, admitted, &context).await,
                    Err(problem) => Err(problem),
                }
            }))
        })
        .collect();
    // A command is in its lane's queue once it was polled, and stays in its place there.
    for one in &mut said {
        let _ = futures::poll!(one.as_mut());
    }
    join_all(said.iter_mut().map(|one| one.as_mut())).await;
    let outcomes = said.iter_mut().map(|one| match one.as_mut().take_output() {
        Some(Ok(sent)) => Outcome::Sent(sent.message),
        Some(Err(problem)) => Outcome::Refused(problem.to_body(context.trace_id)),
        None => Outcome::Refused(Problem::unavailable("it was not carried out").to_body(context.trace_id)),
    });
    Ok(Json(MessagesSent { outcomes: outcomes.collect() }))
}
