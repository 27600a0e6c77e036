//! A WebSocket for load: as little work a frame as possible, so that what is measured is the server.
//!
//! Frames are masked with zeros, which is a mask like any other and costs nothing; what comes is looked at in place.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream as StdStream,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use parlance_client::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a write may wait for the server to read.
const WRITE_BOUND: Duration = Duration::from_secs(10);
/// How long an upgrade, and what a workload waits for, may take.
const BOUND: Duration = Duration::from_secs(30);

/// The reading end.
#[derive(Debug)]
pub struct Reader {
    stream: TcpStream,
    bytes: Vec<u8>,
    start: usize,
}

/// The writing end: shared by the thread that keeps the pace and the one that reads.
#[derive(Debug, Clone)]
pub struct Writer {
    stream: Arc<Mutex<StdStream>>,
}

/// What came, as far as load cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// `message.sent` and its message.
    Message {
        /// Its number.
        seq: u64,
        /// Its id.
        message_id: u128,
    },
    /// Any other numbered event.
    Other {
        /// Its number.
        seq: u64,
    },
    /// A send was committed.
    Ok {
        /// The `ref` of the send.
        reference: u64,
        /// The number of the message.
        seq: u64,
    },
    /// A member's watermarks.
    Receipt {
        /// Whose.
        user_id: u128,
        /// Delivered up to here.
        delivered_to: u64,
        /// Read up to here.
        read_to: u64,
    },
    /// Everything of before is here.
    Synced,
    /// A ping, to be answered.
    Ping,
    /// Anything else.
    Quiet,
}

/// Opens a connection on a client's behalf, without saying hello.
pub async fn open(client: &Client, access_token: &str) -> anyhow::Result<(Reader, Writer)> {
    let address = client.server().address().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: parlance.v1\r\nAuthorization: Bearer {access_token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::with_capacity(4096);
    let end = loop {
        ensure!(timeout(BOUND, stream.read_buf(&mut bytes)).await?? > 0, "the server hung up");
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
    };
    ensure!(bytes.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&bytes));
    bytes.drain(..end);
    let stream = stream.into_std()?;
    let writer = Writer { stream: Arc::new(Mutex::new(stream.try_clone()?)) };
    Ok((Reader { stream: TcpStream::from_std(stream)?, bytes, start: 0 }, writer))
}

