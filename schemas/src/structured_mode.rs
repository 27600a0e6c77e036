//! Any CloudEvent of Kafka's binary mode in structured mode: attributes and types that are not known here, too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

const CONTENT_TYPE: &str = "content-type";
/// Extensions whose headers have no prefix, as W3C has them.
const TRACING: [&str; 2] = ["traceparent", "tracestate"];
/// What every CloudEvent has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// Why a record is no CloudEvent. Holds nothing of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCloudEvent {
    /// An attribute that every CloudEvent has.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Its content type says JSON.
    #[error("its data are not the JSON that its content type promises")]
    Malformed,
}

/// A record as a CloudEvent in structured mode.
///
/// Headers that are no attributes are left out. Data that are not JSON become a text, or base64 where they are none.
///
/// # Errors
/// A record that is no CloudEvent in binary mode.
pub fn structured<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    data: &[u8],
) -> Result<Map<String, Value>, NoCloudEvent> {
    let mut event = Map::new();
    for (name, value) in headers {
        let attribute = match name.strip_prefix("ce_") {
            Some(attribute) => attribute,
            None if name.eq_ignore_ascii_case(CONTENT_TYPE) => "datacontenttype",
            None if TRACING.contains(&name) => name,
            None => continue,
        };
        event.insert(attribute.to_owned(), String::from_utf8_lossy(value).into());
    }
    if let Some(missing) = REQUIRED.into_iter().find(|name| !event.contains_key(*name)) {
        return Err(NoCloudEvent::Missing(missing));
    }
    let is_json = event.get("datacontenttype").and_then(Value::as_str).is_none_or(is_json);
    match str::from_utf8(data) {
        _ if data.is_empty() => {}
        Ok(text) if is_json => {
            let data = serde_json::from_str(text).map_err(|_| NoCloudEvent::Malformed)?;
            event.insert("data".to_owned(), data);
        }
        Err(_) if is_json => return Err(NoCloudEvent::Malformed),
        Ok(text) => drop(event.insert("data".to_owned(), text.into())),
        Err(_) => drop(event.insert("data_base64".to_owned(), STANDARD.encode(data).into())),
    }
    Ok(event)
}

/// Whether data of this content type are JSON.
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::binary_mode::{Head, Replayed};
    use crate::catalogue::tests::samples;
    use crate::{CloudEvent, DEFAULT_BASE, Record};

    fn of(headers: &[(&str, &str)], data: &[u8]) -> Result<Value, NoCloudEvent> {
        structured(headers.iter().map(|(name, value)| (*name, value.as_bytes())), data).map(Value::from)
    }

    const BARE: [(&str, &str); 4] =
        [("ce_specversion", "1.0"), ("ce_id", "7"), ("ce_source", "/elsewhere"), ("ce_type", "thing.happened")];

    fn with(content_type: &'static str) -> Vec<(&'static str, &'static str)> {
        BARE.into_iter().chain([("content-type", content_type)]).collect()
    }

    #[test]
    fn what_the_relay_publishes_is_what_the_log_would_print() {
        for event in samples() {
            let record = Record {
                topic: event.topic(),
                shard: 3,
                position: 42,
                event_id: Uuid::from_u128(5),
                key: Uuid::from_u128(7),
                at: datetime!(2026-01-02 03:04:05.006 UTC),
                correlation: None,
                causation: None,
                trace: None,
                session: Some(Uuid::from_u128(8)),
                event,
            };
            let wanted = serde_json::to_value(CloudEvent::new(&record, DEFAULT_BASE).unwrap()).unwrap();
            let binary = record.to_binary_mode(DEFAULT_BASE).unwrap();
            let mut headers = binary.headers;
            let bytes = |headers: &[(&'static str, String)]| {
                let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
                Value::from(structured(headers, &binary.data).unwrap())
            };
            assert_eq!(bytes(&headers), wanted);
            // Published again, it says so, and nothing else.
            let head = Head { position: 50, event_id: Uuid::nil() };
            headers.extend(Replayed { replay: Uuid::from_u128(9), head }.headers());
            let mut again = wanted.clone();
            again["replay"] = Uuid::from_u128(9).to_string().into();
            assert_eq!(bytes(&headers), again);
        }
    }

    #[test]
    fn what_others_say_is_kept_and_headers_that_are_no_attributes_are_not() {
        let mut headers = with("application/cloudevents+json; charset=utf-8");
        headers.extend([("ce_mood", "fine"), ("tracestate", "a=b"), ("internal", "7")]);
        assert_eq!(
            of(&headers, br#"{"a": [1]}"#).unwrap(),
            json!({"specversion": "1.0", "id": "7", "source": "/elsewhere", "type": "thing.happened", "mood": "fine",
                   "datacontenttype": "application/cloudevents+json; charset=utf-8", "tracestate": "a=b",
                   "data": {"a": [1]}})
        );
    }

    #[test]
    fn data_of_any_kind() {
        assert_eq!(of(&BARE, b"").unwrap().get("data"), None);
        assert_eq!(of(&BARE, b"null").unwrap()["data"], Value::Null);
        assert_eq!(of(&with("text/plain"), "Grüße".as_bytes()).unwrap()["data"], "Grüße");
        for (bytes, text) in
            [(&b"\xff"[..], "/w=="), (b"\xff\x00", "/wA="), (b"\xff\x00\x01", "/wAB"), (b"\xff123", "/zEyMw==")]
        {
            assert_eq!(of(&with("image/png"), bytes).unwrap()["data_base64"], text);
        }
    }

    #[test]
    fn what_is_no_event_says_why_without_a_word_of_it() {
        for (index, name) in REQUIRED.into_iter().enumerate() {
            let mut headers = BARE.to_vec();
            headers.remove(index);
            assert_eq!(of(&headers, b"{}"), Err(NoCloudEvent::Missing(name)));
        }
        assert_eq!(of(&BARE, b"{"), Err(NoCloudEvent::Malformed));
        assert_eq!(of(&with("application/json"), b"\xff"), Err(NoCloudEvent::Malformed));
        assert_eq!(of(&[], b"junk"), Err(NoCloudEvent::Missing("specversion")));
    }
}
