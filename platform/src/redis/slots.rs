//! Which node of a cluster has which slots.

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// A node's place: host and port.
pub(crate) type Address = (String, u16);

/// Who has which slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slots {
    /// A server alone.
    One(Address),
    /// A cluster: its masters, and ranges of slots with the master's number among them, ascending.
    Spread(Vec<Address>, Vec<(u16, u16, usize)>),
}

impl Slots {
    /// Of a cluster, from the ranges that a node told.
    pub(crate) fn spread(mut told: Vec<(u16, u16, Address)>) -> Self {
        told.sort();
        let mut masters: Vec<Address> = told.iter().map(|(_, _, address)| address.clone()).collect();
        masters.sort();
        masters.dedup();
        let ranges = told
            .into_iter()
            .filter_map(|(first, last, address)| Some((first, last, masters.binary_search(&address).ok()?)))
            .collect();
        Self::Spread(masters, ranges)
    }

    /// The nodes' places, in the order of their numbers.
    pub(crate) fn addresses(&self) -> &[Address] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Spread(masters, _) => masters,
        }
    }

    /// The number of the node that has a key's slot.
    pub(crate) fn node(&self, key: &[u8]) -> Option<usize> {
        let Self::Spread(_, ranges) = self else { return Some(0) };
        let slot = slot(key);
        let place = ranges.partition_point(|(_, last, _)| *last < slot);
        ranges.get(place).filter(|(first, _, _)| *first <= slot).map(|(_, _, node)| *node)
    }

    /// Whether every slot is somebody's.
    pub(crate) fn are_whole(&self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Spread(_, ranges) => ranges.iter().map(|(first, last, _)| last - first + 1).sum::<u16>() == SLOTS,
        }
    }
}

/// The slot of a key: of what stands in its first braces, if anything does.
fn slot(key: &[u8]) -> u16 {
    let tag = key
        .iter()
        .position(|byte| *byte == b'{')
        .map(|open| &key[open + 1..])
        .and_then(|rest| Some(&rest[..rest.iter().position(|byte| *byte == b'}')?]))
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16 as XMODEM has it: polynomial 0x1021, from zero.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_redis_reckons() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // As `CLUSTER KEYSLOT` says.
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{foo}.bar"), 12_182);
        assert_eq!(slot(b"a{foo}{bar}"), 12_182);
        assert_eq!(slot(b"{}foo"), crc16(b"{}foo") % SLOTS);
        assert_eq!(slot(b"{foo"), crc16(b"{foo") % SLOTS);
    }

    #[test]
    fn each_slot_has_the_node_that_was_told() {
        let node = |port| ("host".to_owned(), port);
        let slots = Slots::spread(vec![(8000, 16_383, node(2)), (0, 7000, node(1)), (7001, 7990, node(2))]);
        assert_eq!(slots.addresses(), [node(1), node(2)]);
        assert_eq!(slots.node(b"{foo}"), Some(1));
        assert_eq!(slots.node(b"bar"), Some(0), "5061");
        assert!(!slots.are_whole());
        assert!(Slots::spread(vec![(0, 16_383, node(1))]).are_whole());
        assert_eq!(Slots::spread(Vec::new()).node(b"a"), None);
        assert_eq!(Slots::One(node(1)).node(b"a"), Some(0));
    }
}
