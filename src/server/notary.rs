//! Whoever signs the heads of the log: beside the relay, one of all processes that have a key.

use event_store::Log;
use notary::{FileLedger, Notary, Options, TopicLedger};
use platform::config::Config;
use platform::leases::Leases;
use query_api::Dependency;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditPaths, trusted};

/// What the lease is called of the one who signs.
const NOTARY: &str = "notary";

/// One that is about to sign.
pub(super) struct Signing {
    pub(super) notary: Notary,
    pub(super) leases: Leases,
}

/// Who signs with this process's key, if it has one; and what health is told of it.
pub(super) fn open(config: &Config, log: &Log, pool: &PgPool) -> anyhow::Result<(Option<Signing>, Dependency)> {
    let paths = AuditPaths::of(config);
    let Some(key) = paths.signing_key(config)? else {
        tracing::warn!("the heads of the log are not signed here: PARLANCE_AUDIT_KEY_FILE names no key");
        let unsigned = || -> Checked { Box::pin(async { Ok("no key is named: signs nothing".to_owned()) }) };
        return Ok((None, Dependency::new("audit", unsigned)));
    };
    let file = FileLedger::open(&paths.file).map_err(notary::LedgerError::from)?;
    let notary = Notary::new(log.clone(), pool.clone(), key, &trusted(config)?, Options::default()).keeping(file);
    let notary = match &config.kafka_brokers {
        Some(brokers) => notary.publishing(TopicLedger::new(brokers)),
        None => notary,
    };
    let status = notary.status();
    let health = Dependency::new("audit", move || -> Checked {
        let status = status.clone();
        Box::pin(async move { status.check() })
    });
    let leases = Leases::new(pool.clone(), NOTARY, [Notary::seat()]);
    Ok((Some(Signing { notary, leases }), health))
}

type Checked = futures::future::BoxFuture<'static, query_api::Checked>;

impl Signing {
    /// Signs until `stop`; then what is left, and only then another one may.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (ended, held) = (CancellationToken::new(), self.leases.held());
        let ((), ()) = tokio::join!(
            async {
                self.notary.run(held, stop).await;
                ended.cancel();
            },
            self.leases.run(ended.clone()),
        );
    }
}
