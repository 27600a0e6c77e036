//! Which layer wins, what is refused, what is never shown.

use std::{collections::HashMap, fs};

use super::*;

const SECRET: &str = "correct-horse-battery-staple-0123456789";

fn load(common: &CommonFlags, serve: &ServeFlags, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    Config::load_with(common, serve, |name| environment.get(name).map(Into::into))
}

fn from_environment(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(&CommonFlags::default(), &ServeFlags::default(), environment)
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = from_environment(&[("DATABASE_URL", "")]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(config.database_url.is_none() && config.master_key.is_none() && config.public_url.is_none());
    assert_eq!(config.rate_limits, RateLimits::default());
    let ttls = [config.access_ttl, config.refresh_ttl, config.refresh_grace, config.ticket_ttl];
    assert_eq!(ttls.map(|ttl| ttl.as_secs()), [900, 86_400, 10, 30]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("parlance.toml");
    fs::write(&file, "listen = '127.0.0.1:1'\naccess_ttl_s = 1\nallowed_origins = ['http://a', 'http://b']\n").unwrap();
    let common = CommonFlags { config: Some(file), ..CommonFlags::default() };
    let serve = ServeFlags { listen: Some("127.0.0.1:3".into()), ..ServeFlags::default() };
    let environment = [("PARLANCE_LISTEN", "127.0.0.1:2"), ("PARLANCE_ACCESS_TTL_S", "2")];

    let config = load(&common, &serve, &environment).unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.access_ttl.as_secs(), 2);
    assert_eq!(config.allowed_origins.len(), 2);

    let config = load(&common, &ServeFlags::default(), &environment).unwrap();
    assert_eq!(config.listen.port(), 2);
}

#[test]
fn a_bad_value_is_named_with_where_it_was_set() {
    for (variable, bad) in [
        ("PARLANCE_LISTEN", "localhost"),
        ("PARLANCE_LOG", "event_store=loud"),
        ("PARLANCE_LOG_FORMAT", "xml"),
        ("PARLANCE_RATE_LIMITS", "messages"),
        ("KAFKA_BROKERS", "localhost"),
        ("KAFKA_BROKERS", "localhost:9092,:9093"),
        ("PARLANCE_PUBLIC_URL", "chat.example.org"),
        ("PARLANCE_ADVERTISE_URL", "10.0.0.7"),
        ("PARLANCE_ADVERTISE_URL", "https://10.0.0.7"),
        ("PARLANCE_ALLOWED_ORIGINS", "*"),
        ("PARLANCE_TRUSTED_PROXIES", "10.0.0.7,nginx"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://localhost:4317"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ("PARLANCE_ACCESS_TTL_S", "0"),
        ("PARLANCE_PUSH_DELAY_MS", "soon"),
        ("PARLANCE_PUSH_MAX_AGE_S", "86401"),
        ("PARLANCE_PUSH_CONTENT", "yes"),
        ("PARLANCE_PUSH_CONTACT", "admin@example.org"),
        ("PARLANCE_PUSH_NETWORKS", "all"),
        ("PARLANCE_DELIVERY_RETRY_MS", "0"),
        ("PARLANCE_DELIVERY_ATTEMPTS", "0"),
        ("PARLANCE_REFRESH_TTL_S", "-1"),
        ("PARLANCE_REFRESH_GRACE_S", "1.5"),
        ("PARLANCE_TICKET_TTL_S", "99999999999999999999"),
    ] {
        let error = from_environment(&[(variable, bad)]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{variable}={bad}: ")), "{error}");
    }
    let serve = ServeFlags { listen: Some("nowhere".into()), ..ServeFlags::default() };
    let error = load(&CommonFlags::default(), &serve, &[]).unwrap_err().to_string();
    assert!(error.starts_with("--listen=nowhere: "), "{error}");
}

#[test]
fn traces_go_where_a_receiver_is_named() {
    assert_eq!(from_environment(&[("OTEL_SERVICE_NAME", "chat")]).unwrap().otlp, None);
    let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/tenant/");
    let otlp = from_environment(&[named, ("OTEL_TRACES_SAMPLER_ARG", "1")]).unwrap().otlp.unwrap();
    assert_eq!(otlp.endpoint.join("/v1/traces"), "http://localhost:4318/tenant/v1/traces");
    assert_eq!((otlp.service_name, otlp.share), (None, 1.0));
}

#[test]
fn a_file_with_unknown_settings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("parlance.toml");
    fs::write(&file, "lisen = '127.0.0.1:1'\n").unwrap();
    let common = CommonFlags { config: Some(file), ..CommonFlags::default() };
    let error = load(&common, &ServeFlags::default(), &[]).unwrap_err().to_string();
    assert!(error.contains("`lisen`"), "{error}");
}

#[test]
fn secrets_are_never_shown() {
    let url = format!("postgres://me:{SECRET}@localhost/chat");
    let secrets = [("DATABASE_URL", url.as_str()), ("DATABASE_READ_URL", &url), ("PARLANCE_MASTER_KEY", SECRET)];
    let config = from_environment(&secrets).unwrap();
    let text = format!("{config}\n{config:?}");
    assert!(!text.contains(SECRET), "{text}");
    for (key, variable) in [("master_key", "PARLANCE_MASTER_KEY"), ("database_read_url", "DATABASE_READ_URL")] {
        assert!(text.contains(&format!("# {key} is set and hidden (environment {variable})")), "{text}");
    }

    for (variable, bad) in [
        ("DATABASE_URL", "mysql://me:hunter2@localhost"),
        ("DATABASE_READ_URL", "mysql://me:hunter2@localhost"),
        // A replica of nothing.
        ("DATABASE_READ_URL", "postgres://me:hunter2@localhost"),
        ("REDIS_URL", "redis://me:hunter2@one,two"),
        ("PARLANCE_MASTER_KEY", "hunter2"),
    ] {
        let error = from_environment(&[(variable, bad)]).unwrap_err();
        let text = format!("{error}\n{error:?}");
        assert!(text.contains(variable) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_is_printed_is_a_file_that_can_be_read_again() {
    let printed = from_environment(&[("PARLANCE_RATE_LIMITS", "off")]).unwrap().to_string();
    assert!(printed.contains("rate_limits = \"off\" # environment PARLANCE_RATE_LIMITS"), "{printed}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("parlance.toml");
    fs::write(&file, &printed).unwrap();
    let common = CommonFlags { config: Some(file), ..CommonFlags::default() };
    let config = load(&common, &ServeFlags::default(), &[]).unwrap();
    assert_eq!(config.rate_limits, RateLimits::OFF);
}
