//! Configuration: flags win over the environment, the environment over the file, the file over the defaults, which
//! are a documented file of their own (`default.toml`).

mod layers;
mod network;
mod notifications;
mod origin;
mod otlp;
mod rate_limits;
mod secret;

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use secrecy::SecretString;
use thiserror::Error;

use self::layers::{Layers, Shown};
pub use self::{
    network::Network,
    notifications::NotificationSettings,
    origin::{Origin, PublicUrl},
    otlp::Otlp,
    rate_limits::{Rate, RateLimits},
    secret::MasterKey,
};

/// The documentation of every setting, and its default.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Why the configuration cannot be used; names the setting, where it was set and what is wrong. Never a secret.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {reason}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// What the parser said, without the line itself: it may hold a secret.
        reason: String,
    },
    /// The file holds a setting that does not exist.
    #[error("{}: there is no setting `{key}` (there are: {known})", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// Those that exist.
        known: String,
    },
    /// A value is refused.
    #[error("{setting}{value}: {reason}")]
    Refused {
        /// The setting, as it was given: a flag, a variable, or a key of the file.
        setting: String,
        /// The value with its sign of equality; empty for secrets.
        value: String,
        /// What it should have been.
        reason: String,
    },
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonFlags {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "PARLANCE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of everything the process keeps
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// What is logged: a level or a filter
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How it is logged: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Flags of the commands that serve.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    /// Address and port to serve on; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where clients reach this server from outside
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Where other processes reach the command side of this one
    #[arg(long, value_name = "URL")]
    pub advertise_url: Option<String>,
    /// Further origins that browsers may connect from, separated by commas
    #[arg(long, value_name = "ORIGINS")]
    pub allowed_origins: Option<String>,
    /// Limits such as messages=30/60,logins=10; off for load tests alone
    #[arg(long, value_name = "LIMITS")]
    pub rate_limits: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// All settings, checked. `Debug` and `Display` hide secrets.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address and port to serve on.
    pub listen: SocketAddr,
    /// Folder of everything the process keeps.
    pub data_dir: PathBuf,
    /// The key that signs the heads of the log.
    pub audit_key_file: Option<PathBuf>,
    /// Where signed heads are kept outside the database.
    pub audit_file: Option<PathBuf>,
    /// Public keys that signed earlier, as text.
    pub audit_trusted_keys: Vec<String>,
    /// The database; `None` stands for a private cluster under `data_dir`.
    pub database_url: Option<SecretString>,
    /// A replica of that, which queries read from; `None` stands for the database itself.
    pub database_read_url: Option<SecretString>,
    /// Kafka's brokers, comma-separated; `None` stands for the bus within the process.
    pub kafka_brokers: Option<String>,
    /// One URL of Redis or several of a cluster's nodes, comma-separated; `None` stands for what the process has.
    pub redis_url: Option<SecretString>,
    /// Seals what processes share in the database.
    pub master_key: Option<MasterKey>,
    /// Where clients reach this server from outside.
    pub public_url: Option<PublicUrl>,
    /// Where other processes reach the command side of this one.
    pub advertise_url: Option<PublicUrl>,
    /// Further origins that browsers may connect from.
    pub allowed_origins: Vec<Origin>,
    /// Whose word on whom a request comes from is taken.
    pub trusted_proxies: Vec<Network>,
    /// A filter that `tracing_subscriber::EnvFilter` takes.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where spans go; `None` where nobody wants them.
    pub otlp: Option<Otlp>,
    /// Limits of one user and one address.
    pub rate_limits: RateLimits,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token, from its last rotation.
    pub refresh_ttl: Duration,
    /// How long a used refresh token answers its own device once more.
    pub refresh_grace: Duration,
    /// Life of a ticket for a WebSocket upgrade.
    pub ticket_ttl: Duration,
    /// What is pushed and told to webhooks, and how often.
    pub notifications: NotificationSettings,
    shown: Vec<Shown>,
}

impl Config {
    /// Reads all layers of this process.
    pub fn load(common: &CommonFlags, serve: &ServeFlags) -> Result<Self, ConfigError> {
        Self::load_with(common, serve, |name| std::env::var_os(name))
    }

