//! RFC 6455 on bytes: what a client sends becomes messages, what a server sends becomes bytes. No I/O.

use std::io::Cursor;
use std::mem;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use schemas::ws::MAX_FRAME_BYTES;

/// RFC 6455 allows a control frame no more.
const MAX_CONTROL_BYTES: u64 = 125;
/// Room for the header of a server's frame: unmasked, of any length.
const MAX_HEADER_BYTES: usize = 10;
/// What most frames fit in.
const USUAL_FRAME_BYTES: usize = 640;

/// What a client sent, put together and unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// Wants the same back.
    Ping(&'a [u8]),
    /// Answers a ping.
    Pong,
    /// The client is done; the code is its own, where it gave one.
    Close(Option<u16>),
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Not the framing of RFC 6455.
    Framing(&'static str),
    /// Well framed, but nothing that `parlance.v1` knows.
    Content(&'static str),
}

/// Takes a client's bytes in, in any pieces; between whole messages it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// The fragments of a message whose last has not come.
    fragments: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes `input` in (it is unmasked in place), and hands each message that it completes to `each`.
    pub(crate) fn feed<E: From<Violation>>(
        &mut self,
        input: &mut [u8],
        mut each: impl FnMut(Incoming<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.partial.is_empty() {
            let used = self.frames(input, &mut each)?;
            self.partial.extend_from_slice(&input[used..]);
            return Ok(());
        }
        let mut whole = mem::take(&mut self.partial);
        whole.extend_from_slice(input);
        let used = self.frames(&mut whole, &mut each)?;
        if used < whole.len() {
            whole.drain(..used);
            self.partial = whole;
        }
        Ok(())
    }

    /// Handles whole frames at the beginning of `bytes`; answers how many bytes they took.
    fn frames<E: From<Violation>>(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Incoming<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut used = 0;
        while let Some((header, begin, length)) = parse_header(&bytes[used..])? {
            let body = self.check(&header, length)?;
            let Some(payload) = bytes[used + begin..].get_mut(..body) else { break };
            unmask(payload, header.mask.unwrap_or_default());
            used += begin + body;
            self.frame(&header, payload, each)?;
        }
        Ok(used)
    }

    /// Whether a frame with this header may come here, and how long its payload is.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<usize, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Framing("a reserved bit is set"));
        }
        if header.mask.is_none() {
            return Err(Violation::Framing("a client's frame is not masked"));
        }
        let before = match header.opcode {
            OpCode::Control(_) if !header.is_final => return Err(Violation::Framing("a control frame is fragmented")),
            OpCode::Control(_) if length > MAX_CONTROL_BYTES => {
                return Err(Violation::Framing("a control frame is too long"));
            }
            OpCode::Data(Data::Continue) => match &self.fragments {
                None => return Err(Violation::Framing("a continuation of nothing")),
                Some(fragments) => fragments.len(),
            },
            OpCode::Data(_) if self.fragments.is_some() => {
                return Err(Violation::Framing("a message begins within another"));
            }
            OpCode::Data(Data::Binary) => return Err(Violation::Content("not a text frame")),
            _ => 0,
        };
        match usize::try_from(length) {
            Ok(length) if length <= MAX_FRAME_BYTES - before => Ok(length),
            _ => Err(Violation::Content("the frame is too large")),
        }
    }

    fn frame<E: From<Violation>>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        each: &mut impl FnMut(Incoming<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match header.opcode {
            OpCode::Control(Control::Ping) => each(Incoming::Ping(payload)),
            OpCode::Control(Control::Pong) => each(Incoming::Pong),
            OpCode::Control(_) => each(Incoming::Close(close_code(payload)?)),
            OpCode::Data(_) => match (&mut self.fragments, header.is_final) {
                (None, true) => each(Incoming::Text(text(payload)?)),
                (Some(fragments), false) => {
                    fragments.extend_from_slice(payload);
                    Ok(())
                }
                (fragments @ None, false) => {
                    *fragments = Some(payload.to_vec());
                    Ok(())
                }
                (Some(_), true) => {
                    let mut message = self.fragments.take().unwrap_or_default();
                    message.extend_from_slice(payload);
                    each(Incoming::Text(text(&message)?))
                }
            },
        }
    }
}

fn parse_header(bytes: &[u8]) -> Result<Option<(FrameHeader, usize, u64)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(None) => Ok(None),
        Ok(Some((header, length))) => {
            let begin = usize::try_from(cursor.position()).expect("a place in a slice");
            Ok(Some((header, begin, length)))
        }
        Err(_) => Err(Violation::Framing("a reserved opcode")),
    }
}

fn text(bytes: &[u8]) -> Result<&str, Violation> {
    str::from_utf8(bytes).map_err(|_| Violation::Content("not UTF-8"))
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::Framing("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Framing("a close code that may not be sent"));
    }
    str::from_utf8(reason).map_err(|_| Violation::Framing("a close reason that is not UTF-8"))?;
    Ok(Some(code))
}

