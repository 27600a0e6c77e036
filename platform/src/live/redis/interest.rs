//! What this process listens to, how often that was asked for, and what Redis confirmed of it.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::live::Channel;

/// The channels somebody here wants, and those about to be left.
#[derive(Debug, Default)]
pub(super) struct Interest {
    channels: Mutex<HashMap<Channel, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// How often it was asked for.
    wanted: u32,
    /// Orders sent that are not confirmed yet.
    unconfirmed: u32,
    /// What was ordered last: to listen, or not to.
    ordered: bool,
    /// Who waits until it is listened to; without memory while nobody does.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Entry {
    fn stands(&self) -> bool {
        self.ordered && self.unconfirmed == 0
    }
}

/// What is to be ordered of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Listen.
    Subscribe,
    /// Do not.
    Unsubscribe,
}

impl Interest {
    /// Somebody wants it; answers whom to wait for, unless it is listened to already.
    pub(super) fn want(&self, channel: Channel) -> Option<oneshot::Receiver<()>> {
        let mut channels = self.channels.lock();
        let entry = channels.entry(channel).or_default();
        entry.wanted += 1;
        if entry.stands() {
            return None;
        }
        let (confirm, confirmed) = oneshot::channel();
        entry.waiting.push(confirm);
        Some(confirmed)
    }

    /// Somebody wants it no longer; answers whether nobody does.
    pub(super) fn release(&self, channel: Channel) -> bool {
        let mut channels = self.channels.lock();
        let Some(entry) = channels.get_mut(&channel) else { return false };
        entry.wanted = entry.wanted.saturating_sub(1);
        entry.wanted == 0
    }

    /// What has to be ordered now, so that Redis does what is wanted; taken for ordered from then on.
    pub(super) fn order(&self, channel: Channel) -> Option<Order> {
        let mut channels = self.channels.lock();
        let entry = channels.get_mut(&channel)?;
        let wanted = entry.wanted > 0;
        if entry.ordered == wanted {
            // It came and went before anything was ordered.
            if !wanted && entry.unconfirmed == 0 {
                channels.remove(&channel);
            }
            return None;
        }
        entry.ordered = wanted;
        entry.unconfirmed += 1;
        Some(if wanted { Order::Subscribe } else { Order::Unsubscribe })
    }

    /// Redis confirmed the eldest order; `false` where it did what nobody ordered.
    pub(super) fn confirm(&self, channel: Channel) -> bool {
        let mut channels = self.channels.lock();
        let Some(entry) = channels.get_mut(&channel).filter(|entry| entry.unconfirmed > 0) else { return false };
        entry.unconfirmed -= 1;
        if entry.stands() {
            for waiting in std::mem::take(&mut entry.waiting) {
                // Whoever waited may be gone.
                let _ = waiting.send(());
            }
        } else if entry.unconfirmed == 0 && entry.wanted == 0 {
            channels.remove(&channel);
        }
        true
    }

    /// Nothing is ordered any more of those that `concerned` says; answers what is wanted of them.
    pub(super) fn start_over(&self, concerned: impl Fn(Channel) -> bool) -> Vec<Channel> {
        let mut wanted = Vec::new();
        self.channels.lock().retain(|channel, entry| {
            if !concerned(*channel) {
                return true;
            }
            (entry.ordered, entry.unconfirmed) = (false, 0);
            if entry.wanted > 0 {
                wanted.push(*channel);
            }
            entry.wanted > 0
        });
        wanted
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.channels.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CHANNEL: Channel = Channel::User(Uuid::nil());

    #[test]
    fn is_ordered_once_and_left_after_the_last() {
        let interest = Interest::default();
        let mut first = interest.want(CHANNEL).unwrap();
        let mut second = interest.want(CHANNEL).unwrap();
        assert_eq!(interest.order(CHANNEL), Some(Order::Subscribe));
        assert_eq!(interest.order(CHANNEL), None);
        assert!(first.try_recv().is_err());
        assert!(interest.confirm(CHANNEL));
        assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
        assert!(interest.want(CHANNEL).is_none(), "it stands");
        assert_eq!([(); 3].map(|()| interest.release(CHANNEL)), [false, false, true]);
        assert_eq!(interest.order(CHANNEL), Some(Order::Unsubscribe));
        assert!(interest.confirm(CHANNEL));
        assert_eq!(interest.len(), 0);
        assert!(!interest.confirm(CHANNEL), "Redis left it by itself");
    }

    #[test]
    fn who_comes_while_it_is_left_waits_for_the_right_answer() {
        let interest = Interest::default();
        let _first = interest.want(CHANNEL);
        interest.order(CHANNEL);
        interest.release(CHANNEL);
        assert_eq!(interest.order(CHANNEL), Some(Order::Unsubscribe));
        let mut second = interest.want(CHANNEL).unwrap();
        assert_eq!(interest.order(CHANNEL), Some(Order::Subscribe));
        for confirmed in [false, false, true] {
            assert!(interest.confirm(CHANNEL));
            assert_eq!(second.try_recv().is_ok(), confirmed);
        }
    }

    #[test]
    fn a_new_connection_starts_over() {
        let interest = Interest::default();
        let other = Channel::User(Uuid::max());
        for channel in [CHANNEL, other] {
            let _ = interest.want(channel);
            interest.order(channel);
            interest.confirm(channel);
        }
        interest.release(other);
        assert_eq!(interest.start_over(|_| true), [CHANNEL]);
        assert!(interest.want(CHANNEL).is_some(), "it stands no longer");
        assert_eq!(interest.order(CHANNEL), Some(Order::Subscribe));
        assert_eq!(interest.len(), 1);
        // Gone before it was ordered.
        let _ = interest.want(other);
        interest.release(other);
        assert_eq!(interest.order(other), None);
        assert_eq!(interest.len(), 1);
    }
}
