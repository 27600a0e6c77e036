//! Many frames, one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

/// Frames in one call.
const AT_ONCE: usize = 128;

/// Writes the first of `frames`, the first of all from `written` on; takes out those that were written whole.
pub(super) fn poll<S: AsyncWrite + Unpin>(
    stream: &mut S,
    context: &mut Context<'_>,
    frames: &mut VecDeque<Bytes>,
    written: &mut usize,
) -> Poll<io::Result<()>> {
    let mut slices = [IoSlice::new(&[]); AT_ONCE];
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(frames.iter()) {
        let begin = if count == 0 { *written } else { 0 };
        *slice = IoSlice::new(&frame[begin..]);
        count += 1;
    }
    let stream = Pin::new(stream);
    let mut taken = if count == 1 {
        ready!(stream.poll_write(context, &slices[0]))?
    } else {
        ready!(stream.poll_write_vectored(context, &slices[..count]))?
    };
    if taken == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    taken += *written;
    while let Some(frame) = frames.pop_front_if(|frame| frame.len() <= taken) {
        taken -= frame.len();
    }
    *written = taken;
    Poll::Ready(Ok(()))
}
