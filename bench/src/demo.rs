//! Real conversations, replayed through as many real clients: each line is said by its own speaker, over REST or the
//! WebSocket, once the other has it before them; in the end every history is compared with the input, line by line.

mod dataset;
mod person;

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use parlance_client::{Backoff, CreateConversation, Kind, PositionToken, Server};
use uuid::Uuid;

pub use dataset::{CITATION, Line, Script};
use person::Person;

/// The password of all accounts that are left behind.
pub const PASSWORD: &str = "chit-chat-demo";
/// How many people arrive at once: each costs the server two password hashes.
const ARRIVE_AT_ONCE: usize = 4;
/// How many conversations go on at once.
const TALK_AT_ONCE: usize = 32;
/// Every so many lines one is sent by REST, the others over the WebSocket.
const BY_REST: usize = 4;
/// Characters of a group's name.
const NAME_CHARACTERS: usize = 100;

/// What was done.
#[derive(Debug)]
pub struct Replayed {
    /// Conversations.
    pub conversations: usize,
    /// Lines, each of them compared.
    pub lines: usize,
    /// Accounts that one can log in with, and how many conversations each has, the busiest first.
    pub accounts: Vec<(String, usize)>,
}

/// A sample of the data set: so many conversations, spread evenly over it, of no more than `longest` lines each.
pub async fn scripts(count: usize, longest: usize) -> anyhow::Result<Vec<Script>> {
    let json = tokio::task::spawn_blocking(dataset::obtain).await??;
    dataset::sample(&json, count, longest)
}

/// Replays scripts against a running server, with fresh accounts.
pub async fn replay(address: &str, scripts: &[Script]) -> anyhow::Result<Replayed> {
    // Rate limits are the server's to set and ours to wait for.
    let server = Server::new(address)?.with_retries(20, Backoff::default());
    let people = arrive(&server, scripts).await?;
    let lines: usize = scripts.iter().map(|script| script.lines.len()).sum();
    let bar = bar("talking", lines);
    let mut pairs = HashSet::new();
    let talks = scripts.iter().map(|script| {
        // Two people have one direct conversation: further ones of theirs are groups.
        let mut pair = script.speakers();
        pair.sort_unstable();
        let direct = pairs.insert(pair);
        (script, direct)
    });
    let talks: Vec<(&Script, Talk)> = stream::iter(talks)
        .map(|(script, direct)| {
            let (people, bar) = (&people, &bar);
            async move { anyhow::Ok((script, talk(script, direct, people, bar).await?)) }
        })
        .buffer_unordered(TALK_AT_ONCE)
        .try_collect()
        .await?;
    bar.finish();
    let bar = self::bar("comparing", lines);
    stream::iter(&talks)
        .map(|(script, talk)| compare(script, talk, &people, &bar))
        .buffer_unordered(ARRIVE_AT_ONCE)
        .try_collect::<()>()
        .await?;
    bar.finish();
    let mut accounts = Vec::new();
    for (speaker, person) in people {
        let conversations = scripts.iter().filter(|script| script.speakers().contains(&speaker)).count();
        accounts.push((person.leave().await, conversations));
    }
    accounts.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    Ok(Replayed { conversations: scripts.len(), lines, accounts })
}

fn bar(what: &'static str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>10} [{bar:40}] {pos}/{len} {per_sec} {eta}")
        .expect("the template is right")
        .progress_chars("=> ");
    ProgressBar::new(length as u64).with_style(style).with_message(what)
}

/// Registers every speaker under a fresh name, logs them in and brings them online.
async fn arrive(server: &Server, scripts: &[Script]) -> anyhow::Result<HashMap<Uuid, Person>> {
    let mut speakers: Vec<Uuid> = scripts.iter().flat_map(Script::speakers).collect();
    speakers.sort_unstable();
    speakers.dedup();
    let run = &Uuid::new_v4().simple().to_string()[..6];
    let bar = bar("arriving", speakers.len());
    let people = stream::iter(speakers.into_iter().enumerate())
        .map(|(n, speaker)| {
            let (name, bar) = (format!("demo-{run}-{n}"), &bar);
            async move {
                let person = Person::arrive(server, name).await?;
                bar.inc(1);
                anyhow::Ok((speaker, person))
            }
        })
        .buffer_unordered(ARRIVE_AT_ONCE)
        .try_collect()
        .await?;
    bar.finish();
    Ok(people)
}

/// Where a script was replayed.
struct Talk {
    conversation: Uuid,
    /// The position of its last line.
    last: PositionToken,
}

/// Replays one conversation, line after line.
async fn talk(
    script: &Script,
    direct: bool,
    people: &HashMap<Uuid, Person>,
    bar: &ProgressBar,
) -> anyhow::Result<Talk> {
    let [one, other] = script.speakers().map(|speaker| &people[&speaker]);
    let conversation = if direct {
        one.client.open_direct(other.client.user_id()).await?.conversation_id
    } else {
        let name = script.prompt.as_deref().unwrap_or("Chit-chat").chars().take(NAME_CHARACTERS).collect();
        let group = CreateConversation {
            conversation_id: Some(Uuid::now_v7()),
            kind: Kind::Group,
            name: Some(name),
            member_ids: vec![other.client.user_id()],
            history: None,
        };
        one.client.create_conversation(&group).await?.conversation_id
    };
    let mut last = None;
    for (n, line) in script.lines.iter().enumerate() {
        let speaker = &people[&line.speaker];
        let message = parlance_client::text_message(&line.text);
        let sent = if n % BY_REST == BY_REST - 1 {
            speaker.client.send(conversation, &message).await?
        } else {
            speaker.session.send_message(conversation, message).await?.outcome().await?
        };
        for person in [one, other] {
            person.has(conversation, sent.seq).await?;
        }
        last = Some(sent.position);
        bar.inc(1);
    }
    Ok(Talk { conversation, last: last.context("a script without lines")? })
}

/// Compares a history, as each of the two is told it by REST and was told it live, with the script.
async fn compare(
    script: &Script,
    talk: &Talk,
    people: &HashMap<Uuid, Person>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let expected: Vec<(Uuid, &str)> =
        script.lines.iter().map(|line| (people[&line.speaker].client.user_id(), line.text.as_str())).collect();
    for speaker in script.speakers() {
        let person = &people[&speaker];
        let history = person.history(talk.conversation, &talk.last).await?;
        same(&expected, &history)
            .with_context(|| format!("the history of {} as {} reads it", script.id, person.name))?;
        same(&expected, &person.heard(talk.conversation))
            .with_context(|| format!("the events of {} as {} got them", script.id, person.name))?;
    }
    bar.inc(expected.len() as u64);
    Ok(())
}

fn same(expected: &[(Uuid, &str)], told: &[(Uuid, String)]) -> anyhow::Result<()> {
    for (n, (expected, told)) in expected.iter().zip(told).enumerate() {
        ensure!(expected.0 == told.0 && expected.1 == told.1, "line {} is {told:?} instead of {expected:?}", n + 1);
    }
    ensure!(expected.len() == told.len(), "{} lines instead of {}", told.len(), expected.len());
    Ok(())
}
