//! A breakable road to a PostgreSQL that listens on a Unix socket: what passes can be cut, swallowed or held back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

const SOCKET: &str = ".s.PGSQL.5432";

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives: the connection is cut before it.
    CutBefore,
    /// It arrives, and its answer never does: the connection is cut after it.
    CutAfter,
    /// It is held back, whatever becomes of its client, and arrives when [`FaultProxy::release`] is called.
    Hold,
}

/// A proxy in front of a server's Unix socket; stopped when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    folder: TempDir,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    upstream: PathBuf,
    stop: CancellationToken,
    /// Cancelled to cut what is open now.
    open: Mutex<CancellationToken>,
    refusing: AtomicBool,
    requests: AtomicU64,
    /// The request that it happens to.
    fault: Mutex<Option<(u64, Fault)>>,
    released: watch::Sender<u64>,
}

impl FaultProxy {
    /// Stands before the server whose socket lies in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let own = tempfile::Builder::new().prefix("parlance-proxy-").tempdir()?;
        let listener = UnixListener::bind(own.path().join(SOCKET)).context("cannot listen on the proxy's socket")?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream: folder.join(SOCKET),
            open: Mutex::new(stop.child_token()),
            stop: stop.clone(),
            refusing: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            fault: Mutex::new(None),
            released: watch::Sender::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { folder: own, shared, _stop: stop.drop_guard() })
    }

    /// The folder of its socket: a `host` for clients.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lets a fault happen once, to the request after `after` others. A request is what a client writes at once.
    pub fn arm(&self, after: u64, fault: Fault) {
        *self.shared.fault.lock() = Some((self.shared.requests.load(Ordering::SeqCst) + after, fault));
    }

    /// Takes the fault back; whether it has happened already.
    pub fn disarm(&self) -> bool {
        self.shared.fault.lock().take().is_none()
    }

    /// Cuts what is open.
    pub fn cut(&self) {
        let next = self.shared.stop.child_token();
        std::mem::replace(&mut *self.shared.open.lock(), next).cancel();
    }

    /// Turns new connections away, or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Lets what was held back go on.
    pub fn release(&self) {
        self.shared.released.send_modify(|released| *released += 1);
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    while let Some(Ok((client, _))) = shared.stop.run_until_cancelled(listener.accept()).await {
        if !shared.refusing.load(Ordering::SeqCst)
            && let Ok(server) = UnixStream::connect(&shared.upstream).await
        {
            tokio::spawn(connection(client, server, Arc::clone(&shared)));
        }
    }
}

async fn connection(client: UnixStream, server: UnixStream, shared: Arc<Shared>) {
    let cut = shared.open.lock().child_token();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let swallow = Arc::new(AtomicBool::new(false));
    let answers = tokio::spawn(pass_answers(server_read, client_write, cut.clone(), Arc::clone(&swallow)));
    pass_requests(client_read, server_write, &shared, &cut, &swallow).await;
    cut.cancel();
    // Ends with the connection; what failed in it is the fault that was asked for.
    let _ = answers.await;
}

async fn pass_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
    cut: &CancellationToken,
    swallow: &AtomicBool,
) {
    let mut buffer = vec![0; 256 * 1024];
    while let Some(Ok(length @ 1..)) = cut.run_until_cancelled(client.read(&mut buffer)).await {
        let number = shared.requests.fetch_add(1, Ordering::SeqCst);
        let fault = shared.fault.lock().take_if(|(at, _)| *at <= number).map(|(_, fault)| fault);
        match fault {
            None => {}
            Some(Fault::CutBefore) => return,
            Some(Fault::CutAfter) => swallow.store(true, Ordering::SeqCst),
            Some(Fault::Hold) => {
                let mut released = shared.released.subscribe();
                // The client may go meanwhile; the proxy's end alone ends the wait.
                let _ = shared.stop.run_until_cancelled(released.changed()).await;
            }
        }
        if server.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn pass_answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    cut: CancellationToken,
    swallow: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 256 * 1024];
    while let Some(Ok(length @ 1..)) = cut.run_until_cancelled(server.read(&mut buffer)).await {
        // The answer is there, so the request is done: that is the moment to cut.
        if swallow.load(Ordering::SeqCst) || client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    cut.cancel();
}
