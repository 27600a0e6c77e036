//! Pages of lists: how many items, and opaque cursors that say where the next page begins.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::rest::Page;
use serde::de::{DeserializeOwned, Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use utoipa::IntoParams;

/// Items of a page where the caller does not say.
const DEFAULT_LIMIT: u16 = 50;
/// Items of the largest page.
const MAX_LIMIT: u16 = 200;
/// Longer text was never given out as a cursor.
const MAX_CURSOR_BYTES: usize = 512;

/// How many items a page may have: 1 to 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = u64::deserialize(deserializer)?;
        match u16::try_from(limit) {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(Self(limit)),
            _ => Err(D::Error::invalid_value(Unexpected::Unsigned(limit), &"a number from 1 to 200")),
        }
    }
}

impl Limit {
    /// What a statement asks for: one more than the page holds, to know whether another follows.
    pub(crate) fn fetched(self) -> i64 {
        i64::from(self.0) + 1
    }

    /// The page of what was fetched: its items, and whether there are more.
    pub(crate) fn cut<T>(self, fetched: &mut Vec<T>) -> bool {
        let more = fetched.len() > usize::from(self.0);
        fetched.truncate(usize::from(self.0));
        more
    }

    /// A page whose last item says where the next one begins.
    pub(crate) fn page<R, T, K: Key>(self, mut rows: Vec<R>, key: impl Fn(&R) -> K, item: impl Fn(R) -> T) -> Page<T> {
        let more = self.cut(&mut rows);
        let next_cursor = rows.last().filter(|_| more).map(|last| Cursor(key(last)).to_text());
        Page { items: rows.into_iter().map(item).collect(), next_cursor }
    }
}

/// Which part of a list is asked for.
#[derive(Deserialize)]
#[serde(bound = "")]
pub(crate) struct Paging<K: Key> {
    #[serde(default)]
    pub(crate) limit: Limit,
    #[serde(default)]
    pub(crate) cursor: Option<Cursor<K>>,
}

/// The parameters of [`Paging`], whatever the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters; they are read as what they mean")]
pub(crate) struct PagingParameters {
    /// Items of a page, 1–200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What a list is sorted by, of the last item of a page.
pub(crate) trait Key: Serialize + DeserializeOwned {
    /// Tells the cursors of one list from those of another.
    const LIST: &'static str;
}

/// A place in a list, as text that is opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<K>(pub(crate) K);

impl<K: Key> Cursor<K> {
    pub(crate) fn to_text(&self) -> String {
        // Keys are plain structs of numbers, ids and text, which JSON always takes.
        let json = serde_json::to_vec(&(K::LIST, &self.0)).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR_BYTES {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (list, key): (Cow<'_, str>, K) = serde_json::from_slice(&json).ok()?;
        (list == K::LIST).then_some(Self(key))
    }
}

impl<'de, K: Key> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| D::Error::custom("not a cursor of this list"))
    }
}

/// A number of PostgreSQL's `bigint` that is never negative.
pub(crate) fn unsigned(number: i64) -> u64 {
    number.try_into().unwrap_or(0)
}

/// A client's number for a comparison in PostgreSQL: what lies beyond `bigint` is as good as its end.
pub(crate) fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A time as a cursor holds it: microseconds since 1970, which is how PostgreSQL keeps it.
pub(crate) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

/// The time that [`micros`] made it of; of anything else the nearest there is.
pub(crate) fn from_micros(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Named(String, Uuid);
    impl Key for Named {
        const LIST: &'static str = "named";
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Other(String, Uuid);
    impl Key for Other {
        const LIST: &'static str = "other";
    }

    proptest! {
        #[test]
        fn comes_back_from_its_text(name in ".{0,32}", id in any::<u128>()) {
            let cursor = Cursor(Named(name, Uuid::from_u128(id)));
            prop_assert_eq!(Cursor::from_text(&cursor.to_text()), Some(cursor));
        }

        #[test]
        fn never_panics_on_text(text in "[A-Za-z0-9_-]{0,600}") {
            let _ = Cursor::<Named>::from_text(&text);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_none() {
        let other = Cursor(Other("x".into(), Uuid::nil())).to_text();
        assert!(Cursor::<Named>::from_text(&other).is_none());
    }

    #[test]
    fn a_limit_lies_between_1_and_200() {
        for (text, limit) in [("1", Some(1)), ("200", Some(200)), ("0", None), ("201", None), ("-1", None), ("x", None)]
        {
            assert_eq!(serde_json::from_str::<Limit>(text).ok(), limit.map(Limit), "{text}");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = |count| Limit(2).page(vec![0_u64; count], |_| Named(String::new(), Uuid::nil()), |item| item);
        assert_eq!((page(2).items.len(), page(2).next_cursor), (2, None));
        assert_eq!(page(3).items.len(), 2);
        assert!(page(3).next_cursor.is_some());
    }
}
