//! The loop of a connection over a stream in memory: bytes as a client may send them, and one that takes none.

use std::time::Duration;

use bytes::Bytes;
use platform::auth::Caller;
use schemas::ws::close;
use testkit::eventually;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::socket;
use super::world::{BOUND, World, device, session_of, user};

/// A connection of the first user; it ends when the socket does.
fn connect(world: &World, room: usize, early: &'static [u8]) -> DuplexStream {
    let (here, there) = tokio::io::duplex(room);
    let (user_id, device_id) = (user(1), device(1));
    let expires_at = OffsetDateTime::now_utc() + time::Duration::minutes(5);
    let caller = Caller { user_id, session_id: session_of(user_id, device_id), device_id, expires_at };
    tokio::spawn(socket::serve(world.gateway.shared.clone(), there, Bytes::from_static(early), caller));
    here
}

/// A client's frame, masked with zeroes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// The next frame's first byte and payload.
async fn next(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let read = async {
        let (first, length) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
        let length = if length == 126 { stream.read_u16().await.unwrap() } else { length.into() };
        let mut payload = vec![0; length.into()];
        stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    };
    tokio::time::timeout(BOUND, read).await.expect("a frame in time")
}

async fn next_text(stream: &mut DuplexStream) -> String {
    let (first, payload) = next(stream).await;
    assert_eq!(first, 0x81);
    String::from_utf8(payload).unwrap()
}

async fn ends(stream: &mut DuplexStream) {
    let mut rest = Vec::new();
    tokio::time::timeout(BOUND, stream.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn frames_come_in_any_pieces() {
    let world = World::new().await;
    // What came with the handshake counts too.
    let mut stream = connect(&world, 64 * 1024, &[0x01, 0x83, 0, 0, 0, 0, b'{', b'"', b't']);
    let rest = [frame(0x89, b"there?"), frame(0x00, br#"ype":"he"#), frame(0x80, br#"llo"}"#)].concat();
    for byte in rest {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(next(&mut stream).await, (0x8A, b"there?".to_vec()));
    assert!(next_text(&mut stream).await.starts_with(r#"{"type":"welcome""#));
    assert_eq!(next_text(&mut stream).await, r#"{"type":"synced"}"#);
    // Its close is answered by ours.
    let goodbye = [&1000_u16.to_be_bytes()[..], b"bye"].concat();
    stream.write_all(&frame(0x88, &goodbye)).await.unwrap();
    assert_eq!(next(&mut stream).await, (0x88, 1000_u16.to_be_bytes().to_vec()));
    ends(&mut stream).await;
    eventually("it is gone", BOUND, async || world.gateway.connections() == 0).await;
}

#[tokio::test]
async fn bad_framing_and_bad_frames_are_told_apart() {
    let world = World::new().await;
    for (bytes, code) in [
        (vec![0x81, 1, b'x'], 1002),
        (frame(0xC1, b"{}"), 1002),
        (frame(0x82, b"{}"), close::PROTOCOL),
        (frame(0x81, b"{}"), close::PROTOCOL),
        (frame(0x81, b"\xFF"), close::PROTOCOL),
        (frame(0x81, br#"{"type":"ping"}"#), close::PROTOCOL),
    ] {
        let mut stream = connect(&world, 1024, b"");
        stream.write_all(&bytes).await.unwrap();
        let (first, payload) = next(&mut stream).await;
        assert_eq!((first, &payload[..2]), (0x88, &code.to_be_bytes()[..]), "{bytes:?}");
        stream.write_all(&frame(0x88, &code.to_be_bytes())).await.unwrap();
        ends(&mut stream).await;
    }
}

#[tokio::test]
async fn who_takes_nothing_is_closed_as_too_slow() {
    let world = World::new().await;
    let room = world.conversation(&[user(1), user(2)]).await;
    let mut stream = connect(&world, 600, b"");
    stream.write_all(&frame(0x81, br#"{"type":"hello"}"#)).await.unwrap();
    assert!(next_text(&mut stream).await.contains("welcome"));
    while !next_text(&mut stream).await.contains("synced") {}
    world.say(room, user(2), 20).await;
    // The stream's own buffer is full by now; half a minute goes by.
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1)).await;
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    // What was begun is written to its end, nothing else, and then why.
    let mut events = 0;
    let (first, payload) = loop {
        let (first, payload) = next(&mut stream).await;
        if first != 0x81 {
            break (first, payload);
        }
        events += 1;
    };
    assert_eq!((first, &payload[..2]), (0x88, &close::TOO_SLOW.to_be_bytes()[..]));
    assert!(events <= 3, "{events}");
}
