//! What this gateway listens to on the live bus, for those who are connected to it.

use std::fmt;
use std::mem;
use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use platform::live::{Channel, LiveBus, WIDE};
use tokio::sync::Notify;
use uuid::Uuid;

/// Conversations of more members are listened to already, so that none grows wide unheard.
const NEARLY_WIDE: usize = WIDE - WIDE / 10;

/// Over once the live bus listens.
pub(crate) type Heard = BoxFuture<'static, ()>;

/// This gateway's ears.
pub(super) struct Ears {
    /// The bus knows the hub, too: neither keeps the other.
    live: Weak<dyn LiveBus>,
    /// Whether there are channels to choose from.
    choose: bool,
    /// Conversations that began to be listened to while they went on.
    fresh: Mutex<Vec<(Uuid, Heard)>>,
    stirred: Notify,
}

impl fmt::Debug for Ears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ears").field("choose", &self.choose).finish_non_exhaustive()
    }
}

impl Ears {
    pub(super) fn new(live: &Arc<dyn LiveBus>) -> Self {
        Self {
            live: Arc::downgrade(live),
            choose: live.addresses_members(),
            fresh: Mutex::default(),
            stirred: Notify::new(),
        }
    }

    fn live(&self) -> Option<Arc<dyn LiveBus>> {
        self.live.upgrade().filter(|_| self.choose)
    }

    /// Listens to a channel.
    pub(super) fn listen(&self, channel: Channel) -> Option<Heard> {
        Some(self.live()?.listen(channel))
    }

    /// What is to be waited for where somebody else had it listened to.
    pub(super) fn heard(&self, channel: Channel) -> Option<Heard> {
        let live = self.live()?;
        let heard = live.listen(channel);
        live.ignore(channel);
        Some(heard)
    }

    /// Listens no longer.
    pub(super) fn ignore(&self, channel: Channel) {
        if let Some(live) = self.live() {
            live.ignore(channel);
        }
    }

    /// Whether a conversation of so many members has to be listened to by itself; where it is not known, it is better.
    pub(super) fn wants(&self, members: Option<u32>) -> bool {
        self.choose && members.is_none_or(|members| members as usize > NEARLY_WIDE)
    }

    /// Has a conversation looked at once it is heard: what was said before then was not.
    pub(super) fn look_at(&self, conversation_id: Uuid, heard: Option<Heard>) {
        if let Some(heard) = heard {
            self.fresh.lock().push((conversation_id, heard));
            self.stirred.notify_one();
        }
    }

    /// Waits for conversations to be looked at.
    pub(super) async fn fresh(&self) -> Vec<(Uuid, Heard)> {
        loop {
            let fresh = mem::take(&mut *self.fresh.lock());
            if !fresh.is_empty() {
                return fresh;
            }
            self.stirred.notified().await;
        }
    }
}
