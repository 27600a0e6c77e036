//! The history checker: given what senders, devices and the final histories say, finds what should never be.
//!
//! A run is plain data ([`Run`]): what was sent and how it was answered, what every connection of every device got, in
//! its order, and what the histories hold in the end. [`check`] compares them; a [`Recorder`] gathers a run in tests.

mod recorder;
mod violation;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

pub use recorder::{DeviceLog, Recorder};
pub use violation::Violation;

/// How a send was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Committed at this seq; the second number is the moment of the answer, on the same clock as [`Send::at`].
    Acknowledged {
        /// The seq that the answer named.
        seq: u64,
        /// The moment of the answer.
        at: u64,
    },
    /// Refused for good.
    Refused,
    /// Never answered: it may be in the history, once, or not.
    None,
}

/// One message as its sender knows it, however often it was transmitted.
#[derive(Debug, Clone)]
pub struct Send {
    /// The client's id of it.
    pub message_id: Uuid,
    /// Where it was sent to.
    pub conversation_id: Uuid,
    /// Who sent it.
    pub sender: Uuid,
    /// A hash of the content ([`digest`]).
    pub content: u64,
    /// The moment before the first transmission, on any clock that all sends and answers share.
    pub at: u64,
    /// How it was answered in the end.
    pub answer: Answer,
}

/// One event frame as it came over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Of which conversation.
    pub conversation_id: Uuid,
    /// Its number there.
    pub seq: u64,
    /// The message, if the event is `message.sent`.
    pub message_id: Option<Uuid>,
}

/// One receipt frame as it came over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Of which conversation.
    pub conversation_id: Uuid,
    /// Whose watermarks.
    pub user: Uuid,
    /// Delivered up to here.
    pub delivered_to: u64,
    /// Read up to here.
    pub read_to: u64,
}

/// What one device got.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// Whose it is.
    pub user: Uuid,
    /// What it is called in a violation.
    pub name: String,
    /// Where it begins in a conversation: the seq before the first that it is to get. Where nothing is said, its first
    /// event is its beginning.
    pub starts: HashMap<Uuid, u64>,
    /// The events of each connection, in the order in which they came, repeats among them.
    pub connections: Vec<Vec<Received>>,
    /// The receipts, over all connections.
    pub receipts: Vec<Receipt>,
    /// Whether it is to have everything up to the head in the end (not if it was still away).
    pub complete: bool,
}

/// One message as the history tells it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub message_id: Uuid,
    /// Who sent it.
    pub sender: Uuid,
    /// A hash of the content ([`digest`]).
    pub content: u64,
}

/// What the server says of a member in the end.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Who.
    pub user: Uuid,
    /// How many messages are unread, as they are told.
    pub unread: u64,
    /// Delivered up to here.
    pub delivered_to: u64,
    /// Read up to here.
    pub read_to: u64,
}

/// A conversation in the end.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Its id.
    pub conversation_id: Uuid,
    /// Its last seq.
    pub head: u64,
    /// The whole history, in the order in which it was answered.
    pub entries: Vec<Entry>,
    /// Seqs that are no message: the creation, members who came and went.
    pub others: BTreeSet<u64>,
    /// The members and what they are told.
    pub members: Vec<Member>,
}

/// Everything that is known of a run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// What was sent.
    pub sends: Vec<Send>,
    /// What was received.
    pub devices: Vec<Device>,
    /// What there is in the end.
    pub conversations: Vec<Conversation>,
}

/// What a run was made of, once nothing was found wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages sent.
    pub sent: usize,
    /// Those that were acknowledged.
    pub acknowledged: usize,
    /// Those that were never answered.
    pub unanswered: usize,
    /// Those of them that are in the history nevertheless.
    pub unanswered_kept: usize,
    /// Messages in the histories.
    pub kept: usize,
    /// Events received, repeats among them.
    pub received: usize,
    /// The repeats.
    pub repeated: usize,
    /// Receipts received.
    pub receipts: usize,
}

