//! What a client asks for, and what it is answered.

use std::collections::HashMap;

use platform::auth::Caller;
use platform::http::{Problem as Refusal, TraceId};
use schemas::rest::{FieldError, MessageSent, Problem};
use schemas::ws::close;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Action, Advance, Cursor, HEARTBEAT_S, Hello, Output, Phase, REFUSALS, REFUSALS_MS, RETRY_MS, Session};
use crate::gateway::protocol::answer;
use crate::gateway::protocol::request::{self, Request};

const TOO_MANY_REQUESTS: u16 = 429;
/// Conversations whose acks may wait for the start of a session that the command side could not take.
const UNREPORTED: usize = 1024;

impl Session {
    /// A text frame came; `at` is the wall clock's time.
    pub(crate) fn text(&mut self, now_ms: u64, at: OffsetDateTime, text: &str, out: &mut Output) {
        if self.is_closed() {
            return;
        }
        let frame = match request::parse(text) {
            Ok(frame) => frame,
            Err(not_a_frame) => return self.close(close::PROTOCOL, not_a_frame.0, out),
        };
        if matches!(self.phase, Phase::Connected { .. }) && !frame.is_hello {
            return self.close(close::PROTOCOL, "the first frame is not hello", out);
        }
        if !matches!(self.phase, Phase::Connected { .. }) && frame.is_hello {
            return self.close(close::PROTOCOL, "a second hello", out);
        }
        let reference = frame.reference;
        match frame.request {
            Err(refusal) => refuse(reference.as_deref(), &refusal, out),
            Ok(Request::Hello { cursors, errors }) => {
                out.frame(answer::welcome(reference.as_deref(), &self.caller, HEARTBEAT_S, at));
                out.act(Action::Start { given: cursors.clone() });
                let unreported = HashMap::new();
                self.phase = Phase::Starting(Box::new(Hello { reference, given: cursors, errors, unreported }));
            }
            Ok(Request::Ping) => out.frame(answer::pong(reference.as_deref())),
            Ok(Request::Auth { access_token }) => out.act(Action::Verify { reference, access_token }),
            Ok(Request::Send { conversation_id, message, traceparent }) => {
                out.act(Action::Send { reference, conversation_id, message, traceparent });
            }
            Ok(Request::Read { conversation_id, seq }) => {
                let decides = self.flows.get(&conversation_id).is_none_or(|flow| seq > flow.head);
                let (delivered_to, read_to) = (None, Some(seq));
                out.act(Action::Advance(Advance { reference, conversation_id, delivered_to, read_to, decides }));
            }
            Ok(Request::Ack { conversation_id, seq }) => self.ack(now_ms, at, conversation_id, seq, reference, out),
        }
    }

    pub(super) fn ack(
        &mut self,
        now_ms: u64,
        at: OffsetDateTime,
        conversation_id: Uuid,
        seq: u64,
        reference: Option<Box<str>>,
        out: &mut Output,
    ) {
        let known = self.flows.get(&conversation_id).map(|flow| (flow.head, flow.acked, flow.delivered));
        match known {
            Some((head, acked, delivered)) if seq <= head => {
                if seq > acked {
                    self.acked(now_ms, conversation_id, seq);
                    self.keep(conversation_id, at, out);
                    self.pump(now_ms, out);
                }
                if seq > delivered {
                    return self.report(conversation_id, seq, reference, out);
                }
            }
            // An event of a stay that ended since: there is nothing more to be done about it.
            None if self.ended.iter().any(|(id, left)| *id == conversation_id && seq <= *left) => {}
            _ => {
                let (delivered_to, read_to) = (Some(seq), None);
                let advance = Advance { reference, conversation_id, delivered_to, read_to, decides: true };
                return out.act(Action::Advance(advance));
            }
        }
        if let Some(reference) = reference {
            out.frame(answer::ok(&reference));
        }
    }

    /// Keeps where the device stands.
    fn keep(&mut self, conversation_id: Uuid, at: OffsetDateTime, out: &mut Output) {
        if let Some(flow) = self.flows.get(&conversation_id) {
            let (joined, acked) = (Some(flow.joined), flow.acked);
            out.act(Action::Keep(Cursor { conversation_id, joined, acked, acked_at: Some(at) }));
        }
    }

    /// Tells the command side what was delivered.
    pub(super) fn report(&mut self, conversation_id: Uuid, seq: u64, reference: Option<Box<str>>, out: &mut Output) {
        if let Some(flow) = self.flows.get_mut(&conversation_id) {
            flow.delivered = flow.delivered.max(seq);
        }
        let (delivered_to, read_to) = (Some(seq), None);
        out.act(Action::Advance(Advance { reference, conversation_id, delivered_to, read_to, decides: false }));
    }

