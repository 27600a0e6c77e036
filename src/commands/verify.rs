//! `parlance verify`: proves that no event was changed, removed or reordered, by the log itself and by what was signed of it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use event_store::Log;
use notary::{Checked, FileLedger, PublicKey, Sources, TopicLedger, check};
use platform::config::{CommonFlags, Config, ServeFlags};
use sqlx::PgPool;

use crate::audit::{AuditPaths, trusted};
use crate::database::Database;

/// Told where something was signed by a key that is not known here.
const NO_KEY: &str = "what was signed cannot be checked without the key that did: name it by PARLANCE_AUDIT_KEY_FILE, \
                      PARLANCE_AUDIT_TRUSTED_KEYS or --trust";

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
    let checked = checked?;
    for line in told(&checked) {
        println!("{line}");
    }
    Ok(if checked.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    Ok(check(&log, sources, keys).await?)
}

/// What was found, line by line.
fn told(checked: &Checked) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &checked.findings {
        lines.push(match &finding.position {
            Some(position) => format!("{position}: {}", finding.detail),
            None => finding.detail.clone(),
        });
    }
    for (name, count) in &checked.places {
        lines.push(format!("{count} of {} signed statements in {name}", checked.statements));
    }
    // Nothing is said of the log by a signature that could not be checked; what it says itself stands above.
    if checked.findings.iter().any(|finding| finding.key_unknown) {
        lines.push(NO_KEY.to_owned());
    }
    let only_keys = checked.log.is_sound() && checked.findings.iter().all(|finding| finding.key_unknown);
    lines.push(match only_keys {
        _ if checked.is_sound() => {
            format!("sound: {} events in {} shards", checked.log.events(), checked.log.shards.len())
        }
        true => {
            format!("NOT all compared with what was signed; {} events are whole by themselves", checked.log.events())
        }
        false => "NOT sound: see the first wrong position of each shard above".to_owned(),
    });
    lines
}

#[cfg(test)]
mod tests {
    use std::slice;

    use event_store::Verification;
    use notary::Finding;

    use super::*;

    fn told_of(findings: &[Finding], strays: u64) -> Vec<String> {
        let log = Verification { shards: Vec::new(), strays };
        told(&Checked { log, statements: 0, places: Vec::new(), findings: findings.to_vec() })
    }

    fn finding(position: Option<&str>, key_unknown: bool) -> Finding {
        Finding { position: position.map(str::to_owned), detail: "is wrong".to_owned(), key_unknown }
    }

    #[test]
    fn what_is_wrong_is_told_where_it_is_and_a_key_asked_for_only_where_one_is_lacking() {
        let not_sound = "NOT sound: see the first wrong position of each shard above";
        let changed = finding(Some("parlance.users.v1/3:7"), false);
        assert_eq!(told_of(&[], 0), ["sound: 0 events in 0 shards"]);
        assert_eq!(told_of(slice::from_ref(&changed), 0), ["parlance.users.v1/3:7: is wrong", not_sound]);
        assert_eq!(told_of(&[finding(None, false)], 1), ["is wrong", not_sound]);
        let whole = "NOT all compared with what was signed; 0 events are whole by themselves";
        assert_eq!(told_of(&[finding(None, true)], 0), ["is wrong", NO_KEY, whole]);
        let both = told_of(&[finding(None, true), changed], 0);
        assert_eq!(both, ["is wrong", "parlance.users.v1/3:7: is wrong", NO_KEY, not_sound]);
    }
}
