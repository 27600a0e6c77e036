//! What a client asks for: the JSON of its frames, read once, and refused exactly as the contract says.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use platform::http::Problem;
use platform::traces::TraceContext;
use schemas::rest::{FieldError, SendMessage};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A frame that is at least a JSON object with a `type`.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What its answer carries again.
    pub(crate) reference: Option<Box<str>>,
    /// Whether it is a `hello`, good or not.
    pub(crate) is_hello: bool,
    /// What it asks for, or why not.
    pub(crate) request: Result<Request, Problem>,
}

/// What a frame asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    /// `hello`
    Hello {
        /// Those that are well formed.
        cursors: Vec<(Uuid, u64)>,
        /// What is wrong with the others.
        errors: Vec<FieldError>,
    },
    /// `send`
    Send {
        /// The conversation.
        conversation_id: Uuid,
        /// As in the POST.
        message: Box<SendMessage>,
        /// The trace that it is to be part of, as the header of that name; one that cannot be followed is passed over.
        traceparent: Option<Arc<str>>,
    },
    /// `ack`
    Ack {
        /// The conversation.
        conversation_id: Uuid,
        /// Cumulative.
        seq: u64,
    },
    /// `read`
    Read {
        /// The conversation.
        conversation_id: Uuid,
        /// Cumulative.
        seq: u64,
    },
    /// `auth`
    Auth {
        /// To be verified.
        access_token: String,
    },
    /// `ping`
    Ping,
}

/// Text that is no frame at all: the connection is closed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAFrame(pub(crate) &'static str);

/// Reads one frame.
pub(crate) fn parse(text: &str) -> Result<Frame, NotAFrame> {
    let fields = match serde_json::from_str::<Fields<'_>>(text) {
        Ok(fields) => fields,
        // JSON by its grammar, and an object: then it is a string in it that stands for no text.
        Err(_) if is_object(text) => {
            let request = Err(malformed());
            return Ok(Frame { reference: None, is_hello: false, request });
        }
        Err(_) => return Err(NotAFrame("not a JSON object")),
    };
    let Some(kind) = fields.kind else { return Err(NotAFrame("no type")) };
    let kind: Result<Cow<'_, str>, _> = read_borrowed(kind, "/type");
    let is_hello = matches!(&kind, Ok(kind) if kind == "hello");
    let reference = fields.reference.map(|raw| read(raw, "/ref")).transpose();
    let (reference, request) = match (reference, kind) {
        (Err(problem), _) => (None, Err(problem)),
        (Ok(reference), Err(problem)) => (reference, Err(problem)),
        (Ok(reference), Ok(kind)) => (reference, fields.request(&kind)),
    };
    Ok(Frame { reference, is_hello, request })
}

