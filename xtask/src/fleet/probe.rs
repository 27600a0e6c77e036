//! Whether requests of both kinds go through nginx.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const BOUND: Duration = Duration::from_secs(5);

/// Asks the query side for its keys, and the command side for something that it refuses.
pub(super) async fn goes_through(address: SocketAddr) -> bool {
    let get = status(address, "GET /.well-known/jwks.json HTTP/1.1", "").await;
    let post = status(address, "POST /v1/sessions/refresh HTTP/1.1", "content-type: application/json\r\n").await;
    matches!(get, Ok(200)) && matches!(post, Ok(400..=499))
}

/// The status that a request without a body is answered by.
pub(super) async fn status(address: SocketAddr, line: &str, headers: &str) -> Result<u16> {
    let asked = async {
        let mut connection = TcpStream::connect(address).await?;
        let request = format!("{line}\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("no status")?;
        Ok(status.parse()?)
    };
    timeout(BOUND, asked).await?
}
