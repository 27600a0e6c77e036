//! Others' watermarks and one's own: told at the start as they stand, then as they move, and only forward.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Action, Output, RETRY_MS, Session};
use crate::gateway::protocol::event::Receipt;

/// Conversations whose watermarks are read at once.
const AT_ONCE: usize = 64;
/// What comes over the live bus may be older than what was read at the start, for at most this long after it.
const OVERLAP_MS: u64 = 60_000;

/// What was told since the start: while what is read and what is live overlap, one may be older than the other.
#[derive(Debug)]
pub(super) struct Marks {
    told: HashMap<(Uuid, Uuid), (u64, u64)>,
    until_ms: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { told: HashMap::new(), until_ms: u64::MAX }
    }
}

impl Marks {
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Whether it moves anything forward, and nothing back.
    fn forward(&mut self, receipt: &Receipt) -> bool {
        let told = self.told.entry((receipt.conversation_id, receipt.user_id)).or_default();
        let (delivered, read) = (receipt.delivered_to, receipt.read_to);
        let forward = (delivered, read) != *told && delivered >= told.0 && read >= told.1;
        if forward {
            *told = (delivered, read);
        }
        forward
    }

    fn forget(&mut self, conversation_id: Uuid) {
        self.told.retain(|(conversation, _), _| *conversation != conversation_id);
    }
}

impl Session {
    /// A watermark moved, by the live bus.
    pub(crate) fn receipt(&mut self, now_ms: u64, receipt: &Receipt, out: &mut Output) {
        // Told again by fan-out in another's place, it may be from long before.
        let is_old = receipt.place.is_some_and(|place| {
            self.read_at.get(usize::from(place.shard)).is_some_and(|read_at| place.position <= *read_at)
        });
        if !is_old {
            self.tell(receipt, out);
        }
        let own = receipt.user_id == self.caller.user_id;
        if let Some((_, seq)) = receipt.acked.filter(|(device_id, _)| own && *device_id == self.caller.device_id) {
            // By this socket, or beside it by REST: either way its cursor is kept already. It may also be late, and this
            // connection have begun earlier on purpose: what was not sent yet is sent all the same.
            let sent = self.flows.get(&receipt.conversation_id).map_or(0, |flow| flow.sent);
            self.acked(now_ms, receipt.conversation_id, seq.min(sent));
            self.pump(now_ms, out);
        }
    }

    fn tell(&mut self, receipt: &Receipt, out: &mut Output) {
        let Some(flow) = self.flows.get_mut(&receipt.conversation_id) else { return };
        if receipt.user_id == self.caller.user_id {
            flow.delivered = flow.delivered.max(receipt.delivered_to);
        }
        if self.marks.as_mut().is_none_or(|marks| marks.forward(receipt)) {
            out.frame(receipt.frame.clone());
        }
    }

    /// Watermarks were read.
    pub(crate) fn receipts_read(&mut self, now_ms: u64, receipts: &[Receipt], out: &mut Output) {
        for receipt in receipts {
            self.tell(receipt, out);
        }
        self.receipts_due.drain(..std::mem::take(&mut self.receipts_asked));
        self.read_receipts(out);
        self.pump(now_ms, out);
    }

    /// Watermarks could not be read.
    pub(crate) fn receipts_not_read(&mut self, now_ms: u64) {
        self.receipts_asked = 0;
        self.retry_at(now_ms + RETRY_MS);
    }

    /// Watermarks of these conversations may have moved unseen, and are to be read again with the user's conversations.
    ///
    /// What was told so far is committed, and the read models are waited for until they have it. What is told from now
    /// on overlaps with what is read, as at the start.
    pub(super) fn receipts_missed(&mut self, conversations: Vec<Uuid>) {
        if !conversations.is_empty() {
            self.receipts_missed.extend(conversations);
            self.marks.get_or_insert_default().until_ms = u64::MAX;
        }
    }

    /// The read models have what was committed when watermarks were missed.
    pub(super) fn tell_receipts_again(&mut self, out: &mut Output) {
        self.receipts_due.extend(self.receipts_missed.drain(..).map(|id| (id, None)));
        self.read_receipts(out);
    }

    /// Once nothing is to be read any more, what was told is remembered for a while only.
    pub(super) fn end_overlap(&mut self, now_ms: u64) {
        if self.receipts_due.is_empty()
            && self.receipts_missed.is_empty()
            && let Some(marks) = self.marks.as_mut().filter(|marks| marks.until_ms == u64::MAX)
        {
            marks.until_ms = now_ms + OVERLAP_MS;
        }
    }

    pub(super) fn forget_marks(&mut self, conversation_id: Uuid) {
        if let Some(marks) = &mut self.marks {
            marks.forget(conversation_id);
        }
    }

    pub(super) fn read_receipts(&mut self, out: &mut Output) {
        if self.receipts_asked > 0 || self.receipts_due.is_empty() {
            return;
        }
        self.receipts_asked = AT_ONCE.min(self.receipts_due.len());
        out.act(Action::Receipts(self.receipts_due[..self.receipts_asked].to_vec()));
    }
}
