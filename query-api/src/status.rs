//! How far a message has got: the furthest that all have reached who were members when it was sent, and still are.

use std::collections::HashMap;

use schemas::rest::Delivery;
use uuid::Uuid;

/// The watermarks of one member, or the lowest of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The lowest `seq` at which one of them joined.
    pub(crate) joined: i64,
    /// Every one of them has everything up to here on a device.
    pub(crate) delivered: i64,
    /// Every one of them has read everything up to here.
    pub(crate) read: i64,
}

impl Reach {
    fn lowest(self, other: Self) -> Self {
        Self {
            joined: self.joined.min(other.joined),
            delivered: self.delivered.min(other.delivered),
            read: self.read.min(other.read),
        }
    }

    /// How far a message of this `seq` has got with them.
    pub(crate) fn of(self, seq: i64) -> Delivery {
        if self.read >= seq {
            Delivery::Read
        } else if self.delivered >= seq {
            Delivery::Delivered
        } else {
            Delivery::Sent
        }
    }
}

/// Who is in a conversation now, for the messages of some senders: those senders one by one, all others as one.
///
/// Members who joined after a message count too, which changes nothing: their watermarks began beyond it.
#[derive(Debug, Default)]
pub(crate) struct Present {
    senders: HashMap<Uuid, Reach>,
    others: Option<Reach>,
}

impl Present {
    /// Adds a sender by id, or the lowest of all that are no senders.
    pub(crate) fn add(&mut self, sender: Option<Uuid>, reach: Reach) {
        match sender {
            Some(sender) => {
                self.senders.insert(sender, reach);
            }
            None => self.others = Some(reach),
        }
    }

    /// The status of a message; `None` where nobody but the sender is left of those who were there.
    ///
    /// Then it stays where it was: where the last of them stood when they left.
    pub(crate) fn status(&self, seq: i64, sender: Uuid) -> Option<Delivery> {
        let others = self.senders.iter().filter(|(id, _)| **id != sender).map(|(_, reach)| *reach);
        let lowest = others.chain(self.others).reduce(Reach::lowest)?;
        (lowest.joined <= seq).then(|| lowest.of(seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const BEN: Uuid = Uuid::from_u128(2);

    fn reach(joined: i64, delivered: i64, read: i64) -> Reach {
        Reach { joined, delivered, read }
    }

    #[test]
    fn the_sender_does_not_count() {
        let mut present = Present::default();
        present.add(Some(ANN), reach(0, 0, 0));
        present.add(Some(BEN), reach(0, 5, 4));
        assert_eq!(
            [4, 5, 6].map(|seq| present.status(seq, ANN)),
            [Some(Delivery::Read), Some(Delivery::Delivered), Some(Delivery::Sent)]
        );
        assert_eq!(present.status(4, BEN), Some(Delivery::Sent));
    }

    #[test]
    fn the_slowest_decides() {
        let mut present = Present::default();
        present.add(Some(ANN), reach(0, 9, 9));
        present.add(None, reach(0, 3, 2));
        present.add(Some(BEN), reach(0, 7, 1));
        assert_eq!(
            [1, 2, 3, 4].map(|seq| present.status(seq, ANN)),
            [Some(Delivery::Read), Some(Delivery::Delivered), Some(Delivery::Delivered), Some(Delivery::Sent)]
        );
    }

    #[test]
    fn whoever_joined_later_is_not_waited_for_nor_enough() {
        let mut present = Present::default();
        present.add(Some(ANN), reach(0, 0, 0));
        present.add(None, reach(8, 8, 8));
        assert_eq!(present.status(7, ANN), None);
        present.add(Some(BEN), reach(0, 0, 0));
        assert_eq!(present.status(7, ANN), Some(Delivery::Sent));
    }
}
