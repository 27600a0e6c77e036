//! `parlance audit`: who did what to what, when, from where.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use platform::config::{CommonFlags, Config, ServeFlags};
use query_api::audit::{AuditPlace, AuditSearch, find_user, search};
use schemas::AuditFilters;
use schemas::rest::AuditEntry;
use schemas::rfc3339_ms::Display;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::parse_time;
use crate::database::Database;

/// Entries that are read at once.
const PAGE: u64 = 1_000;

/// Arguments of `parlance audit`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// What this user did: an id or a username
    #[arg(long, value_name = "USER")]
    actor: Option<String>,
    /// What was done to this: the id of a user, session, conversation or message, or a username
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// Only events of this type, such as session.started
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// Only events before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<OffsetDateTime>,
    /// At most so many entries, the newest; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("audit", 1).await?;
    let printed = print(&pool, arguments).await;
    pool.close().await;
    database.stop().await;
    match printed {
        // Whoever reads has read enough, as `head` does.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {}
        printed => printed?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(pool: &PgPool, arguments: &Arguments) -> anyhow::Result<()> {
    let filters = AuditFilters {
        actor: named(pool, arguments.actor.as_deref()).await?,
        object: named(pool, arguments.object.as_deref()).await?,
        event_type: arguments.event_type.clone(),
        since: arguments.since,
        until: arguments.until,
    };
    let mut left = if arguments.limit == 0 { u64::MAX } else { arguments.limit };
    let mut wanted = AuditSearch { filters, after: None, limit: 0 };
    let mut out = io::stdout().lock();
    if !arguments.json {
        writeln!(out, "{:24}  {:30}  {:20}  {:49}  FROM", "AT", "TYPE", "ACTOR", "OBJECT")?;
    }
    while left > 0 {
        wanted.limit = i64::try_from(left.min(PAGE)).unwrap_or(i64::MAX);
        let entries = search(pool, &wanted).await.context("the audit cannot be read")?;
        for entry in &entries {
            if arguments.json {
                serde_json::to_writer(&mut out, entry).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", line(entry))?;
            }
        }
        let Some(last) = entries.last() else { break };
        wanted.after = Some(AuditPlace::of(last));
        left = left.saturating_sub(entries.len() as u64);
    }
    Ok(())
}

/// The id that a text means.
async fn named(pool: &PgPool, text: Option<&str>) -> anyhow::Result<Option<Uuid>> {
    let Some(text) = text else { return Ok(None) };
    match find_user(pool, text).await? {
        None => bail!("{text} is neither an id nor the name of a user"),
        found => Ok(found),
    }
}

fn line(entry: &AuditEntry) -> String {
    let actor = entry.actor_username.clone().or_else(|| entry.actor_id.map(|id| id.to_string()));
    let (actor, object) =
        (actor.unwrap_or_else(|| "-".to_owned()), format!("{} {}", entry.object_type, entry.object_id));
    let session = entry.session_id.map(|id| format!("session {id}"));
    let device = entry.device_id.map(|id| format!("device {id}"));
    // A client chooses what it calls itself: nothing of that is a command to the terminal.
    let agent = entry.user_agent.as_deref().map(|agent| agent.replace(char::is_control, "\u{fffd}"));
    let from: Vec<_> = [session, device, entry.address.clone(), agent].into_iter().flatten().collect();
    let (at, kind, from) = (Display(entry.at), &entry.event_type, from.join(", "));
    format!("{at:24}  {kind:30}  {actor:20}  {object:49}  {from}")
}
