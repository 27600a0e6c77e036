//! `parlance verify`: proves that no event was changed, removed or reordered, by the log itself and by what was signed of it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use event_store::Log;
use notary::{Checked, FileLedger, PublicKey, Sources, TopicLedger, check};
use platform::config::{CommonFlags, Config, ServeFlags};
use sqlx::PgPool;

use crate::audit::{AuditPaths, trusted};
use crate::database::Database;

/// Arguments of `parlance verify`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    /// Also by the signed heads of this file, which may be an older copy; may be given several times
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,
    /// Also trust what this key signed (as `--public-key` prints it); may be given several times
    #[arg(long, value_name = "KEY")]
    trust: Vec<PublicKey>,
    /// Print the public key that signatures here are checked by, and nothing else
    #[arg(long)]
    public_key: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &ServeFlags::default())?;
    let paths = AuditPaths::of(&config);
    let known = paths.known_key()?;
    if arguments.public_key {
        let key = known.with_context(|| format!("there is no key at {}", paths.key.display()))?;
        println!("{}", key.public());
        return Ok(ExitCode::SUCCESS);
    }
    let mut keys: Vec<PublicKey> = known.iter().map(notary::SigningKey::public).collect();
    keys.extend(trusted(&config)?);
    keys.extend(&arguments.trust);
    let database = Database::beside(&config).await?;
    let pool = database.pool("verify", 2).await?;
    let checked = verify(&pool, &paths, arguments, config.kafka_brokers.as_deref(), &keys).await;
    pool.close().await;
    database.stop().await;
    Ok(tell(&checked?))
}

async fn verify(
    pool: &PgPool,
    paths: &AuditPaths,
    arguments: &Arguments,
    brokers: Option<&str>,
    keys: &[PublicKey],
) -> anyhow::Result<Checked> {
    let log = Log::open(pool.clone()).await?;
    let mut sources = Sources::new(pool.clone());
    if paths.file.exists() {
        sources.add(FileLedger::read(&paths.file).context("the file of signed heads")?);
    } else if paths.file_is_ours {
        sources.add_missing(format!("the file {}", paths.file.display()));
    } else {
        eprintln!("there is no file {} here: what stands outside the database is not compared", paths.file.display());
    }
    if let Some(brokers) = brokers {
        sources.add(TopicLedger::new(brokers));
    }
    for copy in &arguments.heads {
        sources.add_copy(FileLedger::read(copy).with_context(|| copy.display().to_string())?);
    }
    let checked = check(&log, sources, keys).await?;
    if keys.is_empty() && !checked.findings.is_empty() {
        bail!("there are signed heads, and no key to check them by: name one by PARLANCE_AUDIT_KEY_FILE or --trust");
    }
    Ok(checked)
}

fn tell(checked: &Checked) -> ExitCode {
    for finding in &checked.findings {
        match &finding.position {
            Some(position) => println!("{position}: {}", finding.detail),
            None => println!("{}", finding.detail),
        }
    }
    for (name, count) in &checked.places {
        println!("{count} of {} signed statements in {name}", checked.statements);
    }
    if checked.is_sound() {
        println!("sound: {} events in {} shards", checked.log.events(), checked.log.shards.len());
        ExitCode::SUCCESS
    } else {
        println!("NOT sound: see the first wrong position of each shard above");
        ExitCode::FAILURE
    }
}
