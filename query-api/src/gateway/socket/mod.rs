//! The loop of one connection, over any stream: bytes in, bytes out, a session in between.
//!
//! While nothing happens it holds no buffer: what comes is read into memory that all connections of a thread share.

mod write;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use platform::auth::Caller;
use schemas::ws::close;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::Shared;
use super::hub::{Mailbox, Note};
use super::protocol::frame::{self, Decoder, Incoming, Violation};
use super::session::{Action, Output, Session};
use super::work::{self, Done, Kind, Work};

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;
/// Commands of one connection that are carried out at once; then it is not read from.
const COMMANDS: usize = 128;
/// Frames that may wait to be written; then it is not read from.
const BACKLOG: usize = 2048;
/// A connection that takes nothing for this long is too slow.
const STALL_MS: u64 = 30_000;
/// How long a closed connection may take to say goodbye.
const GOODBYE_MS: u64 = 2_000;
/// How long commands under way are waited for before the connection of a server that drains is closed.
const DRAIN_MS: u64 = 2_000;
/// How long commands of a connection that is gone may take.
const AFTERMATH: Duration = Duration::from_secs(10);
/// RFC 6455: not the framing.
const PROTOCOL_ERROR: u16 = 1002;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Serves a connection until it ends.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    stream: S,
    early: Bytes,
    caller: Caller,
) {
    let mailbox = shared.hub.connect(&caller);
    // A revocation between the token's check and this moment was told to nobody.
    if shared.authenticator.still_good(&caller).is_err() {
        mailbox.close(close::TOKEN, "token expired or revoked");
    }
    if shared.stop.is_cancelled() {
        mailbox.close(close::DRAINING, "the server drains");
    }
    let mut socket = Socket::new(shared.clone(), stream, mailbox.clone(), caller, &early);
    // However little was read early, hyper's whole buffer stands behind it.
    drop(early);
    std::future::poll_fn(|context| socket.poll(context)).await;
    shared.hub.disconnect(&mailbox);
    shared.live.disconnected(mailbox.connected()).await;
    shared.cursors.hurry();
    if let Some(work) = socket.work.take().filter(|work| work.commands > 0) {
        tokio::spawn(tokio::time::timeout(AFTERMATH, work.finish()));
    }
}

/// A connection and all that belongs to it.
struct Socket<S> {
    shared: Arc<Shared>,
    stream: S,
    decoder: Decoder,
    session: Session,
    mailbox: Arc<Mailbox>,
    out: Output,
    /// How much of the first frame was written.
    written: usize,
    work: Option<Box<InFlight>>,
    sleep: Pin<Box<Sleep>>,
    sleep_ms: u64,
    /// Since when nothing could be written, though something waits.
    stalled_ms: Option<u64>,
    ending: Ending,
}

/// Work under way.
#[derive(Default)]
struct InFlight {
    all: FuturesUnordered<Tagged>,
    commands: usize,
}

/// A piece of work that knows its kind.
struct Tagged {
    kind: Kind,
    work: Work,
}

impl Future for Tagged {
    type Output = (Kind, Done);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Kind, Done)> {
        let done = ready!(self.work.as_mut().poll(context));
        Poll::Ready((self.kind, done))
    }
}

impl InFlight {
    /// Carries the commands out, though nobody waits for their answers.
    async fn finish(mut self: Box<Self>) {
        while self.commands > 0
            && let Some((kind, _)) = self.all.next().await
        {
            self.commands -= usize::from(kind == Kind::Command);
        }
    }
}

/// How far the end has come.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// It has not begun.
    Open,
    /// The server drains: what is under way is answered, nothing more is taken.
    Draining { until_ms: u64 },
    /// A close frame was put out; the client's is waited for.
    Closing { until_ms: u64 },
    /// Both close frames were put out, or the client is gone: only bytes are left to be written.
    Closed { until_ms: u64 },
}

