//! The circle by itself, and against the real nginx.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use testkit::{eventually, eventually_some};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;

const BOUND: Duration = Duration::from_mins(1);

#[test]
fn the_sum_is_that_of_everybody() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn members_are_split_as_nginx_splits_them() {
    assert_eq!(split("10.0.0.7:8080"), ("10.0.0.7", "8080"));
    assert_eq!(split("commands"), ("commands", ""));
    assert_eq!(split("[::1]:80"), ("[::1]", "80"));
    assert_eq!(split("[::1]"), ("[::1]", ""));
}

#[test]
fn who_leaves_moves_only_its_own_keys() {
    let all = ["a:1", "b:1", "c:1"];
    let (whole, rest) = (Ring::new(&all), Ring::new(&all[..2]));
    let mut owned = [0; 3];
    for _ in 0..3_000 {
        let key = Uuid::now_v7().to_string();
        let order: Vec<_> = whole.order(&key).collect();
        assert_eq!(order.len(), 3);
        owned[order[0]] += 1;
        let next = order.into_iter().find(|member| *member < 2);
        assert_eq!(rest.order(&key).next(), next);
    }
    assert!(owned.iter().all(|count| *count > 500), "{owned:?}");
}

#[test]
fn a_ring_of_nobody_has_no_order() {
    assert_eq!(Ring::default().order("key").count(), 0);
    assert_eq!(Ring::new(&["a:1"]).order("key").collect::<Vec<_>>(), [0]);
}

/// An nginx of the test's own, stopped when dropped.
struct Nginx {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    fn start(listen: u16, servers: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let server = |server| format!("server {server};");
        let servers = servers.iter().map(server).collect::<Vec<_>>().concat();
        let temp = |kind| format!("{kind}_temp_path {at}/{kind};");
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).concat();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
             events {{}}
             http {{
                 access_log off; {temp}
                 upstream commands {{ hash $arg_key consistent; {servers} }}
                 server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://commands; }} }}
             }}",
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let process = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        Self { process, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn ask(address: SocketAddr, key: &str) -> Option<String> {
    let mut client = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /?key={key} HTTP/1.0\r\nhost: test\r\n\r\n");
    client.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

#[tokio::test]
async fn nginx_chooses_as_we_do() {
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let mut servers = Vec::new();
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let router = Router::new().route(
            "/",
            get({
                let name = name.clone();
                async move || name
            }),
        );
        tokio::spawn(crate::http::serve(listener, router, stop.clone(), BOUND));
        servers.push(name);
    }
    // A port that was free just now: another may take it before nginx does, which then ends at once.
    let (_nginx, address) = eventually_some("nginx serves", BOUND, async || {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut nginx = Nginx::start(free.port(), &servers);
        let mut up = false;
        eventually("nginx serves or has ended", BOUND, async || {
            up = ask(free, "key").await.is_some_and(|name| servers.contains(&name));
            up || nginx.process.try_wait().unwrap().is_some()
        })
        .await;
        up.then_some((nginx, free))
    })
    .await;
    let ring = Ring::new(&servers);
    let mut owned: HashMap<String, usize> = HashMap::new();
    for _ in 0..1_000 {
        let key = Uuid::new_v4().to_string();
        let ours = &servers[ring.order(&key).next().unwrap()];
        let theirs = ask(address, &key).await.unwrap();
        assert_eq!(theirs, *ours, "{key}");
        *owned.entry(theirs).or_default() += 1;
    }
    assert_eq!(owned.len(), 3, "{owned:?}");
}