    /// As [`Config::load`], with an environment of the caller's own.
    pub fn load_with(
        common: &CommonFlags,
        serve: &ServeFlags,
        environment: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, ConfigError> {
        let flags = [
            ("data_dir", &common.data_dir),
            ("log", &common.log),
            ("log_format", &common.log_format),
            ("listen", &serve.listen),
            ("public_url", &serve.public_url),
            ("advertise_url", &serve.advertise_url),
            ("allowed_origins", &serve.allowed_origins),
            ("rate_limits", &serve.rate_limits),
        ];
        let mut layers = Layers::read(&flags, environment, common.config.as_deref())?;
        let config = Self {
            listen: layers.required("listen", |text| {
                text.parse().map_err(|_| "an address and a port such as 127.0.0.1:8080 are wanted".into())
            })?,
            data_dir: layers.required("data_dir", |text| Ok(PathBuf::from(text)))?,
            audit_key_file: layers.optional("audit_key_file", |text| Ok(PathBuf::from(text)))?,
            audit_file: layers.optional("audit_file", |text| Ok(PathBuf::from(text)))?,
            audit_trusted_keys: layers.optional("audit_trusted_keys", list)?.unwrap_or_default(),
            database_url: layers.optional("database_url", postgres_url)?,
            database_read_url: layers.optional("database_read_url", postgres_url)?,
            kafka_brokers: layers.optional("kafka_brokers", brokers)?,
            redis_url: layers.optional("redis_url", redis_urls)?,
            master_key: layers.optional("master_key", MasterKey::from_str)?,
            public_url: layers.optional("public_url", PublicUrl::from_str)?,
            advertise_url: layers.optional("advertise_url", plain_url)?,
            allowed_origins: layers.optional("allowed_origins", origin::list)?.unwrap_or_default(),
            trusted_proxies: layers.optional("trusted_proxies", network::list)?.unwrap_or_default(),
            log: layers.required("log", filter)?,
            log_format: layers.required("log_format", LogFormat::from_str)?,
            otlp: Otlp::read(&mut layers)?,
            rate_limits: layers.required("rate_limits", RateLimits::from_str)?,
            access_ttl: layers.required("access_ttl_s", |text| seconds(text, 1))?,
            refresh_ttl: layers.required("refresh_ttl_s", |text| seconds(text, 1))?,
            refresh_grace: layers.required("refresh_grace_s", |text| seconds(text, 0))?,
            ticket_ttl: layers.required("ticket_ttl_s", |text| seconds(text, 1))?,
            notifications: NotificationSettings::read(&mut layers)?,
            shown: layers.into_shown(),
        };
        if config.database_read_url.is_some() && config.database_url.is_none() {
            return Err(ConfigError::Refused {
                setting: "DATABASE_READ_URL".to_owned(),
                value: String::new(),
                reason: "it is a replica of DATABASE_URL, which is unset".to_owned(),
            });
        }
        Ok(config)
    }
}

/// What `parlance config` prints: a configuration file that says where each value came from, secrets hidden.
impl fmt::Display for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.iter().try_for_each(|setting| writeln!(out, "{setting}"))
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("`text` or `json` is wanted".into()),
        }
    }
}

fn filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("a level, or a filter such as info,event_store=debug is wanted ({error})")),
    }
}

/// An address that our own processes call: what passes between them is encrypted by the network, if at all.
fn plain_url(text: &str) -> Result<PublicUrl, String> {
    let url = text.parse().ok().filter(|url: &PublicUrl| url.origin().as_str().starts_with("http://"));
    url.ok_or_else(|| "an address such as http://10.0.0.7:8080 is wanted".into())
}

/// A list, whose items are for others to understand.
#[expect(clippy::unnecessary_wraps, reason = "what settings are parsed by")]
fn list(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

/// A list of hosts with ports.
fn brokers(text: &str) -> Result<String, String> {
    let is_broker = |broker: &str| {
        broker
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0))
    };
    if text.split(',').map(str::trim).all(is_broker) {
        Ok(text.to_owned())
    } else {
        Err("brokers such as localhost:9092, separated by commas, are wanted".into())
    }
}

/// A URL, which may hold a password.
fn postgres_url(text: &str) -> Result<SecretString, String> {
    let url = SecretString::from(text);
    match crate::postgres::parse_url(&url) {
        Ok(_) => Ok(url),
        Err(_) => Err("a URL such as postgres://user:password@host:5432/database is wanted".into()),
    }
}

/// A list of URLs, which may hold a password.
fn redis_urls(text: &str) -> Result<SecretString, String> {
    if text.split(',').any(|url| url.trim().starts_with("rediss://")) {
        return Err(
            "Redis is not spoken to over TLS: reach it through a private network or a TLS proxy, and say redis://"
                .into(),
        );
    }
    let urls = SecretString::from(text);
    match crate::redis::parse_urls(&urls) {
        Ok(_) => Ok(urls),
        Err(_) => Err("a URL such as redis://localhost:6379, or several separated by commas, is wanted".into()),
    }
}

/// A century: long enough for everyone, and no sum of it with a time overflows.
const LONGEST_S: u64 = 100 * 365 * 24 * 60 * 60;

fn seconds(text: &str, least: u64) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (least..=LONGEST_S).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("whole seconds from {least} to {LONGEST_S} are wanted"))
}

#[cfg(test)]
mod tests;