impl Writer {
    /// Writes frames that are whole; those of two threads do not mix.
    pub fn write(&self, mut frames: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.stream.lock();
        let mut stuck = None;
        while !frames.is_empty() {
            match stream.write(frames) {
                Ok(0) => bail!("the server hung up"),
                Ok(written) => frames = &frames[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let since = *stuck.get_or_insert_with(Instant::now);
                    ensure!(since.elapsed() < WRITE_BOUND, "the server does not read what is written");
                    std::thread::yield_now();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes one text.
    pub fn say(&self, text: &str) -> anyhow::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        push_text(&mut frame, text.as_bytes());
        self.write(&frame)
    }
}

impl Reader {
    /// Waits until there is something to read.
    pub async fn readable(&self) -> std::io::Result<()> {
        self.stream.readable().await
    }

    /// Reads what is there, without waiting, and hands on the frames that are whole; `false` if there was nothing.
    pub fn take(&mut self, mut each: impl FnMut(Frame)) -> anyhow::Result<bool> {
        self.bytes.reserve(64 * 1024);
        match self.stream.try_read_buf(&mut self.bytes) {
            Ok(0) => bail!("the server hung up"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        while let Some((opcode, payload, end)) = next_frame(&self.bytes[self.start..]) {
            let payload = self.start + payload.start..self.start + payload.end;
            match opcode {
                1 => each(parse(&self.bytes[payload])?),
                8 => {
                    let payload = &self.bytes[payload];
                    let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
                    bail!("the server closed with {code} {}", String::from_utf8_lossy(payload.get(2..).unwrap_or(b"")));
                }
                9 => each(Frame::Ping),
                _ => {}
            }
            self.start += end;
        }
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > 256 * 1024 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        Ok(true)
    }

    /// Waits for frames and hands them on, until `done` says so; within a bound.
    pub async fn take_until(&mut self, mut each: impl FnMut(Frame) -> bool) -> anyhow::Result<()> {
        let mut done = false;
        timeout(BOUND, async {
            while !done {
                self.readable().await?;
                self.take(|frame| done |= each(frame))?;
            }
            Ok(())
        })
        .await
        .context("what was waited for did not come")?
    }

    /// Lets go of the memory of what was read: for connections that stay idle.
    pub fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

/// Appends a masked text frame.
pub fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x81);
    push_length(out, text.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text);
}

/// Appends an empty masked pong.
pub fn push_pong(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x8a, 0x80, 0, 0, 0, 0]);
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(small @ 0..=125), _) => out.push(0x80 | small),
        (_, Ok(medium)) => {
            out.push(0xfe);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The first frame that is whole: its opcode, where its payload is, where it ends.
fn next_frame(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>, usize)> {
    let opcode = bytes.first()? & 0x0f;
    let (length, head) = match bytes.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        small => (usize::from(small), 2),
    };
    let end = head + length;
    (bytes.len() >= end).then_some((opcode, head..end, end))
}

/// Reads what load cares about, without reading the rest.
fn parse(text: &[u8]) -> anyhow::Result<Frame> {
    let number = |name: &[u8]| find(text, name).map(|at| digits(&text[at + name.len()..]));
    let kind = find(text, b"\"type\":\"").map(|at| &text[at + 8..]).context("a frame without a type")?;
    Ok(if kind.starts_with(b"event\"") {
        let seq = number(b"\"seq\":").context("an event without a seq")?;
        if find(text, b"\"event\":\"message.sent\"").is_some() {
            let at = find(text, b"\"message_id\":\"").context("a message without an id")?;
            Frame::Message { seq, message_id: uuid(&text[at + 14..])? }
        } else {
            Frame::Other { seq }
        }
    } else if kind.starts_with(b"ok\"") {
        match (number(b"\"ref\":\""), number(b"\"seq\":")) {
            (Some(reference), Some(seq)) => Frame::Ok { reference, seq },
            _ => Frame::Quiet,
        }
    } else if kind.starts_with(b"receipt\"") {
        let at = find(text, b"\"user_id\":\"").context("a receipt without a user")?;
        Frame::Receipt {
            user_id: uuid(&text[at + 11..])?,
            delivered_to: number(b"\"delivered_to\":").context("a receipt without delivered_to")?,
            read_to: number(b"\"read_to\":").context("a receipt without read_to")?,
        }
    } else if kind.starts_with(b"synced\"") {
        Frame::Synced
    } else if kind.starts_with(b"error\"") {
        bail!("the server refused: {}", String::from_utf8_lossy(text));
    } else {
        Frame::Quiet
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = what[0];
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn digits(bytes: &[u8]) -> u64 {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn uuid(bytes: &[u8]) -> anyhow::Result<u128> {
    Ok(uuid::Uuid::try_parse_ascii(bytes.get(..36).context("an id that is cut off")?)?.as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192aaaa-0000-7000-8000-000000000001";

    #[test]
    fn frames_are_found_in_what_came_and_cut_where_it_ends() {
        let mut bytes = Vec::new();
        for length in [3, 200, 70_000] {
            push_text(&mut bytes, &vec![b'x'; length]);
        }
        let mut at = 0;
        for length in [3, 200, 70_000] {
            // Ours are masked: four bytes more than what comes from a server.
            let (opcode, payload, end) = next_frame(&bytes[at..]).unwrap();
            assert_eq!((opcode, payload.len()), (1, length));
            at += end + 4;
        }
        assert_eq!(at, bytes.len());
        assert!(next_frame(&[0x81]).is_none());
        assert!(next_frame(&[0x81, 126, 1]).is_none());
        assert!(next_frame(&[0x81, 2, b'x']).is_none());
    }

    #[test]
    fn what_load_cares_about_is_read_whatever_the_order() {
        let id = uuid(ID.as_bytes()).unwrap();
        let event = format!(
            r#"{{"type":"event","conversation_id":"{ID}","seq":42,"position":"c1.7","at":"2026","event":"message.sent","data":{{"message_id":"{ID}","seq":42}}}}"#
        );
        assert_eq!(parse(event.as_bytes()).unwrap(), Frame::Message { seq: 42, message_id: id });
        let event = format!(r#"{{"seq":1,"type":"event","event":"conversation.created","conversation_id":"{ID}"}}"#);
        assert_eq!(parse(event.as_bytes()).unwrap(), Frame::Other { seq: 1 });
        let ok = format!(r#"{{"type":"ok","ref":"17","message_id":"{ID}","seq":9}}"#);
        assert_eq!(parse(ok.as_bytes()).unwrap(), Frame::Ok { reference: 17, seq: 9 });
        let receipt = format!(r#"{{"type":"receipt","user_id":"{ID}","delivered_to":5,"read_to":4}}"#);
        assert_eq!(parse(receipt.as_bytes()).unwrap(), Frame::Receipt { user_id: id, delivered_to: 5, read_to: 4 });
        assert_eq!(parse(br#"{"type":"pong"}"#).unwrap(), Frame::Quiet);
        assert!(parse(br#"{"type":"error","problem":{}}"#).is_err());
    }

    #[tokio::test]
    async fn a_peer_understands_what_is_written_and_is_understood() {
        use futures::{SinkExt, StreamExt};
        use tokio_tungstenite::tungstenite::Message;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let mut said = Vec::new();
            while said.len() < 2 {
                if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                    said.push(text.to_string());
                }
            }
            socket.send(Message::Ping(Vec::new().into())).await.unwrap();
            socket.send(Message::text(r#"{"type":"synced"}"#)).await.unwrap();
            assert!(matches!(socket.next().await, Some(Ok(Message::Pong(_)))));
            socket.close(None).await.unwrap();
            said
        });
        let at = "2126-01-01T00:00:00.000Z";
        let tokens = serde_json::json!({
            "access_token": "a", "access_expires_at": at, "refresh_token": "r", "refresh_expires_at": at,
            "token_type": "Bearer", "user_id": ID, "session_id": ID, "device_id": ID
        });
        let server = parlance_client::Server::new(&address).unwrap();
        let client = Client::resume(server, serde_json::from_value(tokens).unwrap());
        let (mut reader, writer) = open(&client, "a").await.unwrap();
        let long = format!(r#"{{"type":"ping","filling":"{}"}}"#, "x".repeat(70_000));
        writer.say("{}").unwrap();
        writer.say(&long).unwrap();
        let mut pinged = false;
        reader
            .take_until(|frame| {
                pinged |= frame == Frame::Ping;
                frame == Frame::Synced
            })
            .await
            .unwrap();
        assert!(pinged);
        let mut answer = Vec::new();
        push_pong(&mut answer);
        writer.write(&answer).unwrap();
        assert_eq!(peer.await.unwrap(), ["{}".to_owned(), long]);
    }
}
