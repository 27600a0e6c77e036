//! The hash chain of a shard.
//!
//! Each row's hash is SHA-256 of its predecessor's hash and the row's canonical bytes. A shard's first row follows the
//! hash of a text that names topic and shard, so that no shard's rows can pass for another's.
//!
//! The canonical bytes, numbers big-endian: topic `i16`, shard `i16`, position `i64`, key 16 bytes, seq (`0`, or `1` and
//! `i64`), aggregate type `i16`, aggregate id 16 bytes, sequence `i32`, event id 16 bytes, event type (`u32` length and
//! bytes), event version `i16`, time in microseconds since 1970 `i64`, payload (`u32` length and bytes), metadata (`0`,
//! or `1`, `u32` length and bytes). Every field of variable length says its length, so no two rows share their bytes.

use domain::kernel::LogTopic;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The hash that the first row of a shard follows.
pub fn genesis(topic: LogTopic, shard: u16) -> Hash {
    Sha256::digest(format!("parlance log, topic {}, shard {shard}", topic.code())).into()
}

/// What the hash of a row covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) topic: i16,
    pub(crate) shard: i16,
    pub(crate) position: i64,
    pub(crate) key: Uuid,
    pub(crate) seq: Option<i64>,
    pub(crate) aggregate_type: i16,
    pub(crate) aggregate_id: Uuid,
    pub(crate) sequence: i32,
    pub(crate) event_id: Uuid,
    pub(crate) event_type: &'a [u8],
    pub(crate) event_version: i16,
    pub(crate) at_us: i64,
    pub(crate) payload: &'a [u8],
    pub(crate) metadata: Option<&'a [u8]>,
}

impl Row<'_> {
    /// The row's hash. `scratch` is emptied and used.
    pub(crate) fn hash(&self, previous: &Hash, scratch: &mut Vec<u8>) -> Hash {
        scratch.clear();
        scratch.extend_from_slice(previous);
        scratch.extend_from_slice(&self.topic.to_be_bytes());
        scratch.extend_from_slice(&self.shard.to_be_bytes());
        scratch.extend_from_slice(&self.position.to_be_bytes());
        scratch.extend_from_slice(self.key.as_bytes());
        match self.seq {
            None => scratch.push(0),
            Some(seq) => {
                scratch.push(1);
                scratch.extend_from_slice(&seq.to_be_bytes());
            }
        }
        scratch.extend_from_slice(&self.aggregate_type.to_be_bytes());
        scratch.extend_from_slice(self.aggregate_id.as_bytes());
        scratch.extend_from_slice(&self.sequence.to_be_bytes());
        scratch.extend_from_slice(self.event_id.as_bytes());
        sized(scratch, self.event_type);
        scratch.extend_from_slice(&self.event_version.to_be_bytes());
        scratch.extend_from_slice(&self.at_us.to_be_bytes());
        sized(scratch, self.payload);
        match self.metadata {
            None => scratch.push(0),
            Some(metadata) => {
                scratch.push(1);
                sized(scratch, metadata);
            }
        }
        Sha256::digest(&*scratch).into()
    }
}

fn sized(scratch: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("PostgreSQL keeps no field of 4 GiB");
    scratch.extend_from_slice(&length.to_be_bytes());
    scratch.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row<'static> = Row {
        topic: 1,
        shard: 2,
        position: 3,
        key: Uuid::from_u128(4),
        seq: Some(5),
        aggregate_type: 6,
        aggregate_id: Uuid::from_u128(7),
        sequence: 8,
        event_id: Uuid::from_u128(9),
        event_type: b"said",
        event_version: 1,
        at_us: 10,
        payload: b"{}",
        metadata: None,
    };

    #[test]
    fn the_encoding_never_changes() {
        // A change here would make every stored chain look forged.
        let hash = ROW.hash(&genesis(LogTopic::Conversations, 2), &mut Vec::new());
        assert_eq!(hex::encode(hash), PINNED);
    }

    /// Computed apart from this code.
    const PINNED: &str = "3218c2e67d62a2b835edd5d2300ddbc4d705215990d4023017e04156426d0fc7";

    #[test]
    fn every_field_counts() {
        let previous = genesis(LogTopic::Users, 0);
        let mut scratch = Vec::new();
        let rows = [
            ROW,
            Row { topic: 0, ..ROW },
            Row { shard: 0, ..ROW },
            Row { position: 0, ..ROW },
            Row { key: Uuid::nil(), ..ROW },
            Row { seq: None, ..ROW },
            Row { seq: Some(0), ..ROW },
            Row { aggregate_type: 0, ..ROW },
            Row { aggregate_id: Uuid::nil(), ..ROW },
            Row { sequence: 0, ..ROW },
            Row { event_id: Uuid::nil(), ..ROW },
            Row { event_type: b"sai", ..ROW },
            Row { event_version: 0, ..ROW },
            Row { at_us: 0, ..ROW },
            Row { payload: b"{ }", ..ROW },
            Row { metadata: Some(b""), ..ROW },
            Row { metadata: Some(b"{}"), ..ROW },
        ];
        let mut hashes: Vec<_> = rows.iter().map(|row| row.hash(&previous, &mut scratch)).collect();
        hashes.push(ROW.hash(&genesis(LogTopic::Users, 1), &mut scratch));
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
