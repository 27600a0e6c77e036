//! Gathers a run while it goes on, from as many tasks as there are clients.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{Answer, Conversation, Device, Receipt, Received, Run, Send, digest};

/// Records sends, answers and what devices get. Cheap to clone; clones share what they record.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    clock: AtomicU64,
    sent: AtomicUsize,
    answered: AtomicUsize,
    sends: Mutex<HashMap<Uuid, Send>>,
    devices: Mutex<Vec<Arc<Mutex<Device>>>>,
}

impl Recorder {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    fn tick(&self) -> u64 {
        self.inner.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A message is about to be sent. Said again for a retry, it changes nothing.
    pub fn sending(&self, sender: Uuid, conversation_id: Uuid, message_id: Uuid, content: &str) {
        let send = Send {
            message_id,
            conversation_id,
            sender,
            content: digest(content),
            at: self.tick(),
            answer: Answer::None,
        };
        if let Entry::Vacant(entry) = self.inner.sends.lock().entry(message_id) {
            entry.insert(send);
            self.inner.sent.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The server acknowledged a message.
    pub fn acknowledged(&self, message_id: Uuid, seq: u64) {
        let at = self.tick();
        self.answer(message_id, Answer::Acknowledged { seq, at });
    }

    /// The server refused a message for good.
    pub fn refused(&self, message_id: Uuid) {
        self.answer(message_id, Answer::Refused);
    }

    fn answer(&self, message_id: Uuid, answer: Answer) {
        let mut sends = self.inner.sends.lock();
        let send = sends.get_mut(&message_id).expect("answered, so it was recorded as sent");
        // The first answer stands: another one to a retry has to be the same, and `check` sees the first.
        if send.answer == Answer::None {
            send.answer = answer;
            self.inner.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many messages are sent and not answered.
    pub fn unanswered(&self) -> usize {
        // In this order: one that is sent and answered in between counts as unanswered.
        let answered = self.answered();
        self.sent() - answered
    }

    /// How many messages were recorded.
    pub fn sent(&self) -> usize {
        self.inner.sent.load(Ordering::SeqCst)
    }

    /// How many of them were answered.
    pub fn answered(&self) -> usize {
        self.inner.answered.load(Ordering::SeqCst)
    }

    /// A device that will get events.
    pub fn device(&self, user: Uuid, name: impl Into<String>) -> DeviceLog {
        let device = Device { user, name: name.into(), complete: true, ..Device::default() };
        let log = DeviceLog { device: Arc::new(Mutex::new(device)) };
        self.inner.devices.lock().push(Arc::clone(&log.device));
        log
    }

    /// The run so far, with the histories as they are in the end.
    pub fn run(&self, conversations: Vec<Conversation>) -> Run {
        Run {
            sends: self.inner.sends.lock().values().cloned().collect(),
            devices: self.inner.devices.lock().iter().map(|device| device.lock().clone()).collect(),
            conversations,
        }
    }
}

/// Records what one device gets.
#[derive(Debug, Clone)]
pub struct DeviceLog {
    device: Arc<Mutex<Device>>,
}

impl DeviceLog {
    /// The device is to get everything of a conversation after `seq`.
    pub fn starts(&self, conversation_id: Uuid, seq: u64) {
        self.device.lock().starts.insert(conversation_id, seq);
    }

    /// The device has connected (again).
    pub fn connected(&self) {
        self.device.lock().connections.push(Vec::new());
    }

    /// The device got an event.
    pub fn received(&self, conversation_id: Uuid, seq: u64, message_id: Option<Uuid>) {
        let mut device = self.device.lock();
        if device.connections.is_empty() {
            device.connections.push(Vec::new());
        }
        let received = Received { conversation_id, seq, message_id };
        device.connections.last_mut().expect("pushed just now").push(received);
    }

    /// The device got a receipt.
    pub fn receipt(&self, conversation_id: Uuid, user: Uuid, delivered_to: u64, read_to: u64) {
        let receipt = Receipt { conversation_id, user, delivered_to, read_to };
        self.device.lock().receipts.push(receipt);
    }

    /// The highest seq that the device has of a conversation, over all connections.
    pub fn has(&self, conversation_id: Uuid) -> u64 {
        let device = self.device.lock();
        let received =
            device.connections.iter().flatten().filter(|received| received.conversation_id == conversation_id);
        received.map(|received| received.seq).max().unwrap_or(0)
    }

    /// The device is not expected to have everything in the end.
    pub fn incomplete(&self) {
        self.device.lock().complete = false;
    }
}