/// Why the loop of a connection ends.
enum End {
    /// It is over.
    Over,
    /// The stream failed.
    Failed,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

/// What stops the reading of one piece.
enum Stop {
    Violation(Violation),
    Close(Option<u16>),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn new(shared: Arc<Shared>, stream: S, mailbox: Arc<Mailbox>, caller: Caller, early: &[u8]) -> Self {
        let now_ms = shared.clock.now_ms();
        let session = Session::new(caller, now_ms, shared.clock.at(caller.expires_at));
        let sleep_ms = session.due_ms();
        let sleep = Box::pin(sleep_until(shared.clock.instant(sleep_ms)));
        let mut socket = Self {
            shared,
            stream,
            decoder: Decoder::default(),
            session,
            mailbox,
            out: Output::default(),
            written: 0,
            work: None,
            sleep,
            sleep_ms,
            stalled_ms: None,
            ending: Ending::Open,
        };
        if !early.is_empty() {
            socket.take(now_ms, &mut early.to_vec());
        }
        socket
    }

    /// Does all that can be done now, and writes at the end what came of it.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now_ms = self.shared.clock.now_ms();
            let mut busy = self.poll_mail(context, now_ms);
            busy |= self.poll_work(context, now_ms);
            match self.poll_read(context, now_ms) {
                Ok(read) => busy |= read,
                Err(_) => return Poll::Ready(()),
            }
            busy |= self.poll_time(context, now_ms);
            match self.act(now_ms) {
                Ok(begun) => busy |= begun,
                Err(_) => return Poll::Ready(()),
            }
            match self.poll_write(context, now_ms) {
                Ok(written) => busy |= written,
                Err(_) => return Poll::Ready(()),
            }
            if !busy {
                return Poll::Pending;
            }
        }
    }

    fn poll_mail(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        let open = self.ending == Ending::Open;
        let wanted = open && self.session.is_open() && self.out.frames.len() < BACKLOG;
        let Poll::Ready(mail) = self.mailbox.poll(context, wanted, !open) else { return false };
        for note in mail.notes {
            match note {
                Note::Event(event) => self.session.event(now_ms, &event, &mut self.out),
                Note::Receipt(receipt) => self.session.receipt(now_ms, &receipt, &mut self.out),
                Note::Head(id, head) => self.session.heads(now_ms, &[(id, head)], &mut self.out),
                Note::Stay(id, joined, head) => self.session.stays(now_ms, &[(id, joined, head)], &mut self.out),
            }
        }
        if let Some(missed) = mail.missed {
            self.session.missed(now_ms, missed, &mut self.out);
        }
        if open && let Some((code, reason)) = self.mailbox.closing() {
            if code == close::DRAINING && self.work.as_ref().is_some_and(|work| work.commands > 0) {
                self.ending = Ending::Draining { until_ms: now_ms + DRAIN_MS };
            } else {
                self.session.close(code, reason, &mut self.out);
            }
        }
        true
    }

    fn poll_work(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        let mut busy = false;
        while let Some(work) = &mut self.work {
            match work.all.poll_next_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(None) => self.work = None,
                Poll::Ready(Some((kind, done))) => {
                    work.commands -= usize::from(kind == Kind::Command);
                    busy = true;
                    self.done(now_ms, done);
                }
            }
        }
        let idle = self.work.as_ref().is_none_or(|work| work.commands == 0);
        if let Ending::Draining { until_ms } = self.ending
            && (idle || now_ms >= until_ms)
        {
            self.ending = Ending::Open;
            self.session.close(close::DRAINING, "the server drains", &mut self.out);
            busy = true;
        }
        busy
    }

    fn done(&mut self, now_ms: u64, done: Done) {
        let (session, out) = (&mut self.session, &mut self.out);
        match done {
            Done::Started(Ok(plan)) => session.started(now_ms, plan, out),
            Done::Started(Err(_)) => session.not_started(now_ms),
            Done::Stays(Ok(stays)) => {
                let stays: Vec<_> = stays.iter().map(|stay| (stay.conversation_id, stay.joined, stay.head)).collect();
                session.stays(now_ms, &stays, out);
            }
            Done::Stays(Err(_)) => session.no_stays(now_ms),
            Done::Read(Ok(pages)) => session.pages(now_ms, &pages, out),
            Done::Read(Err(ranges)) => session.not_read(now_ms, &ranges),
            Done::Receipts(Ok(receipts)) => session.receipts_read(now_ms, &receipts, out),
            Done::Receipts(Err(_)) => session.receipts_not_read(now_ms),
            Done::Sent(reference, result) => session.sent(now_ms, reference.as_deref(), result, out),
            Done::Advanced(advance, result) => {
                session.advanced(now_ms, OffsetDateTime::now_utc(), &advance, result, out);
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, now_ms: u64) -> Result<bool, End> {
        let full = self.work.as_ref().is_some_and(|work| work.commands >= COMMANDS) || self.out.frames.len() >= BACKLOG;
        if matches!(self.ending, Ending::Draining { .. } | Ending::Closed { .. })
            || (full && self.ending == Ending::Open)
        {
            return Ok(false);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut piece = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
                Poll::Pending => Ok(false),
                Poll::Ready(Err(_)) => Err(End::Failed),
                Poll::Ready(Ok(())) if piece.filled().is_empty() => Err(End::Over),
                Poll::Ready(Ok(())) => {
                    self.take(now_ms, piece.filled_mut());
                    Ok(true)
                }
            }
        })
    }

    /// Takes in what the client sent.
    fn take(&mut self, now_ms: u64, piece: &mut [u8]) {
        self.session.heard(now_ms);
        let open = self.ending == Ending::Open;
        let (session, out) = (&mut self.session, &mut self.out);
        let taken = self.decoder.feed(piece, |incoming| {
            match incoming {
                Incoming::Text(text) if open => session.text(now_ms, OffsetDateTime::now_utc(), text, out),
                Incoming::Ping(payload) if open => out.frames.push_back(frame::pong(payload)),
                Incoming::Close(code) => return Err(Stop::Close(code)),
                Incoming::Text(_) | Incoming::Ping(_) | Incoming::Pong => {}
            }
            Ok(())
        });
        match taken {
            Ok(()) => {}
            Err(Stop::Close(code)) => {
                if open {
                    self.session.close(code.unwrap_or_default(), "", &mut self.out);
                    self.out.actions.retain(|action| !matches!(action, Action::Close(..)));
                    self.out.frames.push_back(frame::close(code, ""));
                }
                self.ending = Ending::Closed { until_ms: now_ms + GOODBYE_MS };
            }
            Err(Stop::Violation(_)) if !open => self.ending = Ending::Closed { until_ms: now_ms + GOODBYE_MS },
            Err(Stop::Violation(Violation::Framing(what))) => {
                self.session.close(PROTOCOL_ERROR, what, &mut self.out);
            }
            Err(Stop::Violation(Violation::Content(what))) => {
                self.session.close(close::PROTOCOL, what, &mut self.out);
            }
        }
    }

    fn poll_time(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        let mut busy = false;
        if self.ending == Ending::Open && now_ms >= self.session.due_ms() {
            self.session.tick(now_ms, &mut self.out);
            busy = true;
        }
        if self.stalled_ms.is_some_and(|since| now_ms >= since + STALL_MS) && self.ending == Ending::Open {
            self.session.stalled(&mut self.out);
            busy = true;
        }
        let due_ms = self.due_ms();
        if due_ms < self.sleep_ms || self.sleep.is_elapsed() {
            self.sleep_ms = due_ms.max(now_ms + 1);
            self.sleep.as_mut().reset(self.shared.clock.instant(self.sleep_ms));
        }
        busy | self.sleep.as_mut().poll(context).is_ready()
    }

    /// When something has to happen though nothing comes.
    fn due_ms(&self) -> u64 {
        let own = match self.ending {
            Ending::Open => self.session.due_ms(),
            Ending::Draining { until_ms } | Ending::Closing { until_ms } | Ending::Closed { until_ms } => until_ms,
        };
        own.min(self.stalled_ms.map_or(u64::MAX, |since| since + STALL_MS))
    }

    /// Does what the session wants done; whether work was begun, which has to be polled for it.
    fn act(&mut self, now_ms: u64) -> Result<bool, End> {
        let mut begun = false;
        while !self.out.actions.is_empty() {
            for action in std::mem::take(&mut self.out.actions) {
                begun |= self.act_on(now_ms, action)?;
            }
        }
        Ok(begun)
    }

    fn act_on(&mut self, now_ms: u64, action: Action) -> Result<bool, End> {
        let caller = *self.session.caller();
        match action {
            Action::Keep(cursor) => {
                if cursor.acked_at.is_none() {
                    // It just came in; who listens already goes on listening.
                    let id = cursor.conversation_id;
                    let head = self.shared.hub.join(&self.mailbox, id, cursor.acked, None);
                    self.session.heads(now_ms, &[(id, head)], &mut self.out);
                }
                self.shared.cursors.keep(caller.user_id, caller.device_id, cursor);
            }
            Action::Forget(id) => self.shared.cursors.forget(caller.user_id, caller.device_id, id),
            Action::Verify { reference, access_token } => {
                let verified = self.shared.authenticator.verify(&access_token).ok();
                let expires_ms = verified.map_or(0, |caller| self.shared.clock.at(caller.expires_at));
                self.session.verified(reference.as_deref(), verified, expires_ms, &mut self.out);
            }
            // Who wants an answer gets it once it is committed.
            Action::Advance(advance) if !advance.decides && advance.reference.is_none() => {
                let receipt = work::receipt(&advance);
                let taken = self.shared.port.take_receipt(&caller, advance.conversation_id, receipt);
                let taken = taken.map_err(|problem| *problem);
                self.session.advanced(now_ms, OffsetDateTime::now_utc(), &advance, taken, &mut self.out);
            }
            Action::Close(code, reason) => self.close(now_ms, code, reason),
            Action::Drop => return Err(End::Over),
            action => {
                if let Some((kind, work)) = work::begin(&self.shared, &self.mailbox, &caller, action) {
                    let in_flight = self.work.get_or_insert_default();
                    in_flight.commands += usize::from(kind == Kind::Command);
                    in_flight.all.push(Tagged { kind, work });
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn close(&mut self, now_ms: u64, code: u16, reason: &str) {
        let mut linger = GOODBYE_MS;
        if self.stalled_ms.is_some() {
            // What was not begun to be written never will be, and the client may need long to take the rest.
            self.out.frames.truncate(usize::from(self.written > 0));
            linger = STALL_MS;
        }
        self.stalled_ms = None;
        let session_id = self.session.caller().session_id;
        tracing::debug!(%session_id, code, "a connection is closed with {code}: {reason}");
        self.out.frames.push_back(frame::close(Some(code), reason));
        self.ending = Ending::Closing { until_ms: now_ms + linger };
    }

    /// Writes what is there; once nothing is, a connection that was closed is over.
    fn poll_write(&mut self, context: &mut Context<'_>, now_ms: u64) -> Result<bool, End> {
        let mut wrote = false;
        while !self.out.frames.is_empty() {
            match write::poll(&mut self.stream, context, &mut self.out.frames, &mut self.written) {
                Poll::Ready(Ok(())) => {
                    wrote = true;
                    self.stalled_ms = None;
                }
                Poll::Ready(Err(_)) => return Err(End::Failed),
                Poll::Pending => {
                    if self.ending == Ending::Open {
                        self.stalled_ms.get_or_insert(now_ms);
                    }
                    break;
                }
            }
        }
        if self.out.frames.is_empty() {
            if self.out.frames.capacity() > 0 {
                self.out.frames = VecDeque::new();
            }
            for push in std::mem::take(&mut self.out.traced) {
                push.done(self.session.caller());
            }
            let _ = Pin::new(&mut self.stream).poll_flush(context)?;
        }
        self.count();
        match self.ending {
            Ending::Closed { .. } if self.out.frames.is_empty() => {
                let _ = Pin::new(&mut self.stream).poll_shutdown(context);
                Err(End::Over)
            }
            Ending::Closed { until_ms } | Ending::Closing { until_ms } if now_ms >= until_ms => Err(End::Over),
            _ => Ok(wrote),
        }
    }

    fn count(&mut self) {
        let delivered = std::mem::take(&mut self.out.delivered);
        if delivered > 0 {
            self.shared.figures.deliveries.increment(delivered);
        }
        let redelivered = std::mem::take(&mut self.out.redelivered);
        if redelivered > 0 {
            self.shared.figures.redeliveries.increment(redelivered);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of::<Socket<TcpStream>>() + size_of::<Mailbox>();
        assert!(size <= 1024, "{size}");
    }
}
