//! `parlance webhook`: who is told what happens, and what could not be told.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use event_store::Log;
use platform::auth::Keyring;
use platform::config::{CommonFlags, Config, ServeFlags};
use projectors::notifications::webhooks;
use sqlx::PgPool;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::database::Database;

/// Failed deliveries that are listed at once.
const LISTED: u32 = 1_000;

/// Arguments of `parlance webhook`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Post events to a URL from now on, signed by a secret that is shown once
    Add {
        /// Where to
        url: String,
        /// Types of events, separated by commas, such as message.sent,user.registered
        #[arg(long, required = true, value_delimiter = ',')]
        types: Vec<String>,
        /// The secret, `whsec_` and base64, instead of a new one
        #[arg(long, env = "PARLANCE_WEBHOOK_SECRET", hide_env_values = true)]
        secret: Option<String>,
    },
    /// List them, with what waits and what failed
    List,
    /// Remove one, with all that waits for it
    Remove {
        /// The webhook
        id: Uuid,
    },
    /// Go on with one that was switched off
    Enable {
        /// The webhook
        id: Uuid,
    },
    /// Switch one off: what happens meanwhile it is never told
    Disable {
        /// The webhook
        id: Uuid,
    },
    /// List deliveries and pushes that were given up
    Failed {
        /// Those of this webhook alone
        id: Option<Uuid>,
    },
    /// Try again what was given up
    Retry {
        /// A webhook, an event, or `all`
        which: String,
    },
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("webhook", 2).await?;
    let done = act(&pool, &config, &arguments.action).await;
    pool.close().await;
    database.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn act(pool: &PgPool, config: &Config, action: &Action) -> anyhow::Result<()> {
    match action {
        Action::Add { url, types, secret } => {
            let log = Log::open_or_make(pool.clone(), event_store::Options::default().shards).await?;
            let keyring = Keyring::open(pool, config.master_key.as_ref()).await?;
            // Read first: what comes after it is the webhook's.
            let heads = relay::heads(&log).await?;
            let (id, secret) = webhooks::add(pool, &keyring, url, types, secret.as_deref(), &heads).await?;
            println!("{id}\t{secret}");
        }
        Action::List => {
            for webhook in webhooks::list(pool).await? {
                let state = if webhook.enabled { "enabled" } else { "disabled" };
                let (waiting, failed) = (webhook.waiting, webhook.failed);
                println!(
                    "{}\t{state}\t{waiting} waiting\t{failed} failed\t{}\t{}\t{}",
                    webhook.webhook_id,
                    time(webhook.created_at)?,
                    webhook.types.join(","),
                    webhook.url,
                );
            }
        }
        Action::Remove { id } => known(webhooks::remove(pool, *id).await?, *id)?,
        Action::Enable { id } => known(webhooks::set_enabled(pool, *id, true).await?, *id)?,
        Action::Disable { id } => known(webhooks::set_enabled(pool, *id, false).await?, *id)?,
        Action::Failed { id } => {
            for failed in webhooks::failed(pool, *id, LISTED).await? {
                println!(
                    "{}\t{}\t{} {}\t{} tries\t{}\t{}",
                    time(failed.died_at)?,
                    failed.event_id,
                    failed.kind,
                    failed.target_id,
                    failed.attempts,
                    failed.event_type,
                    failed.error,
                );
            }
        }
        Action::Retry { which } => {
            let id = match which.as_str() {
                "all" => None,
                id => Some(id.parse().context("an id of a webhook or an event, or `all`, is wanted")?),
            };
            println!("{} tried again", webhooks::retry(pool, id).await?);
        }
    }
    Ok(())
}

fn known(was_there: bool, id: Uuid) -> anyhow::Result<()> {
    if !was_there {
        bail!("there is no webhook {id}; `parlance webhook list` names them");
    }
    Ok(())
}

fn time(at: OffsetDateTime) -> anyhow::Result<String> {
    Ok(at.format(&Rfc3339)?)
}