/// What was found wrong; `Display` names the first twenty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl std::fmt::Display for Violations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} violations", self.0.len())?;
        for violation in self.0.iter().take(20) {
            write!(f, "\n  {violation}")?;
        }
        if self.0.len() > 20 {
            write!(f, "\n  …")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// A hash of a content, to compare without keeping it (FNV-1a).
pub fn digest(content: &str) -> u64 {
    content.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Checks a run: every acknowledged message is in its history exactly once, where it was said to be; `seq` is dense;
/// unanswered sends are there at most once and refused ones not at all; what was answered before another was sent comes
/// before it; every device got everything from its start on, first transmissions in ascending order without a gap; the
/// same seq was the same message everywhere; receipts went only forward and never beyond the head; `unread` is right.
pub fn check(run: &Run) -> Result<Summary, Violations> {
    let mut found = Vec::new();
    let mut summary = Summary { sent: run.sends.len(), ..Summary::default() };
    let histories: HashMap<Uuid, History<'_>> = run
        .conversations
        .iter()
        .map(|conversation| (conversation.conversation_id, History::new(conversation, &mut found)))
        .collect();
    summary.kept = run.conversations.iter().map(|conversation| conversation.entries.len()).sum();

    check_sends(run, &histories, &mut summary, &mut found);
    check_real_time_order(run, &histories, &mut found);
    for conversation in &run.conversations {
        check_members(conversation, &mut found);
    }
    for device in &run.devices {
        check_device(device, &histories, &mut summary, &mut found);
        check_receipts(device, &histories, &mut found);
        summary.receipts += device.receipts.len();
    }
    if found.is_empty() { Ok(summary) } else { Err(Violations(found)) }
}

/// A conversation's history, by seq and by message.
struct History<'a> {
    conversation: &'a Conversation,
    by_seq: BTreeMap<u64, &'a Entry>,
    by_message: HashMap<Uuid, Vec<&'a Entry>>,
}

impl<'a> History<'a> {
    /// Reads a history, and checks what can be seen in it alone: its order and its density.
    fn new(conversation: &'a Conversation, found: &mut Vec<Violation>) -> Self {
        let id = conversation.conversation_id;
        let mut by_seq = BTreeMap::new();
        let mut by_message: HashMap<Uuid, Vec<&Entry>> = HashMap::new();
        let mut last = 0;
        for entry in &conversation.entries {
            if entry.seq <= last {
                found.push(Violation::HistoryOutOfOrder { conversation: id, after: last, seq: entry.seq });
            }
            last = last.max(entry.seq);
            by_seq.insert(entry.seq, entry);
            by_message.entry(entry.message_id).or_default().push(entry);
        }
        for (message, entries) in &by_message {
            if entries.len() > 1 {
                found.push(Violation::Twice {
                    conversation: id,
                    message: *message,
                    seqs: entries.iter().map(|entry| entry.seq).collect(),
                });
            }
        }
        for seq in 1..=conversation.head {
            match (by_seq.contains_key(&seq), conversation.others.contains(&seq)) {
                (false, false) => found.push(Violation::SeqMissing { conversation: id, seq }),
                (true, true) => found.push(Violation::SeqTwice { conversation: id, seq }),
                _ => {}
            }
        }
        let beyond = by_seq.keys().chain(&conversation.others).copied().max().unwrap_or(0);
        if beyond > conversation.head {
            found.push(Violation::BeyondHead { conversation: id, seq: beyond, head: conversation.head });
        }
        Self { conversation, by_seq, by_message }
    }
}

fn check_sends(run: &Run, histories: &HashMap<Uuid, History<'_>>, summary: &mut Summary, found: &mut Vec<Violation>) {
    let mut known = HashSet::with_capacity(run.sends.len());
    for send in &run.sends {
        known.insert(send.message_id);
        let (conversation, message) = (send.conversation_id, send.message_id);
        let entry = histories
            .get(&conversation)
            .and_then(|history| history.by_message.get(&message))
            .and_then(|entries| entries.first());
        match (send.answer, entry) {
            (Answer::Acknowledged { seq, .. }, None) => {
                summary.acknowledged += 1;
                found.push(Violation::Lost { conversation, message, seq });
            }
            (Answer::Acknowledged { seq, .. }, Some(entry)) => {
                summary.acknowledged += 1;
                if entry.seq != seq {
                    found.push(Violation::Moved { conversation, message, promised: seq, seq: entry.seq });
                }
            }
            (Answer::Refused, Some(entry)) => {
                found.push(Violation::RefusedYetKept { conversation, message, seq: entry.seq });
            }
            (Answer::Refused, None) => {}
            (Answer::None, entry) => {
                summary.unanswered += 1;
                summary.unanswered_kept += usize::from(entry.is_some());
            }
        }
        if let Some(entry) = entry
            && (entry.sender != send.sender || entry.content != send.content)
        {
            found.push(Violation::Changed { conversation, message, seq: entry.seq });
        }
    }
    for history in histories.values() {
        for (message, entries) in &history.by_message {
            if !known.contains(message) {
                found.push(Violation::NeverSent {
                    conversation: history.conversation.conversation_id,
                    message: *message,
                    seq: entries[0].seq,
                });
            }
        }
    }
}

/// A message that was answered before another of its conversation was sent comes before it.
fn check_real_time_order(run: &Run, histories: &HashMap<Uuid, History<'_>>, found: &mut Vec<Violation>) {
    let sends: HashMap<Uuid, &Send> = run.sends.iter().map(|send| (send.message_id, send)).collect();
    for history in histories.values() {
        // From the end: the earliest answer among those that come later.
        let mut earliest: Option<(u64, Uuid)> = None;
        for entry in history.by_seq.values().rev() {
            let Some(send) = sends.get(&entry.message_id) else { continue };
            if let Some((at, later)) = earliest
                && at < send.at
            {
                found.push(Violation::Overtaken {
                    conversation: send.conversation_id,
                    first: later,
                    second: send.message_id,
                });
            }
            if let Answer::Acknowledged { at, .. } = send.answer
                && earliest.is_none_or(|(before, _)| at < before)
            {
                earliest = Some((at, send.message_id));
            }
        }
    }
}

fn check_members(conversation: &Conversation, found: &mut Vec<Violation>) {
    for member in &conversation.members {
        let (id, user) = (conversation.conversation_id, member.user);
        let unread =
            conversation.entries.iter().filter(|entry| entry.sender != user && entry.seq > member.read_to).count()
                as u64;
        if unread != member.unread {
            found.push(Violation::Unread { conversation: id, user, told: member.unread, counted: unread });
        }
        if member.read_to > member.delivered_to || member.delivered_to > conversation.head {
            found.push(Violation::Watermarks {
                conversation: id,
                user,
                delivered_to: member.delivered_to,
                read_to: member.read_to,
                head: conversation.head,
            });
        }
    }
}

fn check_device(
    device: &Device,
    histories: &HashMap<Uuid, History<'_>>,
    summary: &mut Summary,
    found: &mut Vec<Violation>,
) {
    let name = || device.name.clone();
    let mut has: HashMap<Uuid, u64> = device.starts.clone();
    for connection in &device.connections {
        let mut here: HashMap<Uuid, u64> = HashMap::new();
        for received in connection {
            let (conversation, seq) = (received.conversation_id, received.seq);
            summary.received += 1;
            // On one connection the first transmissions ascend without a gap; a connection begins no later than after
            // what the device has.
            let last = here.get(&conversation).or_else(|| has.get(&conversation)).copied();
            if let Some(last) = last
                && seq > last + 1
            {
                found.push(Violation::Gap { device: name(), conversation, after: last, seq });
            }
            let before = has.get(&conversation).copied();
            if before.is_some_and(|before| seq <= before) {
                summary.repeated += 1;
            }
            let top = here.entry(conversation).or_insert(seq);
            *top = seq.max(*top);
            let top = has.entry(conversation).or_insert(seq);
            *top = seq.max(*top);
            let told =
                histories.get(&conversation).map(|history| history.by_seq.get(&seq).map(|entry| entry.message_id));
            match told {
                None => found.push(Violation::UnknownConversation { device: name(), conversation, seq }),
                Some(told) if told != received.message_id => {
                    found.push(Violation::OtherMessage { device: name(), conversation, seq });
                }
                Some(_) => {}
            }
        }
    }
    if !device.complete {
        return;
    }
    for history in histories.values() {
        let conversation = history.conversation;
        let id = conversation.conversation_id;
        let concerned =
            device.starts.contains_key(&id) || conversation.members.iter().any(|member| member.user == device.user);
        let has = has.get(&id).copied().unwrap_or(0);
        if concerned && has < conversation.head {
            found.push(Violation::NotDelivered { device: name(), conversation: id, has, head: conversation.head });
        }
    }
}

fn check_receipts(device: &Device, histories: &HashMap<Uuid, History<'_>>, found: &mut Vec<Violation>) {
    let mut seen: HashMap<(Uuid, Uuid), (u64, u64)> = HashMap::new();
    for receipt in &device.receipts {
        let (conversation, user) = (receipt.conversation_id, receipt.user);
        let marks = (receipt.delivered_to, receipt.read_to);
        let before = seen.insert((conversation, user), marks).unwrap_or_default();
        if marks.0 < before.0 || marks.1 < before.1 {
            found.push(Violation::ReceiptWentBack {
                device: device.name.clone(),
                conversation,
                user,
                before,
                after: marks,
            });
        }
    }
    for ((conversation, user), (delivered_to, read_to)) in seen {
        let Some(history) = histories.get(&conversation) else { continue };
        let member = history.conversation.members.iter().find(|member| member.user == user);
        // In the end nobody was told of more than there is.
        let beyond = member.is_some_and(|member| delivered_to > member.delivered_to || read_to > member.read_to);
        if beyond || read_to > delivered_to || delivered_to > history.conversation.head {
            found.push(Violation::Watermarks {
                conversation,
                user,
                delivered_to,
                read_to,
                head: history.conversation.head,
            });
        }
    }
}

#[cfg(test)]
mod tests;
