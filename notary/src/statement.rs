//! What is signed: how far each shard goes and by which hash, and which statement came before.
//!
//! A line of JSON: `{"body": {…}, "key": "…", "signature": "…"}`. The signature is over the bytes of `body` as they stand,
//! behind a word that tells them from anything else that is ever signed. The body names the hash of the body before it, so
//! that the last statement vouches for all.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::kernel::LogTopic;
use event_store::{Extension, Hash, ShardChain};
use schemas::{Topic, rfc3339_ms};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::key::{PublicKey, SigningKey};

/// What the signed bytes begin with.
const PURPOSE: &[u8] = b"parlance audit heads, version 1\n";
/// Bytes of an event's hash that are kept of it.
pub(crate) const LINK: usize = 8;

/// A shard.
pub(crate) type Place = (LogTopic, u16);

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// 1 for the first; dense.
    pub number: u64,
    /// When it was signed.
    pub at: OffsetDateTime,
    /// The hash of the body before it; zeroes for the first.
    pub(crate) previous: Hash,
    /// Where each shard ends that has events.
    pub(crate) heads: BTreeMap<Place, Head>,
    /// The hash of its body.
    pub(crate) hash: Hash,
}

/// Where a shard ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Where it ended in the statement before.
    pub(crate) after: u64,
    pub(crate) upto: u64,
    pub(crate) chain: Hash,
    /// Of each event after `after`, the beginning of its hash.
    pub(crate) links: Vec<[u8; LINK]>,
}

/// Why a line is no statement that can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Something else.
    #[error("it is no statement")]
    Malformed,
    /// By another key than those that are known.
    #[error("it is signed by a key that is not known here")]
    Unknown,
    /// Not by the key that it names.
    #[error("its signature is not good")]
    Signature,
    /// It does not follow from the one before it.
    #[error("it does not follow the statement before it")]
    Order,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    key: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    number: u64,
    #[serde(with = "rfc3339_ms")]
    at: OffsetDateTime,
    previous: String,
    heads: Vec<BodyHead>,
}

#[derive(Serialize, Deserialize)]
struct BodyHead {
    topic: String,
    shard: u16,
    after: u64,
    head: u64,
    chain: String,
    links: String,
}

impl Statement {
    /// The one that follows another, or is the first, over what was recomputed since.
    pub(crate) fn following(
        before: Option<&Self>,
        extensions: &[Extension],
        at: OffsetDateTime,
        key: &SigningKey,
    ) -> (Self, String) {
        let mut heads: BTreeMap<Place, Head> = BTreeMap::new();
        for (place, head) in before.into_iter().flat_map(|before| &before.heads) {
            heads.insert(*place, Head { after: head.upto, links: Vec::new(), ..head.clone() });
        }
        for extension in extensions.iter().filter(|extension| !extension.hashes.is_empty()) {
            let ShardChain { topic, shard, position, chain } = extension.end();
            let links = extension.hashes.iter().map(link).collect();
            heads.insert((topic, shard), Head { after: extension.from.position, upto: position, chain, links });
        }
        let mut statement = Self {
            number: before.map_or(0, |before| before.number) + 1,
            // As it is written, so that what is read is the same.
            at: at.replace_millisecond(at.millisecond()).unwrap_or(at),
            previous: before.map_or([0; 32], |before| before.hash),
            heads,
            hash: [0; 32],
        };
        let body = statement.body();
        statement.hash = Sha256::digest(body.get()).into();
        let signature = STANDARD.encode(key.sign(&message(body.get())));
        let line = Line { body: &body, key: key.public().id(), signature };
        (statement, serde_json::to_string(&line).expect("texts"))
    }

    fn body(&self) -> Box<RawValue> {
        let head = |((topic, shard), head): (&Place, &Head)| BodyHead {
            topic: name(*topic).to_owned(),
            shard: *shard,
            after: head.after,
            head: head.upto,
            chain: hex::encode(head.chain),
            links: STANDARD.encode(head.links.as_flattened()),
        };
        let body = Body {
            number: self.number,
            at: self.at,
            previous: hex::encode(self.previous),
            heads: self.heads.iter().map(head).collect(),
        };
        serde_json::value::to_raw_value(&body).expect("numbers and texts")
    }

    /// The statement of a line that one of these keys signed.
    ///
    /// # Errors
    /// A line that is none.
    pub fn read(line: &str, keys: &[PublicKey]) -> Result<Self, Broken> {
        let Line { body, key, signature } = serde_json::from_str(line).map_err(|_| Broken::Malformed)?;
        let key = keys.iter().find(|known| known.id() == key).ok_or(Broken::Unknown)?;
        let signature = STANDARD.decode(signature).map_err(|_| Broken::Signature)?;
        if !key.verifies(&message(body.get()), &signature) {
            return Err(Broken::Signature);
        }
        Self::parse(body.get()).ok_or(Broken::Malformed)
    }

    fn parse(text: &str) -> Option<Self> {
        let body: Body = serde_json::from_str(text).ok()?;
        let mut heads = BTreeMap::new();
        for BodyHead { topic, shard, after, head, chain, links } in body.heads {
            let topic = LogTopic::ALL.into_iter().find(|known| name(*known) == topic)?;
            let links = STANDARD.decode(links).ok()?;
            let (links, rest) = links.as_chunks::<LINK>();
            if !rest.is_empty() {
                return None;
            }
            heads.insert((topic, shard), Head { after, upto: head, chain: hash(&chain)?, links: links.to_vec() });
        }
        let (number, at, previous) = (body.number, body.at, hash(&body.previous)?);
        Some(Self { number, at, previous, heads, hash: Sha256::digest(text).into() })
    }

