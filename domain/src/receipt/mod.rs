//! How far one member of one conversation has got: the watermarks of delivery and reading.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::{aggregate, events};

events! {
    /// An event of a member's watermarks. The aggregate's id is [`receipt_id`], the ordering key the conversation.
    ///
    /// Each carries both watermarks, so that the last one is the whole state.
    pub enum ReceiptEvent {
        /// A device acked further than any before it.
        "message.delivered", 1 => Delivered(Watermarks),
        /// The user read further.
        "message.read", 1 => Read(Watermarks),
    }
}

impl ReceiptEvent {
    /// The watermarks as the event left them.
    pub fn watermarks(&self) -> &Watermarks {
        let (Self::Delivered(watermarks) | Self::Read(watermarks)) = self;
        watermarks
    }
}

/// How far a member has got, and by which device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermarks {
    /// Whose.
    pub user_id: Uuid,
    /// The device that moved it; none if read without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<Uuid>,
    /// Everything up to this `seq` is on a device.
    pub delivered_to: u64,
    /// Everything up to this `seq` was read.
    pub read_to: u64,
}

/// The aggregate's id: a UUID version 5 (RFC 9562) of conversation and user.
pub fn receipt_id(conversation_id: Uuid, user_id: Uuid) -> Uuid {
    Uuid::new_v5(&conversation_id, user_id.as_bytes())
}

/// The state that decisions about watermarks need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    delivered_to: u64,
    read_to: u64,
}

/// What can be asked of a member's watermarks.
#[derive(Clone, Copy, Debug)]
pub enum ReceiptCommand {
    /// Move them, only forward.
    Advance(Advance),
}

/// A move of the watermarks of a present member.
#[derive(Clone, Copy, Debug)]
pub struct Advance {
    /// Whose.
    pub user_id: Uuid,
    /// The device that acked or read.
    pub device_id: Option<Uuid>,
    /// Everything up to this `seq` is on the device.
    pub delivered_to: Option<u64>,
    /// Everything up to this `seq` was read.
    pub read_to: Option<u64>,
    /// Where the present membership began: watermarks start there.
    pub joined_seq: u64,
    /// The last numbered event of the conversation.
    pub head: u64,
}

/// Why a move was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptRefusal {
    /// `delivered_to` lies beyond the last event.
    #[error("beyond the last event, which is {head}")]
    DeliveredBeyondHead {
        /// The last numbered event of the conversation.
        head: u64,
    },
    /// `read_to` lies beyond the last event.
    #[error("beyond the last event, which is {head}")]
    ReadBeyondHead {
        /// The last numbered event of the conversation.
        head: u64,
    },
}

impl Receipt {
    /// `(delivered_to, read_to)` of a membership that began at `joined_seq`.
    pub fn watermarks(&self, joined_seq: u64) -> (u64, u64) {
        (self.delivered_to.max(joined_seq), self.read_to.max(joined_seq))
    }

    /// Decides `command`; no event means that nothing moved.
    pub fn decide(&self, command: ReceiptCommand) -> Result<Vec<ReceiptEvent>, ReceiptRefusal> {
        let ReceiptCommand::Advance(advance) = command;
        let head = advance.head;
        if advance.delivered_to.is_some_and(|seq| seq > head) {
            return Err(ReceiptRefusal::DeliveredBeyondHead { head });
        }
        if advance.read_to.is_some_and(|seq| seq > head) {
            return Err(ReceiptRefusal::ReadBeyondHead { head });
        }
        let (delivered, read) = self.watermarks(advance.joined_seq);
        let acked = advance.delivered_to.unwrap_or(0);
        let read_to = advance.read_to.unwrap_or(0);
        let watermarks = |delivered_to, read_to| Watermarks {
            user_id: advance.user_id,
            device_id: advance.device_id,
            delivered_to,
            read_to,
        };
        let mut events = Vec::new();
        if acked > delivered {
            events.push(ReceiptEvent::Delivered(watermarks(acked, read)));
        }
        if read_to > read {
            events.push(ReceiptEvent::Read(watermarks(delivered.max(acked).max(read_to), read_to)));
        }
        Ok(events)
    }

    fn evolve(&mut self, event: ReceiptEvent) {
        let (ReceiptEvent::Delivered(watermarks) | ReceiptEvent::Read(watermarks)) = event;
        self.delivered_to = watermarks.delivered_to;
        self.read_to = watermarks.read_to;
    }
}

aggregate!(Receipt {
    name: "receipt",
    code: 5,
    topic: Conversations,
    latest_only: true,
    command: ReceiptCommand,
    event: ReceiptEvent,
    refusal: ReceiptRefusal,
});

#[cfg(test)]
mod tests {
    use cqrs_es::Aggregate;
    use cqrs_es::test::TestFramework;
    use proptest::prelude::*;

    use super::*;

    const BEN: Uuid = Uuid::from_u128(2);

    fn advance(delivered_to: Option<u64>, read_to: Option<u64>) -> ReceiptCommand {
        ReceiptCommand::Advance(Advance {
            user_id: BEN,
            device_id: None,
            delivered_to,
            read_to,
            joined_seq: 3,
            head: 10,
        })
    }

    fn marks(delivered_to: u64, read_to: u64) -> Watermarks {
        Watermarks { user_id: BEN, device_id: None, delivered_to, read_to }
    }

    #[test]
    fn watermarks_start_where_the_membership_did() {
        let none = || TestFramework::<Receipt>::with(()).given_no_previous_events();
        none().when(advance(Some(3), Some(2))).then_expect_events(vec![]);
        none().when(advance(Some(4), None)).then_expect_events(vec![ReceiptEvent::Delivered(marks(4, 3))]);
    }

    #[test]
    fn reading_raises_delivered_without_an_event_of_its_own() {
        TestFramework::<Receipt>::with(())
            .given(vec![ReceiptEvent::Delivered(marks(4, 3))])
            .when(advance(None, Some(6)))
            .then_expect_events(vec![ReceiptEvent::Read(marks(6, 6))]);
    }

    #[test]
    fn an_ack_and_a_read_at_once_make_an_event_each() {
        TestFramework::<Receipt>::with(())
            .given_no_previous_events()
            .when(advance(Some(8), Some(6)))
            .then_expect_events(vec![ReceiptEvent::Delivered(marks(8, 3)), ReceiptEvent::Read(marks(8, 6))]);
    }

    #[test]
    fn beyond_the_head_is_refused() {
        let none = || TestFramework::<Receipt>::with(()).given_no_previous_events();
        none().when(advance(Some(11), None)).then_expect_error(ReceiptRefusal::DeliveredBeyondHead { head: 10 });
        none().when(advance(None, Some(11))).then_expect_error(ReceiptRefusal::ReadBeyondHead { head: 10 });
    }

    proptest! {
        /// Whatever is acked and read: watermarks only go forward, and reading never passes delivery.
        #[test]
        fn only_forward(steps in prop::collection::vec((prop::option::of(0u64..12), prop::option::of(0u64..12)), 1..40)) {
            let mut receipt = Receipt::default();
            for (delivered_to, read_to) in steps {
                let before = receipt.watermarks(3);
                for event in receipt.decide(advance(delivered_to, read_to)).unwrap_or_default() {
                    receipt.apply(event);
                }
                let after = receipt.watermarks(3);
                prop_assert!(after.0 >= before.0 && after.1 >= before.1);
                prop_assert!(after.1 <= after.0 && after.0 <= 10);
            }
        }
    }
}