/// Eight bytes at a time; the compiler makes wider steps of it.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// A whole text frame around what `write` writes.
pub(crate) fn text_frame(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = Vec::with_capacity(USUAL_FRAME_BYTES);
    append_text_frame(&mut bytes, write);
    bytes.into()
}

/// Appends a whole text frame around what `write` appends.
pub(crate) fn append_text_frame(bytes: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // Nearly all are of the length whose header has four bytes.
    const USUAL: usize = 4;
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; USUAL]);
    write(bytes);
    let length = bytes.len() - begin - USUAL;
    let mut header = [0_u8; MAX_HEADER_BYTES];
    header[0] = 0x81;
    let size = match u16::try_from(length) {
        Ok(short @ 0..=125) => {
            header[1] = short.to_be_bytes()[1];
            2
        }
        Ok(middle) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&middle.to_be_bytes());
            4
        }
        Err(_) => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
            MAX_HEADER_BYTES
        }
    };
    if size != USUAL {
        bytes.resize(begin + size.max(USUAL) + length, 0);
        bytes.copy_within(begin + USUAL..begin + USUAL + length, begin + size);
        bytes.truncate(begin + size + length);
    }
    bytes[begin..begin + size].copy_from_slice(&header[..size]);
}

/// A server's ping.
pub(crate) const PING: Bytes = Bytes::from_static(&[0x89, 0]);

/// The answer to a client's ping.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    control(0x8A, &[payload])
}

/// A close frame; without a code where the client gave none.
pub(crate) fn close(code: Option<u16>, reason: &str) -> Bytes {
    match code {
        Some(code) => control(0x88, &[&code.to_be_bytes(), reason.as_bytes()]),
        None => control(0x88, &[]),
    }
}

