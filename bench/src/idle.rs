//! What an idle connection costs the server in memory.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use parlance_client::Client;
use testkit::app::App;
use uuid::Uuid;

use crate::{
    pairs::{log_in, user},
    process::Watch,
    socket::{self, Frame, Reader, Writer},
};

/// Devices a user: users cost two password hashes, further devices one.
const DEVICES: usize = 100;
/// How many log in at once.
const AT_ONCE: usize = 4;
/// How many connections warm the server up before it is weighed.
const WARM_UP: usize = 100;
/// For the server to let go of what logging in and connecting took.
const SETTLE: Duration = Duration::from_secs(3);

/// KiB of resident memory a connection, of `count` that said hello and then nothing. The server is started again after
/// all have logged in: what password hashes left free would hide what connections take.
#[expect(clippy::cast_precision_loss, reason = "KiB of a process")]
pub async fn measure(app: &mut App, count: usize) -> anyhow::Result<f64> {
    let server = &app.server();
    let run = Uuid::new_v4().simple().to_string();
    let names: Vec<String> = (0..count.div_ceil(DEVICES)).map(|n| format!("idle-{}-{n}", &run[..8])).collect();
    let users: Vec<Client> =
        stream::iter(&names).map(|name| user(server, name)).buffered(AT_ONCE).try_collect().await?;
    // Everybody has a conversation, as everybody has in life.
    for pair in users.chunks_exact(2) {
        pair[0].open_direct(pair[1].user_id()).await?;
    }
    let names = names.iter().flat_map(|name| std::iter::repeat_n(name, DEVICES)).take(count);
    let devices: Vec<Client> =
        stream::iter(names).map(|name| log_in(server, name)).buffer_unordered(AT_ONCE).try_collect().await?;
    app.stop_and_restart().await?;
    let watch = Watch(app.watched()?);
    drop(connect(&devices[..WARM_UP.min(count)]).await?);
    tokio::time::sleep(SETTLE).await;
    let before = watch.resident_kib()?;
    let sockets = connect(&devices).await?;
    tokio::time::sleep(SETTLE).await;
    let after = watch.resident_kib()?;
    drop(sockets);
    Ok((after as f64 - before as f64) / count as f64)
}

async fn connect(devices: &[Client]) -> anyhow::Result<Vec<(Reader, Writer)>> {
    stream::iter(devices)
        .map(|device| async move {
            let token = device.tokens().await.access_token;
            let (mut reader, writer) = socket::open(device, &token).await?;
            writer.say(r#"{"type":"hello"}"#)?;
            reader.take_until(|frame| frame == Frame::Synced).await?;
            reader.shrink();
            anyhow::Ok((reader, writer))
        })
        .buffer_unordered(32)
        .try_collect()
        .await
}
