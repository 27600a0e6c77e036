//! How long it takes a device that was away to get what it missed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use parlance_client::{Server, text_message};
use uuid::Uuid;

use crate::{
    pairs::user,
    socket::{self, Frame, push_pong, push_text},
};

/// How many sends are under way while the backlog is made.
const UNDER_WAY: u64 = 128;
/// How many events are acked at once.
const ACK_EVERY: u64 = 64;
/// How often it is measured: once from what the server kept of the device, then from a cursor that it is given.
const TIMES: usize = 5;

/// Times to catch up, from the dialling to the last event, in the order in which they were measured.
pub async fn measure(server: &Server, count: u64) -> anyhow::Result<Vec<Duration>> {
    let run = Uuid::new_v4().simple().to_string();
    let [ann, ben] = ["a", "b"].map(|side| format!("away-{}-{side}", &run[..8]));
    let (ann, ben) = (user(server, &ann).await?, user(server, &ben).await?);
    let conversation = ann.open_direct(ben.user_id()).await?.conversation_id;

    // Ben's device is there once, so that it is known from where it was away.
    let start = take(&ben, conversation, None, 1).await?;
    ensure!(start.0 == 1, "the device begins at {} instead of 1", start.0);

    let token = ann.tokens().await.access_token;
    let (mut reader, writer) = socket::open(&ann, &token).await?;
    writer.say(r#"{"type":"hello"}"#)?;
    let (mut sent, mut answered, mut seen, mut acked) = (0, 0, 0, 0);
    let content = "x".repeat(200);
    while answered < count - 1 {
        let mut out = Vec::new();
        while sent < count - 1 && sent - answered < UNDER_WAY {
            let frame = format!(
                r#"{{"type":"send","ref":"{sent}","conversation_id":"{conversation}","message_id":"{}","content":"{content}"}}"#,
                Uuid::now_v7()
            );
            push_text(&mut out, frame.as_bytes());
            sent += 1;
        }
        if seen > acked {
            acked = seen;
            let frame = format!(r#"{{"type":"ack","conversation_id":"{conversation}","seq":{seen}}}"#);
            push_text(&mut out, frame.as_bytes());
        }
        writer.write(&out)?;
        let mut ping = false;
        reader
            .take_until(|frame| {
                match frame {
                    Frame::Ok { .. } => answered += 1,
                    Frame::Message { seq, .. } | Frame::Other { seq } => seen = seen.max(seq),
                    Frame::Ping => ping = true,
                    _ => {}
                }
                true
            })
            .await?;
        if ping {
            let mut answer = Vec::new();
            push_pong(&mut answer);
            writer.write(&answer)?;
        }
    }
    // The last by REST: its position says when the read model has them all, so that the server is idle when we begin.
    let last = ann.send(conversation, &text_message(content)).await?;
    ben.at_least(&last.position).strictly().conversation(conversation).await?;

    let mut times = Vec::new();
    for time in 0..TIMES {
        let cursor = (time > 0).then_some(1);
        let (first, took) = take(&ben, conversation, cursor, last.seq).await?;
        ensure!(first == 2, "it began with {first}");
        times.push(took);
    }
    Ok(times)
}

/// Connects and takes all events up to `until`, in their order; says which was the first, and how long it took.
async fn take(
    client: &parlance_client::Client,
    conversation: Uuid,
    cursor: Option<u64>,
    until: u64,
) -> anyhow::Result<(u64, Duration)> {
    let token = client.tokens().await.access_token;
    let start = Instant::now();
    let (mut reader, writer) = socket::open(client, &token).await?;
    match cursor {
        Some(cursor) => writer.say(&format!(r#"{{"type":"hello","cursors":{{"{conversation}":{cursor}}}}}"#))?,
        None => writer.say(r#"{"type":"hello"}"#)?,
    }
    let (mut first, mut last, mut acked, mut in_order) = (0, 0, 0, true);
    let mut took = Duration::ZERO;
    while acked < until {
        reader
            .take_until(|frame| {
                if let Frame::Message { seq, .. } | Frame::Other { seq } = frame {
                    if first == 0 {
                        first = seq;
                    } else {
                        in_order &= seq == last + 1;
                    }
                    last = seq;
                }
                // Whatever came together is taken together.
                true
            })
            .await?;
        if last >= until && took.is_zero() {
            took = start.elapsed();
        }
        if last >= acked + ACK_EVERY || last >= until {
            acked = last;
            writer.say(&format!(r#"{{"type":"ack","conversation_id":"{conversation}","seq":{last}}}"#))?;
        }
    }
    ensure!(in_order, "the events did not come one after the other");
    // Answered once the ack before it was taken.
    writer.say(r#"{"type":"ping","ref":"1"}"#)?;
    reader.take_until(|frame| frame == Frame::Quiet).await?;
    Ok((first, took))
}