    /// How a `send` ended.
    pub(crate) fn sent(
        &mut self,
        now_ms: u64,
        reference: Option<&str>,
        result: Result<MessageSent, Problem>,
        out: &mut Output,
    ) {
        match (result, reference) {
            (Ok(sent), Some(reference)) => out.frame(answer::sent(reference, sent)),
            (Ok(_), None) => {}
            (Err(problem), reference) => self.refused(now_ms, reference, &problem, out),
        }
    }

    /// How an `ack` or a `read` ended.
    pub(crate) fn advanced(
        &mut self,
        now_ms: u64,
        at: OffsetDateTime,
        advance: &Advance,
        result: Result<(), Problem>,
        out: &mut Output,
    ) {
        let reference = advance.reference.as_deref();
        let Err(problem) = result else {
            if let (true, Some(seq)) = (advance.decides, advance.delivered_to) {
                if let Some(flow) = self.flows.get_mut(&advance.conversation_id) {
                    flow.head = flow.head.max(seq);
                }
                self.acked(now_ms, advance.conversation_id, seq);
                self.keep(advance.conversation_id, at, out);
                self.pump(now_ms, out);
            }
            if let Some(reference) = reference {
                out.frame(answer::ok(reference));
            }
            return;
        };
        if let (false, Some(seq)) = (advance.decides, advance.delivered_to) {
            // This device's cursor stands; only the watermark has not moved.
            if let Some(flow) = self.flows.get_mut(&advance.conversation_id) {
                flow.delivered = flow.delivered.min(seq - 1);
                if problem.retryable {
                    self.unreported.push(advance.conversation_id);
                    self.retry_at(now_ms + 2 * RETRY_MS);
                    if reference.is_none() {
                        return;
                    }
                }
            } else if reference.is_none() {
                return;
            }
        }
        if let (true, None, Some(seq)) = (problem.retryable, reference, advance.delivered_to) {
            // Who wants no answer takes an ack for told as long as the connection lasts.
            let id = advance.conversation_id;
            if self.flows.get(&id).is_some_and(|flow| seq <= flow.head) {
                return self.ack(now_ms, at, id, seq, None, out);
            }
            if let Phase::Starting(hello) = &mut self.phase
                && hello.keep(id, seq, at)
            {
                return;
            }
        }
        self.refused(now_ms, reference, &problem, out);
    }

    /// Who a token given in band stands for, and when it expires.
    pub(crate) fn verified(
        &mut self,
        reference: Option<&str>,
        verified: Option<Caller>,
        expires_ms: u64,
        out: &mut Output,
    ) {
        match verified {
            Some(caller) if caller.session_id == self.caller.session_id => {
                self.caller.expires_at = caller.expires_at;
                self.expires_ms = expires_ms;
                if let Some(reference) = reference {
                    out.frame(answer::ok(reference));
                }
            }
            _ => self.close(close::TOKEN, "not a token of this session", out),
        }
    }

    fn refused(&mut self, now_ms: u64, reference: Option<&str>, problem: &Problem, out: &mut Output) {
        if self.is_closed() {
            return;
        }
        out.frame(answer::error(reference, problem));
        if problem.status != TOO_MANY_REQUESTS {
            return;
        }
        self.refusals.push_back(now_ms);
        while self.refusals.pop_front_if(|at| *at + REFUSALS_MS <= now_ms).is_some() {}
        if self.refusals.len() >= REFUSALS {
            self.close(close::RATE_LIMIT, "too many refusals", out);
        }
    }
}

impl Hello {
    /// Keeps an ack until it is known where the device begins; whether there was room.
    fn keep(&mut self, conversation_id: Uuid, seq: u64, at: OffsetDateTime) -> bool {
        if self.unreported.len() >= UNREPORTED && !self.unreported.contains_key(&conversation_id) {
            return false;
        }
        let (kept, _) = *self.unreported.entry(conversation_id).or_insert((seq, at));
        if seq > kept {
            self.unreported.insert(conversation_id, (seq, at));
        }
        true
    }
}

/// Says what was wrong with the cursors of a `hello`.
pub(super) fn say_hello_errors(hello: Hello, more: Vec<FieldError>, out: &mut Output) {
    let Hello { reference, mut errors, .. } = hello;
    errors.extend(more);
    if !errors.is_empty() {
        refuse(reference.as_deref(), &Refusal::invalid(errors), out);
    }
}

fn refuse(reference: Option<&str>, refusal: &Refusal, out: &mut Output) {
    out.frame(answer::error(reference, &refusal.to_body(TraceId::random())));
}
