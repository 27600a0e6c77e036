//! Tiny servers for nginx to stand before, and a client that sees the bytes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What an upstream does with a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// Answers by its name and what it got; takes part in an upgrade by sending back what comes.
    Answers,
    /// Refuses with a status and a body of its own.
    Refuses(&'static str),
    /// Takes the request, and closes.
    FallsSilent,
}

/// A server that is gone when dropped.
pub(super) struct Upstream {
    pub(super) address: String,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    pub(super) async fn new(name: &'static str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, name, manner, counted.clone()));
            }
        });
        Self { address, requests, accepting }
    }

    /// How many requests it got.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(connection: TcpStream, name: &str, manner: Manner, requests: Arc<AtomicUsize>) {
    let mut connection = BufReader::new(connection);
    while let Some(head) = read_head(&mut connection).await {
        let mut body = vec![0; length(&head)];
        connection.read_exact(&mut body).await.unwrap();
        requests.fetch_add(1, Ordering::SeqCst);
        if matches!(manner, Manner::Answers) && head.contains("\r\nUpgrade: websocket\r\n") {
            let switched = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                            sec-websocket-protocol: parlance.v1\r\n\r\n";
            connection.write_all(switched.as_bytes()).await.unwrap();
            let (mut from, mut to) = connection.into_inner().into_split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            return;
        }
        let (status, said) = match manner {
            Manner::Answers => ("200 OK", format!("{name} {head}")),
            Manner::Refuses(status) => (status, format!("refused by {name}")),
            Manner::FallsSilent => return,
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{said}", said.len());
        connection.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// An answer: head and body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Who answered.
    pub(super) fn by(&self) -> &str {
        self.body.split(' ').next().unwrap()
    }
}

/// Sends these bytes, and reads what comes back until the end of the body.
pub(super) async fn send(address: std::net::SocketAddr, request: &[u8]) -> Answer {
    let mut connection = BufReader::new(TcpStream::connect(address).await.unwrap());
    connection.write_all(request).await.unwrap();
    let head = read_head(&mut connection).await.expect("an answer");
    let mut body = vec![0; length(&head)];
    if !request.starts_with(b"HEAD") {
        connection.read_exact(&mut body).await.unwrap();
    }
    Answer { head, body: String::from_utf8(body).unwrap() }
}

/// Up to the empty line, if the connection gives that much.
pub(super) async fn read_head(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if connection.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn length(head: &str) -> usize {
    let value = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    value.map_or(0, |value| value.parse().unwrap())
}
