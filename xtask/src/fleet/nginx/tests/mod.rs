//! The real nginx with the deployed configuration, before tiny servers.

mod upstream;

use std::{collections::BTreeSet, time::Duration};

use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use self::upstream::{Answer, Manner, Upstream, read_head, send};
use super::*;
use crate::{
    fleet::roles::until_we_die,
    stack::{free_port, log_end, until},
};

const BOUND: Duration = Duration::from_mins(1);

/// nginx and what stands behind it.
struct World {
    address: SocketAddr,
    commands: Vec<Upstream>,
    queries: Vec<Upstream>,
    nginx: tokio::process::Child,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::of([Manner::Answers; 2]).await
    }

    /// With command-apis of these manners.
    async fn of(manners: [Manner; 2]) -> Self {
        let commands = vec![Upstream::new("command-1", manners[0]).await, Upstream::new("command-2", manners[1]).await];
        let queries =
            vec![Upstream::new("query-1", Manner::Answers).await, Upstream::new("query-2", Manner::Answers).await];
        Self::before(commands, queries).await
    }

    async fn before(commands: Vec<Upstream>, queries: Vec<Upstream>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = |upstreams: &[Upstream]| upstreams.iter().map(|one| one.address.clone()).collect::<Vec<_>>();
        let log = folder.path().join("log");
        // Somebody may take the port between its choice and its use.
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
            let nginx = Nginx::configure(folder.path(), address, &names(&commands), &names(&queries)).unwrap();
            let command = nginx.command();
            let mut dying = until_we_die(command.get_program());
            let mut nginx = dying.args(command.get_args()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
            let is_up =
                until(BOUND, async || nginx.try_wait().unwrap().is_some() || TcpStream::connect(address).await.is_ok());
            if is_up.await && nginx.try_wait().unwrap().is_none() {
                return Self { address, commands, queries, nginx, _folder: folder };
            }
        }
        panic!("nginx does not start: {}", log_end(&log));
    }

    async fn ask(&self, method: &str, target: &str, headers: &str) -> Answer {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: chat.test\r\n{headers}\r\n");
        send(self.address, request.as_bytes()).await
    }

    async fn post(&self, target: &str) -> Answer {
        self.ask("POST", target, "Content-Length: 2\r\n\r\n{}").await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(pid) = self.nginx.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // The first process tells the others.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// What nginx says by itself is what Parlance would say.
fn is_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status(), status, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&body["type"], &body["status"]), (&format!("/problems/{kind}").into(), &status.into()));
    assert!(body["title"].is_string() && body["detail"].is_string() && body["retryable"].is_boolean());
    let trace = body["trace_id"].as_str().unwrap();
    assert_eq!(trace.len(), 32);
    assert!(answer.header("traceparent").unwrap().starts_with(&format!("00-{trace}-")));
    assert!(answer.header("x-request-id").is_some());
}

fn conversation(number: usize) -> String {
    format!("/v1/conversations/0190a000-0000-7000-8000-{:012x}", number * 7_919)
}

#[tokio::test]
async fn changes_go_to_the_command_side_and_all_else_to_the_query_side() {
    let world = World::new().await;
    for path in ["/v1/users", "/v1/conversations", &conversation(1), "/v1/conversations/", "/v1/nothing", "/v1/ws"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(world.ask(method, path, "").await.by().starts_with("command"), "{method} {path}");
        }
        for method in ["GET", "OPTIONS", "PROPFIND"] {
            assert!(world.ask(method, path, "").await.by().starts_with("query"), "{method} {path}");
        }
        assert_eq!(world.ask("HEAD", path, "").await.status(), 200);
    }
    // nginx refuses it; what is allowed instead, the query side knows.
    let trace = world.ask("TRACE", "/v1/users", "").await;
    assert_eq!((trace.status(), trace.by().starts_with("query")), (405, true));
}

#[tokio::test]
async fn a_conversation_has_one_command_api_and_other_commands_are_spread() {
    let world = World::new().await;
    let (mut owners, mut others) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..50 {
        let path = conversation(number);
        let owner = world.post(&format!("{path}/messages")).await.by().to_owned();
        for (method, rest) in [("PATCH", ""), ("PUT", "/members/me"), ("DELETE", "/messages/x/reactions/%F0%9F%91%8D")]
        {
            assert_eq!(world.ask(method, &format!("{path}{rest}"), "").await.by(), owner);
        }
        owners.insert(owner);
        others.insert(world.post("/v1/sessions").await.by().to_owned());
        others.insert(world.post("/v1/conversations").await.by().to_owned());
    }
    assert_eq!((owners.len(), others.len()), (2, 2));
}

#[tokio::test]
async fn requests_arrive_as_they_were_sent() {
    let world = World::new().await;
    for target in ["/v1/a/%F0%9F%91%8D%2f..?q=%20+x&y", "//v1//users", "/v1/x/../users"] {
        let got =
            world.ask("GET", target, "traceparent: t\r\nX-Request-Id: r\r\nX-Forwarded-For: 10.1.2.3\r\n").await.body;
        assert!(got.contains(&format!(" GET {target} HTTP/1.1\r\n")), "{got}");
        for header in ["Host: chat.test", "traceparent: t", "X-Request-Id: r", "X-Forwarded-For: 10.1.2.3, 127.0.0.1"] {
            assert!(got.contains(&format!("\r\n{header}\r\n")), "{header}: {got}");
        }
    }
}