fn is_object(text: &str) -> bool {
    let object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    object && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn malformed() -> Problem {
    Problem::bad_request("malformed JSON")
}

/// The fields that any frame has, each as it stands in the text; null is as absent, of doubles the last counts.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a RawValue>,
    reference: Option<&'a RawValue>,
    conversation_id: Option<&'a RawValue>,
    seq: Option<&'a RawValue>,
    message_id: Option<&'a RawValue>,
    content: Option<&'a RawValue>,
    reply_to: Option<&'a RawValue>,
    mentions: Option<&'a RawValue>,
    file_ids: Option<&'a RawValue>,
    cursors: Option<&'a RawValue>,
    access_token: Option<&'a RawValue>,
    traceparent: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn request(&self, kind: &str) -> Result<Request, Problem> {
        match kind {
            "send" => Ok(Request::Send {
                conversation_id: self.conversation()?,
                message: Box::new(self.message()?),
                traceparent: self.traceparent(),
            }),
            "ack" => Ok(Request::Ack { conversation_id: self.conversation()?, seq: required(self.seq, "/seq")? }),
            "read" => Ok(Request::Read { conversation_id: self.conversation()?, seq: required(self.seq, "/seq")? }),
            "ping" => Ok(Request::Ping),
            "auth" => Ok(Request::Auth { access_token: required(self.access_token, "/access_token")? }),
            "hello" => Ok(self.hello()),
            _ => Err(Problem::invalid_at("/type", "not a type of frame that this server knows")),
        }
    }

    fn conversation(&self) -> Result<Uuid, Problem> {
        required(self.conversation_id, "/conversation_id")
    }

    fn traceparent(&self) -> Option<Arc<str>> {
        let text: String = serde_json::from_str(self.traceparent?.get()).ok()?;
        text.parse::<TraceContext>().is_ok().then(|| text.into())
    }

    fn message(&self) -> Result<SendMessage, Problem> {
        let list = |raw: Option<&'a RawValue>, pointer| raw.map_or(Ok(Vec::new()), |raw| read(raw, pointer));
        Ok(SendMessage {
            message_id: required(self.message_id, "/message_id")?,
            content: required(self.content, "/content")?,
            kind: None,
            reply_to: self.reply_to.map(|raw| read(raw, "/reply_to")).transpose()?,
            mentions: list(self.mentions, "/mentions")?,
            file_ids: list(self.file_ids, "/file_ids")?,
        })
    }

    fn hello(&self) -> Request {
        let error = |pointer: String, detail: &str| FieldError {
            pointer: Some(pointer),
            parameter: None,
            detail: detail.to_owned(),
        };
        let (mut cursors, mut errors) = (Vec::new(), Vec::new());
        match self.cursors.map(|raw| serde_json::from_str::<Entries<'_>>(raw.get())) {
            None => {}
            Some(Err(_)) => errors.push(error("/cursors".to_owned(), "not an object of conversations and numbers")),
            Some(Ok(Entries(entries))) => {
                for (conversation, seq) in entries {
                    let pointer = || format!("/cursors/{}", conversation.replace('~', "~0").replace('/', "~1"));
                    match (Uuid::try_parse(&conversation), serde_json::from_str(seq.get())) {
                        (Ok(conversation), Ok(seq)) => cursors.push((conversation, seq)),
                        (Ok(_), Err(_)) => errors.push(error(pointer(), "not a number of an event")),
                        (Err(_), _) => errors.push(error(pointer(), "not the id of a conversation")),
                    }
                }
            }
        }
        Request::Hello { cursors, errors }
    }
}

fn required<T: DeserializeOwned>(raw: Option<&RawValue>, pointer: &'static str) -> Result<T, Problem> {
    raw.map_or_else(|| Err(Problem::invalid_at(pointer, "is missing")), |raw| read(raw, pointer))
}

fn read<T: DeserializeOwned>(raw: &RawValue, pointer: &'static str) -> Result<T, Problem> {
    read_borrowed(raw, pointer)
}