fn control(first: u8, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(2 + length);
    bytes.push(first);
    bytes.push(u8::try_from(length).expect("control frames are short"));
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::Frame;

    use super::*;

    /// A message as a client may have sent it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Heard {
        Text(String),
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
    }

    fn feed(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Heard>, Violation> {
        let mut heard = Vec::new();
        decoder.feed(&mut bytes.to_vec(), |incoming| {
            heard.push(match incoming {
                Incoming::Text(text) => Heard::Text(text.to_owned()),
                Incoming::Ping(payload) => Heard::Ping(payload.to_vec()),
                Incoming::Pong => Heard::Pong,
                Incoming::Close(code) => Heard::Close(code),
            });
            Ok::<_, Violation>(())
        })?;
        Ok(heard)
    }

    fn one(bytes: &[u8]) -> Result<Vec<Heard>, Violation> {
        feed(&mut Decoder::default(), bytes)
    }

    /// A client's frame, by the bits of its first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 91, 200, 13];
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            middle @ 126..=0xFFFF => {
                bytes.push(0x80 | 0x7E);
                bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 0x7F);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn text_of(text: &str) -> Heard {
        Heard::Text(text.to_owned())
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(one(&hello), Ok(vec![text_of("Hello")]));
        let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(one(&pong), Ok(vec![Heard::Pong]));
    }

    #[test]
    fn fragments_are_put_together_though_control_frames_come_between() {
        let bytes = [
            frame(0x01, b"Hel"),
            frame(0x89, b"are you there"),
            frame(0x00, b"l"),
            frame(0x8A, b""),
            frame(0x80, "o, Zoë".as_bytes()),
            frame(0x81, b"next"),
        ]
        .concat();
        let heard = vec![Heard::Ping(b"are you there".to_vec()), Heard::Pong, text_of("Hello, Zoë"), text_of("next")];
        assert_eq!(one(&bytes), Ok(heard.clone()));
        // And in any pieces.
        let mut decoder = Decoder::default();
        let mut pieces = Vec::new();
        for byte in bytes {
            pieces.extend(feed(&mut decoder, &[byte]).unwrap());
        }
        assert_eq!(pieces, heard);
        assert_eq!(decoder.partial.capacity(), 0, "nothing is held");
        assert!(decoder.fragments.is_none());
    }

    #[test]
    fn a_character_may_be_split_between_fragments() {
        let bytes = [frame(0x01, &[0xC3]), frame(0x80, &[0xBC])].concat();
        assert_eq!(one(&bytes), Ok(vec![text_of("ü")]));
    }

    #[test]
    fn a_close_frame_says_its_code() {
        assert_eq!(one(&frame(0x88, &[])), Ok(vec![Heard::Close(None)]));
        let with_reason = [&1000_u16.to_be_bytes()[..], "tschüß".as_bytes()].concat();
        assert_eq!(one(&frame(0x88, &with_reason)), Ok(vec![Heard::Close(Some(1000))]));
    }

    #[test]
    fn what_breaks_the_framing_is_refused() {
        for (bytes, what) in [
            (frame(0xC1, b"x"), "RSV1"),
            (frame(0xA1, b"x"), "RSV2"),
            (frame(0x91, b"x"), "RSV3"),
            (frame(0x83, b"x"), "reserved data opcode"),
            (frame(0x8B, b"x"), "reserved control opcode"),
            (frame(0x80, b"x"), "continuation of nothing"),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), "message within a message"),
            (frame(0x09, b"x"), "fragmented ping"),
            (frame(0x89, &[b'x'; 126]), "long ping"),
            (frame(0x88, &[3]), "half a code"),
            (frame(0x88, &1005_u16.to_be_bytes()), "a code that may not be sent"),
            (frame(0x88, &[3, 232, 0xFF]), "a reason that is not UTF-8"),
            (vec![0x81, 1, b'x'], "not masked"),
        ] {
            assert!(matches!(one(&bytes), Err(Violation::Framing(_))), "{what}");
        }
    }

    #[test]
    fn what_the_subprotocol_does_not_know_is_refused() {
        let largest = "x".repeat(MAX_FRAME_BYTES);
        assert_eq!(one(&frame(0x81, largest.as_bytes())), Ok(vec![text_of(&largest)]));
        for bytes in [
            frame(0x82, b"binary"),
            frame(0x81, &[0xFF]),
            // The header says enough, nothing is waited for.
            frame(0x81, &vec![b'x'; MAX_FRAME_BYTES + 1])[..14].to_vec(),
            [frame(0x01, largest.as_bytes()), frame(0x80, b"x")].concat(),
            vec![0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
        ] {
            assert!(matches!(one(&bytes), Err(Violation::Content(_))));
        }
    }

    #[test]
    fn every_length_has_its_header() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let text = "x".repeat(length);
            let bytes = text_frame(|out| out.extend_from_slice(text.as_bytes()));
            let mut cursor = Cursor::new(&bytes[..]);
            let (header, said) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((said, header.is_final, header.mask), (length as u64, true, None));
            let begin = usize::try_from(cursor.position()).unwrap();
            assert_eq!(&bytes[begin..], text.as_bytes(), "{length}");
            // Appended after another it is the same.
            let mut two = b"before".to_vec();
            append_text_frame(&mut two, |out| out.extend_from_slice(text.as_bytes()));
            assert_eq!(&two[6..], &bytes[..]);
        }
    }

    #[test]
    fn control_frames_are_read_by_tungstenite() {
        let expected = |frame: Frame| {
            let mut bytes = Vec::new();
            frame.format(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(&PING[..], expected(Frame::ping(&b""[..])));
        assert_eq!(&pong(b"hi")[..], expected(Frame::pong(&b"hi"[..])));
        let closed = tungstenite::protocol::CloseFrame { code: 4008.into(), reason: "too slow".into() };
        assert_eq!(&close(Some(4008), "too slow")[..], expected(Frame::close(Some(closed))));
        assert_eq!(&close(None, "")[..], expected(Frame::close(None)));
    }

    /// Writes as tungstenite's own client does.
    fn by_tungstenite(messages: &[Heard]) -> Vec<u8> {
        use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
        let mut context = WebSocketContext::new(Role::Client, Some(WebSocketConfig::default()));
        let mut wire = Cursor::new(Vec::new());
        for message in messages {
            let message = match message {
                Heard::Text(text) => tungstenite::Message::text(text.clone()),
                Heard::Ping(payload) => tungstenite::Message::Ping(payload.clone().into()),
                Heard::Pong => tungstenite::Message::Pong(Bytes::new()),
                Heard::Close(_) => tungstenite::Message::Close(None),
            };
            context.write(&mut wire, message).unwrap();
            context.flush(&mut wire).unwrap();
        }
        wire.into_inner()
    }

    proptest! {
        #[test]
        fn never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut decoder = Decoder::default();
            for piece in pieces {
                if feed(&mut decoder, &piece).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn hears_what_a_client_says_in_any_pieces(
            messages in prop::collection::vec(prop_oneof![
                "\\PC{0,300}".prop_map(Heard::Text),
                prop::collection::vec(any::<u8>(), 0..125).prop_map(Heard::Ping),
                Just(Heard::Pong),
            ], 0..10),
            cuts in prop::collection::vec(1usize..200, 1..50),
        ) {
            let bytes = by_tungstenite(&messages);
            let (mut decoder, mut heard, mut rest) = (Decoder::default(), Vec::new(), &bytes[..]);
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                heard.extend(feed(&mut decoder, piece).unwrap());
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(heard, messages);
        }

        #[test]
        fn is_heard_by_a_client(texts in prop::collection::vec("\\PC{0,300}", 0..10)) {
            use tungstenite::protocol::{Role, WebSocketContext};
            let mut wire = Vec::new();
            for text in &texts {
                append_text_frame(&mut wire, |out| out.extend_from_slice(text.as_bytes()));
            }
            let mut stream = Cursor::new(wire);
            let mut context = WebSocketContext::new(Role::Client, None);
            for text in texts {
                prop_assert_eq!(context.read(&mut stream).unwrap(), tungstenite::Message::text(text));
            }
        }
    }
}
