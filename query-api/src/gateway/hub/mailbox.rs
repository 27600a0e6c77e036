//! What waits for one session: a bounded queue that costs nothing while it is empty.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use platform::auth::Caller;
use platform::live::Connected;
use uuid::Uuid;

use crate::gateway::protocol::event::{Event, Receipt};
use crate::gateway::session::Missed;

/// More than this is not kept, but read again.
const ROOM: usize = 1024;

/// Something that a session is told.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// Something happened.
    Event(Arc<Event>),
    /// A watermark moved.
    Receipt(Arc<Receipt>),
    /// A conversation has got this far.
    Head(Uuid, u64),
    /// The user is in this conversation, since this `joined`, and it has got this far.
    Stay(Uuid, u64, u64),
}

/// What a session finds when it looks.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// In the order in which it came.
    pub(crate) notes: VecDeque<Note>,
    /// What had no room, later than all notes.
    pub(crate) missed: Option<Missed>,
}

/// Where a session is told things.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(super) user_id: Uuid,
    pub(super) device_id: Uuid,
    pub(super) session_id: Uuid,
    /// Of two connections of a device the later one has the greater id.
    pub(super) connection_id: Uuid,
    inner: Mutex<Inner>,
    /// The rooms that it listens to; `None` once it is gone.
    pub(super) rooms: Mutex<Option<HashSet<Uuid>>>,
}

#[derive(Debug, Default)]
struct Inner {
    notes: VecDeque<Note>,
    missed: Option<Box<Overflow>>,
    close: Option<(u16, &'static str)>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Overflow {
    heads: HashMap<Uuid, u64>,
    receipts: HashSet<Uuid>,
}

impl Overflow {
    fn note(&mut self, note: &Note) {
        let (id, seq) = match note {
            Note::Event(event) => (event.conversation_id, event.seq),
            Note::Head(id, head) | Note::Stay(id, _, head) => (*id, *head),
            Note::Receipt(receipt) => {
                self.receipts.insert(receipt.conversation_id);
                return;
            }
        };
        let head = self.heads.entry(id).or_default();
        *head = seq.max(*head);
    }
}

impl Mailbox {
    pub(super) fn new(caller: &Caller) -> Self {
        Self {
            user_id: caller.user_id,
            device_id: caller.device_id,
            session_id: caller.session_id,
            connection_id: Uuid::now_v7(),
            inner: Mutex::default(),
            rooms: Mutex::new(Some(HashSet::new())),
        }
    }

    /// Whether its connection has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.rooms.lock().is_none()
    }

    /// Which device this is, and by which connection.
    pub(crate) fn connected(&self) -> Connected {
        let Self { user_id, device_id, connection_id, .. } = *self;
        Connected { user_id, device_id, connection_id }
    }

    /// Puts a note in.
    pub(super) fn put(&self, note: Note) {
        let mut inner = self.inner.lock();
        if inner.missed.is_none() && inner.notes.len() < ROOM {
            inner.notes.push_back(note);
        } else {
            inner.missed.get_or_insert_default().note(&note);
        }
        Self::wake(inner);
    }

    /// Has watermarks read again.
    pub(super) fn miss_receipts(&self, conversation_id: Uuid) {
        let mut inner = self.inner.lock();
        inner.missed.get_or_insert_default().receipts.insert(conversation_id);
        Self::wake(inner);
    }

    /// Has the session close.
    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        let mut inner = self.inner.lock();
        inner.close.get_or_insert((code, reason));
        Self::wake(inner);
    }

    fn wake(mut inner: parking_lot::MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Why the session has to close, if it has.
    pub(crate) fn closing(&self) -> Option<(u16, &'static str)> {
        self.inner.lock().close
    }

    /// Takes all that came; where nothing did, the task is woken once something does. Notes stay where they are until
    /// they are `wanted`.
    pub(crate) fn poll(&self, context: &mut Context<'_>, wanted: bool, noted: bool) -> Poll<Mail> {
        let mut inner = self.inner.lock();
        let closes = inner.close.is_some() && !noted;
        if !closes && (!wanted || (inner.notes.is_empty() && inner.missed.is_none())) {
            let waker = context.waker();
            if inner.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                inner.waker = Some(waker.clone());
            }
            return Poll::Pending;
        }
        if !wanted {
            return Poll::Ready(Mail::default());
        }
        let missed = inner.missed.take().map(|missed| Missed {
            heads: missed.heads.into_iter().collect(),
            receipts: missed.receipts.into_iter().collect(),
        });
        Poll::Ready(Mail { notes: mem::take(&mut inner.notes), missed })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use time::OffsetDateTime;

    use super::*;

    fn mailbox() -> Mailbox {
        let id = Uuid::nil();
        Mailbox::new(&Caller { user_id: id, session_id: id, device_id: id, expires_at: OffsetDateTime::UNIX_EPOCH })
    }

    fn poll(mailbox: &Mailbox) -> Poll<Mail> {
        mailbox.poll(&mut Context::from_waker(Waker::noop()), true, false)
    }

    #[test]
    fn what_has_no_room_is_summed_up() {
        let mailbox = mailbox();
        let room = Uuid::from_u128(7);
        for seq in 1..=ROOM as u64 + 5 {
            mailbox.put(Note::Head(room, seq));
        }
        let Poll::Ready(mail) = poll(&mailbox) else { panic!("nothing there") };
        assert_eq!(mail.notes.len(), ROOM);
        assert_eq!(mail.missed.unwrap().heads, [(room, ROOM as u64 + 5)]);
        assert!(poll(&mailbox).is_pending());
        mailbox.put(Note::Head(room, 9));
        assert!(matches!(poll(&mailbox), Poll::Ready(mail) if mail.notes.len() == 1 && mail.missed.is_none()));
    }

    #[test]
    fn a_close_is_heard_though_notes_are_not_wanted() {
        let mailbox = mailbox();
        mailbox.put(Note::Head(Uuid::nil(), 1));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(mailbox.poll(context, false, false).is_pending());
        mailbox.close(4009, "replaced");
        mailbox.close(4010, "draining");
        assert!(mailbox.poll(context, false, false).is_ready());
        assert_eq!(mailbox.closing(), Some((4009, "replaced")));
        assert!(mailbox.poll(context, false, true).is_pending(), "it was noted");
    }
}
