//! How long people wait when a process is killed: the longest silence of conversations that never rest.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use parlance_client::{Backoff, Client, Server, SessionOptions, Update};
use testkit::app::{App, Role};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::pairs::user;

const PAIRS: usize = 16;
/// Each pair's pace.
const EVERY: Duration = Duration::from_millis(100);
/// How long they talk before the kill and after it.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(12);

/// Kills a process of `role` while pairs talk, and says how long the one who waited longest got nothing.
pub async fn measure(app: &mut App, role: Role) -> anyhow::Result<Duration> {
    let pairs = pairs(&app.server()).await?;
    let mut talks = JoinSet::new();
    for (ann, ben, conversation) in pairs {
        talks.spawn(talk(ann, ben, conversation));
    }
    tokio::time::sleep(BEFORE).await;
    let place = app.place().clone();
    app.roles().context("a stack")?.fell(role).await?;
    let mut longest = Duration::ZERO;
    while let Some(silence) = talks.join_next().await {
        longest = silence??.max(longest);
    }
    app.roles().context("a stack")?.bring_back(&place, role).await?;
    Ok(longest)
}

async fn pairs(server: &Server) -> anyhow::Result<Vec<(Client, Client, Uuid)>> {
    let run = Uuid::new_v4().simple().to_string();
    stream::iter(0..PAIRS)
        .map(|n| {
            let [ann, ben] = ["a", "b"].map(|side| format!("silence-{}-{n}-{side}", &run[..8]));
            async move {
                let (ann, ben) = (user(server, &ann).await?, user(server, &ben).await?);
                let conversation = ann.open_direct(ben.user_id()).await?.conversation_id;
                anyhow::Ok((ann, ben, conversation))
            }
        })
        .buffered(2)
        .try_collect()
        .await
}

/// Sessions that come back quickly.
fn options() -> SessionOptions {
    let backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_millis(500) };
    SessionOptions { backoff, ..SessionOptions::default() }
}

/// One says something again and again; the longest time between two things that the other gets.
async fn talk(ann: Client, ben: Client, conversation: Uuid) -> anyhow::Result<Duration> {
    let (listening, mut updates) = ben.open_session(options()).await?;
    let (saying, mut own) = ann.open_session(options()).await?;
    let drain = tokio::spawn(async move { while own.next().await.is_some() {} });
    let begun = Instant::now();
    let talking = {
        let saying = saying.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            while begun.elapsed() < BEFORE + AFTER {
                ticks.tick().await;
                // Sent again by the client until it is answered.
                drop(saying.send(conversation, "still there?").await);
            }
        })
    };
    let (mut last, mut longest, mut got) = (Instant::now(), Duration::ZERO, 0_u64);
    while begun.elapsed() < BEFORE + AFTER {
        let update = tokio::time::timeout(AFTER, updates.next()).await.context("nothing came any more")?;
        if matches!(update.context("the session ended")?, Update::Event(_)) {
            // The first ones come while the sessions are still being made.
            if got > 5 {
                longest = last.elapsed().max(longest);
            }
            (last, got) = (Instant::now(), got + 1);
        }
    }
    ensure!(got > 20, "only {got} things were heard");
    talking.await?;
    saying.close().await;
    listening.close().await;
    drain.await?;
    Ok(longest)
}