    /// Checks that it follows another, or is the first, and is whole in itself.
    ///
    /// # Errors
    /// [`Broken::Order`]
    pub(crate) fn follows(&self, before: Option<&Self>) -> Result<(), Broken> {
        let known = |place| before.and_then(|before| before.heads.get(place));
        let in_order = self.number == before.map_or(0, |before| before.number) + 1
            && self.previous == before.map_or([0; 32], |before| before.hash)
            && before.is_none_or(|before| before.heads.keys().all(|place| self.heads.contains_key(place)))
            && self.heads.iter().all(|(place, head)| {
                head.after == known(place).map_or(0, |before| before.upto)
                    && head.upto.checked_sub(head.after) == Some(head.links.len() as u64)
                    && match head.links.last() {
                        Some(last) => *last == link(&head.chain),
                        None => known(place).is_some_and(|before| before.chain == head.chain),
                    }
            });
        if in_order { Ok(()) } else { Err(Broken::Order) }
    }

    /// What it says of each shard.
    pub(crate) fn chains(&self) -> Vec<ShardChain> {
        let chain = |(&(topic, shard), head): (&Place, &Head)| ShardChain {
            topic,
            shard,
            position: head.upto,
            chain: head.chain,
        };
        self.heads.iter().map(chain).collect()
    }

    /// The first event that it signed and the one before it did not, as text.
    pub(crate) fn begins(&self) -> String {
        let new = self.heads.iter().find(|(_, head)| head.upto > head.after);
        new.map_or_else(|| "nothing".to_owned(), |(place, head)| position(*place, head.after + 1))
    }
}

/// The bytes that are signed.
fn message(body: &str) -> Vec<u8> {
    [PURPOSE, body.as_bytes()].concat()
}

/// What is kept of an event's hash.
pub(crate) fn link(hash: &Hash) -> [u8; LINK] {
    *hash.first_chunk().expect("a hash is longer")
}

fn hash(text: &str) -> Option<Hash> {
    hex::decode(text).ok()?.try_into().ok()
}

fn name(topic: LogTopic) -> &'static str {
    match topic {
        LogTopic::Users => Topic::Users.name(),
        LogTopic::Conversations => Topic::Conversations.name(),
    }
}

/// A place in the log as `parlance tail` takes it.
pub(crate) fn position((topic, shard): Place, position: u64) -> String {
    format!("{}/{shard}:{position}", name(topic))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const AT: OffsetDateTime = datetime!(2026-01-02 03:04:05.006 UTC);

    fn key() -> (tempfile::TempDir, SigningKey) {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::read_or_make(&folder.path().join("key")).unwrap();
        (folder, key)
    }

    fn extension(shard: u16, after: u64, hashes: Vec<Hash>) -> Extension {
        let from = ShardChain { topic: LogTopic::Conversations, shard, position: after, chain: [9; 32] };
        Extension { from, hashes, broken: None }
    }

    #[test]
    fn statements_follow_each_other_and_come_back_from_their_lines() {
        let (_folder, key) = key();
        let (first, line) = Statement::following(None, &[extension(3, 0, vec![[1; 32], [2; 32]])], AT, &key);
        assert_eq!(Statement::read(&line, &[key.public()]), Ok(first.clone()));
        assert_eq!(first.follows(None), Ok(()));
        assert_eq!(first.begins(), "parlance.conversations.v1/3:1");
        let new = [extension(3, 2, vec![[3; 32]]), extension(5, 0, vec![[4; 32]]), extension(6, 0, vec![])];
        let (second, line) = Statement::following(Some(&first), &new, AT, &key);
        assert_eq!(Statement::read(&line, &[key.public()]).unwrap().follows(Some(&first)), Ok(()));
        assert_eq!(second.heads.len(), 2);
        assert_eq!(second.heads[&(LogTopic::Conversations, 3)].links, [[3; LINK]]);
        let (third, _) = Statement::following(Some(&second), &[extension(5, 1, vec![[5; 32]])], AT, &key);
        assert_eq!(third.follows(Some(&second)), Ok(()));
        for (one, before) in [(&second, None), (&third, Some(&first)), (&first, Some(&first)), (&second, Some(&second))]
        {
            assert_eq!(one.follows(before), Err(Broken::Order));
        }
        // Signed, but not a fact: the links end with another hash, or one shard is forgotten.
        let mut odd = second.clone();
        odd.heads.get_mut(&(LogTopic::Conversations, 3)).unwrap().chain = [8; 32];
        assert_eq!(odd.follows(Some(&first)), Err(Broken::Order));
        let mut short = third;
        short.heads.remove(&(LogTopic::Conversations, 3));
        assert_eq!(short.follows(Some(&second)), Err(Broken::Order));
    }

    #[test]
    fn a_line_that_was_touched_is_none() {
        let (_folder, key) = key();
        let (_other_folder, other) = self::key();
        let (_, line) = Statement::following(None, &[extension(3, 0, vec![[1; 32]])], AT, &key);
        let keys = [key.public()];
        assert_eq!(Statement::read(&line, &[other.public()]), Err(Broken::Unknown));
        assert_eq!(Statement::read(&line.replace("\"number\":1", "\"number\":2"), &keys), Err(Broken::Signature));
        assert_eq!(Statement::read(&line.replace("\"number\":1", "\"number\": 1"), &keys), Err(Broken::Signature));
        assert_eq!(Statement::read(&line[..line.len() - 1], &keys), Err(Broken::Malformed));
        assert_eq!(Statement::read("{}", &keys), Err(Broken::Malformed));
    }
}
