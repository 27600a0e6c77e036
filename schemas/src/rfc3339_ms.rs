//! Times as RFC 3339 in UTC with milliseconds, for `#[serde(with = "rfc3339_ms")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// `2026-11-22T20:35:42.007Z`
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    Display(*at).with_text(|text| serializer.serialize_str(text))
}

/// Any RFC 3339 time.
///
/// # Errors
/// Text that is not one.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)
}

/// The same for times that may be absent.
pub mod option {
    use super::{Deserialize, Deserializer, OffsetDateTime, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super")] OffsetDateTime);

    /// The time, or `null`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(at: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Wrapped).serialize(serializer)
    }

    /// A time, or `null`.
    ///
    /// # Errors
    /// Text that is not a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// Formats a time as this module writes it.
#[derive(Clone, Copy, Debug)]
pub struct Display(pub OffsetDateTime);

impl Display {
    /// Digit by digit: every event on every wire has several of these.
    fn with_text<R>(self, take: impl FnOnce(&str) -> R) -> R {
        let at = self.0.to_offset(UtcOffset::UTC);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |end: usize, digits: usize, mut value: u32| {
            for place in text[end - digits..end].iter_mut().rev() {
                *place = b'0' + u8::try_from(value % 10).unwrap_or_default();
                value /= 10;
            }
        };
        put(4, 4, at.year().unsigned_abs());
        put(7, 2, u8::from(at.month()).into());
        put(10, 2, at.day().into());
        put(13, 2, at.hour().into());
        put(16, 2, at.minute().into());
        put(19, 2, at.second().into());
        put(23, 3, at.millisecond().into());
        take(str::from_utf8(&text).unwrap_or_default())
    }
}

impl std::fmt::Display for Display {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn writes_milliseconds_in_utc_and_reads_any_offset() {
        let at = datetime!(2026-01-02 03:04:05.006 +01:00);
        assert_eq!(Display(at).to_string(), "2026-01-02T02:04:05.006Z");
        assert_eq!(Display(datetime!(1999-12-31 23:59:59.999 UTC)).to_string(), "1999-12-31T23:59:59.999Z");
        let back = deserialize(&mut serde_json::Deserializer::from_str(r#""2026-01-02T03:04:05.006+01:00""#)).unwrap();
        assert_eq!(back, at);
    }
}
