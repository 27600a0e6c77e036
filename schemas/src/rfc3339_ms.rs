//! Times as RFC 3339 in UTC with milliseconds, for `#[serde(with = "rfc3339_ms")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// `2026-11-22T20:35:42.007Z`
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}", Display(*at)))
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

impl std::fmt::Display for Display {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.0.to_offset(UtcOffset::UTC);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
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
        let back = deserialize(&mut serde_json::Deserializer::from_str(r#""2026-01-02T03:04:05.006+01:00""#)).unwrap();
        assert_eq!(back, at);
    }
}
