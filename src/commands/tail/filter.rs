//! Which events are wanted.

use schemas::catalogue::EVENT_TYPES;
use time::OffsetDateTime;

/// What an event has to be for it to be printed.
#[derive(Clone, Copy)]
pub(super) struct Filter<'a> {
    pub(super) event_type: Option<&'a str>,
    pub(super) since: Option<OffsetDateTime>,
}

impl Filter<'_> {
    /// Whether an event of this type and time is wanted; one that tells no time is.
    pub(super) fn wants(&self, event_type: &str, at: Option<OffsetDateTime>) -> bool {
        self.event_type.is_none_or(|wanted| wanted == event_type)
            && self.since.zip(at).is_none_or(|(since, at)| at >= since)
    }
}

pub(super) fn parse_type(text: &str) -> Result<String, String> {
    if EVENT_TYPES.iter().any(|known| known.name == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<&str> = EVENT_TYPES.iter().map(|known| known.name).collect();
    Err(format!("there is no such type of event; there are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::commands::parse_time;

    #[test]
    fn a_type_and_a_time_narrow_it_down() {
        let (early, late) = (datetime!(2026-01-02 03:04:05 UTC), datetime!(2026-01-02 03:04:06 UTC));
        let all = Filter { event_type: None, since: None };
        assert!(all.wants("message.sent", Some(early)) && all.wants("anything", None));
        let some = Filter { event_type: Some("message.sent"), since: Some(late) };
        assert!(some.wants("message.sent", Some(late)) && some.wants("message.sent", None));
        assert!(!some.wants("message.sent", Some(early)) && !some.wants("message.read", Some(late)));
    }

    #[test]
    fn a_type_that_there_is_not_is_answered_by_those_there_are() {
        assert_eq!(parse_type("message.sent").unwrap(), "message.sent");
        let refused = parse_type("message.sended").unwrap_err();
        assert!(EVENT_TYPES.iter().all(|known| refused.contains(known.name)), "{refused}");
        assert!(parse_time("yesterday").is_err() && parse_time("2026-01-02T03:04:05Z").is_ok());
    }
}