#[tokio::test]
async fn what_is_for_operators_and_processes_is_unknown_outside() {
    let world = World::new().await;
    let hidden = ["/health/live", "/health/ready", "/metrics", "/internal/v1/send", "/v1/../metrics", "/%6detrics"];
    for path in hidden {
        is_problem(&world.ask("GET", path, "").await, 404, "not-found");
        is_problem(&world.post(path).await, 404, "not-found");
    }
    assert!(world.commands.iter().chain(&world.queries).all(|upstream| upstream.requests() == 0));
}

#[tokio::test]
async fn its_own_refusals_are_problems() {
    let world = World::new().await;
    for request in ["what\r\n\r\n", "GET / HTTP/1.1\r\nno header\r\n\r\n", "get / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        is_problem(&send(world.address, request.as_bytes()).await, 400, "bad-request");
    }
    let long = "a".repeat(40_000);
    is_problem(&world.ask("GET", &format!("/{long}"), "").await, 400, "bad-request");
    is_problem(&world.ask("GET", "/", &format!("Long: {long}\r\n")).await, 400, "bad-request");
    let body = |length| format!("Content-Length: {length}\r\n\r\n{}", "a".repeat(length));
    assert_eq!(world.ask("POST", "/v1/users", &body(131_072)).await.status(), 200);
    is_problem(&world.ask("POST", "/v1/users", &body(131_073)).await, 413, "payload-too-large");
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n20001\r\n{}\r\n0\r\n", "a".repeat(131_073));
    is_problem(&world.ask("POST", "/v1/users", &chunked).await, 413, "payload-too-large");

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let known = world.ask("GET", "/metrics", &format!("traceparent: {trace}\r\nX-Request-Id: mine\r\n")).await;
    assert_eq!((known.header("traceparent"), known.header("x-request-id")), (Some(trace), Some("mine")));
    assert!(known.body.contains("0af7651916cd43dd8448eb211c80319c"));
    let long = "r".repeat(129);
    let replaced = world.ask("GET", "/metrics", &format!("X-Request-Id: {long}\r\n")).await;
    assert_ne!(replaced.header("x-request-id"), Some(&*long));
}

#[tokio::test]
async fn what_the_roles_refuse_passes_as_it_is() {
    let world = World::of([Manner::Refuses("503 Later"), Manner::Refuses("503 Later")]).await;
    let answer = world.post(&conversation(1)).await;
    assert_eq!((answer.status(), answer.body.starts_with("refused by command")), (503, true));
    assert_eq!(world.commands.iter().map(Upstream::requests).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_process_that_is_away_costs_no_request() {
    let mut world = World::new().await;
    world.commands.remove(0);
    world.queries.remove(0);
    let (commands, queries) = (&world.commands[0], &world.queries[0]);
    for number in 0..30 {
        assert_eq!(world.post(&conversation(number)).await.status(), 200);
        assert_eq!(world.post("/v1/sessions").await.status(), 200);
        assert_eq!(world.ask("GET", "/v1/users/me", "").await.status(), 200);
    }
    assert_eq!((commands.requests(), queries.requests()), (60, 30));
}

#[tokio::test]
async fn when_all_are_away_it_says_when_to_try_again() {
    let mut world = World::new().await;
    (world.commands, world.queries) = (Vec::new(), Vec::new());
    for answer in
        [world.post(&conversation(1)).await, world.post("/v1/users").await, world.ask("GET", "/v1/ws", "").await]
    {
        is_problem(&answer, 503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.body.contains("\"retryable\":true"));
    }
}

#[tokio::test]
async fn only_what_may_come_twice_is_sent_twice() {
    let world = World::of([Manner::FallsSilent, Manner::Answers]).await;
    let mut lost = 0;
    for number in 0..20 {
        assert_eq!(world.post(&conversation(number)).await.by(), "command-2");
        let other = world.post("/v1/users").await;
        if other.status() == 503 {
            is_problem(&other, 503, "unavailable");
            lost += 1;
        }
    }
    let [silent, answering] = &world.commands[..] else { panic!("there are two") };
    assert!(lost > 0 && silent.requests() > lost);
    assert_eq!(answering.requests(), 40 - lost);
}

#[tokio::test]
async fn a_socket_is_handed_through() {
    let world = World::new().await;
    let mut socket = BufReader::new(TcpStream::connect(world.address).await.unwrap());
    let upgrade = "GET /v1/ws?ticket=t HTTP/1.1\r\nHost: chat.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: parlance.v1\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let head = read_head(&mut socket).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("parlance.v1"), "{head}");
    for frame in [&b"\x81\x02hi"[..], b"\x89\x00"] {
        socket.write_all(frame).await.unwrap();
        let mut back = vec![0; frame.len()];
        tokio::time::timeout(BOUND, socket.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, frame);
    }
}
