//! What `parlance serve` is not told, and does not supply by itself.

use platform::config::Config;

use super::roles::Roles;

/// Engines that no setting names.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing says where these are: {}; `serve` supplies no engine by itself (`parlance up` does, in one process)",
    .0.join(", ")
)]
pub(crate) struct Missing(Vec<&'static str>);

impl Missing {
    /// Whether all that these roles need is configured: in one process the bus and the live bus can be its own.
    pub(crate) fn check(config: &Config, roles: &Roles) -> Result<(), Self> {
        let apart = !roles.are_all();
        let wanted = [
            ("DATABASE_URL", config.database_url.is_none()),
            ("KAFKA_BROKERS", apart && config.kafka_brokers.is_none()),
            ("REDIS_URL", apart && config.redis_url.is_none()),
        ];
        let missing: Vec<_> = wanted.into_iter().filter_map(|(name, missing)| missing.then_some(name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Self(missing)) }
    }
}

#[cfg(test)]
mod tests {
    use platform::config::{CommonFlags, ServeFlags};

    use super::*;

    fn missing(roles: &str, set: &[(&str, &str)]) -> Vec<&'static str> {
        let environment = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let config = Config::load_with(&CommonFlags::default(), &ServeFlags::default(), environment).unwrap();
        Missing::check(&config, &roles.parse().unwrap()).err().map(|missing| missing.0).unwrap_or_default()
    }

    #[test]
    fn roles_apart_need_every_engine_and_all_in_one_process_the_database() {
        let database = ("DATABASE_URL", "postgres://me@localhost/parlance");
        assert_eq!(missing("relay", &[]), ["DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL"]);
        assert_eq!(missing("query-api,relay", &[database, ("KAFKA_BROKERS", "localhost:1")]), ["REDIS_URL"]);
        assert_eq!(missing("command-api,query-api,projectors,relay", &[]), ["DATABASE_URL"]);
        assert!(missing("command-api,query-api,projectors,relay", &[database]).is_empty());
    }
}
