//! Who may ask, and by what they prove it.

use platform::auth::{AuthSettings, Authenticator, Keyring, Revocations, Tickets};
use platform::config::Config;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub(super) struct Auth {
    pub(super) authenticator: Authenticator,
    pub(super) tickets: Tickets,
}

impl Auth {
    pub(super) async fn open(config: &Config, pool: &PgPool, stop: CancellationToken) -> anyhow::Result<Self> {
        let keyring = Keyring::open(pool, config.master_key.as_ref()).await?;
        let revocations = Revocations::open(pool.clone(), config.access_ttl, stop).await?;
        let mut settings = AuthSettings { access_ttl: config.access_ttl, ..AuthSettings::default() };
        if let Some(url) = &config.public_url {
            url.origin().as_str().clone_into(&mut settings.issuer);
        }
        let authenticator = Authenticator::new(keyring, revocations, settings);
        let tickets = Tickets::new(pool.clone(), authenticator.clone(), config.ticket_ttl);
        Ok(Self { authenticator, tickets })
    }
}