fn read_borrowed<'a, T: Deserialize<'a>>(raw: &'a RawValue, pointer: &'static str) -> Result<T, Problem> {
    serde_json::from_str(raw.get()).map_err(|error| match error.classify() {
        Category::Data => Problem::invalid_at(pointer, "is not of the right kind"),
        // Its grammar was looked at before: a string that stands for no text.
        _ => malformed(),
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Fields::default();
                while let Some(Key(key)) = map.next_key()? {
                    let field = match &*key {
                        "type" => &mut fields.kind,
                        "ref" => &mut fields.reference,
                        "conversation_id" => &mut fields.conversation_id,
                        "seq" => &mut fields.seq,
                        "message_id" => &mut fields.message_id,
                        "content" => &mut fields.content,
                        "reply_to" => &mut fields.reply_to,
                        "mentions" => &mut fields.mentions,
                        "file_ids" => &mut fields.file_ids,
                        "cursors" => &mut fields.cursors,
                        "access_token" => &mut fields.access_token,
                        "traceparent" => &mut fields.traceparent,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    let raw: &RawValue = map.next_value()?;
                    *field = (raw.get() != "null").then_some(raw);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Entries of an object, in their order, doubles and all.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    entries.push((key, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    const CONVERSATION: &str = "0192aaaa-0000-7000-8000-000000000001";
    const MESSAGE: &str = "0192aaaa-0000-7000-8000-000000000002";

    fn conversation() -> Uuid {
        CONVERSATION.parse().unwrap()
    }

    fn ask(text: &str) -> Request {
        parse(text).unwrap().request.unwrap()
    }

    fn refusal(text: &str) -> (StatusCode, Option<String>, Option<Box<str>>) {
        let frame = parse(text).unwrap();
        let problem = frame.request.unwrap_err();
        (problem.status(), problem.errors().first().and_then(|error| error.pointer.clone()), frame.reference)
    }

    #[test]
    fn what_is_no_frame() {
        for text in
            ["", "hello", "[]", "5", "null", "\"x\"", "{", "{\"type\":\"ping\"", "{\"type\":\"ping\"}x", "{type:1}"]
        {
            assert_eq!(parse(text).unwrap_err(), NotAFrame("not a JSON object"), "{text}");
        }
        for text in ["{}", r#"{"ref":"1"}"#, r#"{"type":null}"#] {
            assert_eq!(parse(text).unwrap_err(), NotAFrame("no type"), "{text}");
        }
    }

    #[test]
    fn what_is_asked_for() {
        let frame = parse(r#"{"more":{"type":[1]},"type":"ping","ref":"ü\u00e9","cursors":null}"#).unwrap();
        assert_eq!((frame.request.unwrap(), frame.reference.as_deref()), (Request::Ping, Some("üé")));
        assert_eq!(ask(r#" {"type":"auth","access_token":"a.b.c"}"#), Request::Auth { access_token: "a.b.c".into() });
        let ack = format!(r#"{{"seq":7,"conversation_id":"{CONVERSATION}","type":"ack"}}"#);
        assert_eq!(ask(&ack), Request::Ack { conversation_id: conversation(), seq: 7 });
        let read = format!(r#"{{"type":"x","seq":7,"conversation_id":"{CONVERSATION}","type":"read"}}"#);
        assert_eq!(ask(&read), Request::Read { conversation_id: conversation(), seq: 7 });
    }

    #[test]
    fn a_send_is_as_the_post() {
        let text = format!(
            r#"{{"type":"send","ref":"1","conversation_id":"{CONVERSATION}","message_id":"{MESSAGE}",
                "content":"Gr\u00fc\u00dfe 👋\n","mentions":null,"file_ids":["{MESSAGE}"],"reply_to":null}}"#
        );
        let Request::Send { conversation_id, message, traceparent } = ask(&text) else { panic!("not a send") };
        assert_eq!(conversation_id, conversation());
        assert_eq!(message.content, "Grüße 👋\n");
        assert_eq!((message.mentions.len(), message.file_ids.len(), message.reply_to), (0, 1, None));
        assert_eq!(traceparent, None);
    }

    #[test]
    fn a_send_may_be_part_of_a_trace() {
        let of = |traceparent: &str| {
            let text = format!(
                r#"{{"type":"send","conversation_id":"{CONVERSATION}","message_id":"{MESSAGE}","content":"x","traceparent":{traceparent}}}"#
            );
            let Request::Send { traceparent, .. } = ask(&text) else { panic!("not a send") };
            traceparent
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(&format!("{good:?}")).as_deref(), Some(good));
        for bad in ["null", "7", r#""""#, r#""\ud800""#, r#""00-0af7651916cd43dd8448eb211c80319c-01""#] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_answered_with_its_place_and_ref() {
        let unprocessable =
            |pointer: &str| (StatusCode::UNPROCESSABLE_ENTITY, Some(pointer.to_owned()), Some("1".into()));
        for (rest, pointer) in [
            (r#""type":"typing""#, "/type"),
            (r#""type":"watch""#, "/type"),
            (r#""type":7"#, "/type"),
            (r#""type":"ack","seq":1"#, "/conversation_id"),
            (r#""type":"ack","conversation_id":"x","seq":1"#, "/conversation_id"),
            (r#""type":"ack","conversation_id":"0192aaaa-0000-7000-8000-000000000001""#, "/seq"),
            (r#""type":"ack","conversation_id":"0192aaaa-0000-7000-8000-000000000001","seq":-1"#, "/seq"),
            (r#""type":"read","conversation_id":"0192aaaa-0000-7000-8000-000000000001","seq":1.5"#, "/seq"),
            (r#""type":"auth","access_token":null"#, "/access_token"),
            (r#""type":"send","conversation_id":"0192aaaa-0000-7000-8000-000000000001","content":"x""#, "/message_id"),
        ] {
            assert_eq!(refusal(&format!(r#"{{"ref":"1",{rest}}}"#)), unprocessable(pointer), "{rest}");
        }
        assert_eq!(
            refusal(r#"{"type":"ping","ref":5}"#),
            (StatusCode::UNPROCESSABLE_ENTITY, Some("/ref".into()), None)
        );
    }

    #[test]
    fn a_lone_surrogate_is_malformed_and_the_connection_lives() {
        let send = |content: &str| {
            format!(
                r#"{{"ref":"1","type":"send","conversation_id":"{CONVERSATION}","message_id":"{MESSAGE}","content":"{content}"}}"#
            )
        };
        for content in [r"\ud800", r"\udc00", r"\ud800\u0041"] {
            assert_eq!(refusal(&send(content)), (StatusCode::BAD_REQUEST, None, Some("1".into())), "{content}");
        }
        assert!(parse(&send(r"\ud83d\ude00")).unwrap().request.is_ok());
        assert_eq!(refusal(r#"{"type":"ping","\ud800":1}"#).0, StatusCode::BAD_REQUEST);
        assert_eq!(refusal(r#"{"type":"ping","ref":"\ud800"}"#).0, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn cursors_are_taken_where_they_are_good() {
        let other = "0192aaaa-0000-7000-8000-000000000003";
        let Request::Hello { cursors, errors } = ask(&format!(
            r#"{{"type":"hello","cursors":{{"{CONVERSATION}":5,"x/y":1,"{other}":-1,"{MESSAGE}":"4"}}}}"#
        )) else {
            panic!("not a hello");
        };
        assert_eq!(cursors, [(conversation(), 5)]);
        let pointers: Vec<_> = errors.into_iter().filter_map(|error| error.pointer).collect();
        assert_eq!(pointers, ["/cursors/x~1y".to_owned(), format!("/cursors/{other}"), format!("/cursors/{MESSAGE}")]);
        let Request::Hello { errors, .. } = ask(r#"{"type":"hello","cursors":[1]}"#) else { panic!("not a hello") };
        assert_eq!(errors[0].pointer.as_deref(), Some("/cursors"));
        let none = Request::Hello { cursors: vec![], errors: vec![] };
        for empty in [r#"{"type":"hello"}"#, r#"{"type":"hello","cursors":null}"#, r#"{"type":"hello","cursors":{}}"#] {
            assert_eq!(ask(empty), none);
        }
        assert!(parse(r#"{"type":"hello","ref":5}"#).unwrap().is_hello);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn reads_what_the_client_library_writes(content in "\\PC{0,100}", seq in any::<u64>(), reference in "\\PC{0,20}") {
            use schemas::ws::{ClientFrame, Referenced};
            let conversation_id = conversation();
            let message = SendMessage {
                message_id: MESSAGE.parse().unwrap(),
                content,
                kind: None,
                reply_to: Some(conversation_id),
                mentions: vec![conversation_id],
                file_ids: vec![],
            };
            for (frame, request) in [
                (
                    ClientFrame::Send { conversation_id, message: message.clone() },
                    Request::Send { conversation_id, message: Box::new(message), traceparent: None },
                ),
                (ClientFrame::Ack { conversation_id, seq }, Request::Ack { conversation_id, seq }),
                (ClientFrame::Read { conversation_id, seq }, Request::Read { conversation_id, seq }),
                (ClientFrame::Auth { access_token: "t".into() }, Request::Auth { access_token: "t".into() }),
                (ClientFrame::Ping {}, Request::Ping),
                (
                    ClientFrame::Hello { cursors: Some([(conversation_id, seq)].into()) },
                    Request::Hello { cursors: vec![(conversation_id, seq)], errors: vec![] },
                ),
            ] {
                let text = serde_json::to_string(&Referenced { reference: Some(reference.clone()), frame }).unwrap();
                let frame = parse(&text).unwrap();
                prop_assert_eq!(frame.request.unwrap(), request);
                prop_assert_eq!(frame.reference.as_deref(), Some(&*reference));
            }
        }
    }
}
