//! The layers that a setting may come from, and the memory of which one it came from.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{ConfigError, DEFAULTS};

/// A setting's key in the file, its environment variable, and whether its value may be shown.
struct Setting {
    key: &'static str,
    variable: &'static str,
    secret: bool,
}

const fn setting(key: &'static str, variable: &'static str) -> Setting {
    Setting { key, variable, secret: false }
}

const fn secret(key: &'static str, variable: &'static str) -> Setting {
    Setting { key, variable, secret: true }
}

/// In the order of `default.toml`.
const SETTINGS: &[Setting] = &[
    setting("listen", "PARLANCE_LISTEN"),
    setting("data_dir", "PARLANCE_DATA_DIR"),
    setting("audit_key_file", "PARLANCE_AUDIT_KEY_FILE"),
    setting("audit_file", "PARLANCE_AUDIT_FILE"),
    setting("audit_trusted_keys", "PARLANCE_AUDIT_TRUSTED_KEYS"),
    secret("database_url", "DATABASE_URL"),
    secret("database_read_url", "DATABASE_READ_URL"),
    setting("kafka_brokers", "KAFKA_BROKERS"),
    secret("redis_url", "REDIS_URL"),
    secret("master_key", "PARLANCE_MASTER_KEY"),
    setting("public_url", "PARLANCE_PUBLIC_URL"),
    setting("advertise_url", "PARLANCE_ADVERTISE_URL"),
    setting("allowed_origins", "PARLANCE_ALLOWED_ORIGINS"),
    setting("trusted_proxies", "PARLANCE_TRUSTED_PROXIES"),
    setting("log", "PARLANCE_LOG"),
    setting("log_format", "PARLANCE_LOG_FORMAT"),
    setting("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    setting("otlp_service_name", "OTEL_SERVICE_NAME"),
    setting("traced_share", "OTEL_TRACES_SAMPLER_ARG"),
    setting("rate_limits", "PARLANCE_RATE_LIMITS"),
    setting("access_ttl_s", "PARLANCE_ACCESS_TTL_S"),
    setting("refresh_ttl_s", "PARLANCE_REFRESH_TTL_S"),
    setting("refresh_grace_s", "PARLANCE_REFRESH_GRACE_S"),
    setting("ticket_ttl_s", "PARLANCE_TICKET_TTL_S"),
    setting("push_delay_ms", "PARLANCE_PUSH_DELAY_MS"),
    setting("push_max_age_s", "PARLANCE_PUSH_MAX_AGE_S"),
    setting("push_content", "PARLANCE_PUSH_CONTENT"),
    setting("push_contact", "PARLANCE_PUSH_CONTACT"),
    setting("push_networks", "PARLANCE_PUSH_NETWORKS"),
    setting("delivery_retry_ms", "PARLANCE_DELIVERY_RETRY_MS"),
    setting("delivery_attempts", "PARLANCE_DELIVERY_ATTEMPTS"),
];

/// Where a value came from.
#[derive(Debug, Clone)]
enum Source {
    Flag(String),
    Environment(&'static str),
    File(PathBuf),
    Default,
}

/// A setting as `parlance config` prints it.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    key: &'static str,
    /// `None` where it is unset; a secret's value never gets here.
    value: Option<String>,
    secret: bool,
    source: Source,
}

/// The raw value of each setting from the layer that wins.
pub(super) struct Layers {
    found: HashMap<&'static str, (String, Source)>,
    shown: Vec<Shown>,
}

impl Layers {
    pub(super) fn read(
        flags: &[(&'static str, &Option<String>)],
        environment: impl Fn(&str) -> Option<OsString>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let defaults = DEFAULTS.parse().expect("the compiled-in defaults are TOML");
        let file = file.map(|path| Ok((path, read_file(path)?))).transpose()?;
        let mut found = HashMap::new();
        for Setting { key, variable, .. } in SETTINGS {
            let flag = flags.iter().find(|(flag, _)| flag == key).and_then(|(_, value)| value.as_ref());
            let value = if let Some(value) = flag {
                Some((value.clone(), Source::Flag(format!("--{}", key.replace('_', "-")))))
            } else if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
                let value = value.into_string().map_err(|_| ConfigError::Refused {
                    setting: (*variable).to_owned(),
                    value: String::new(),
                    reason: "UTF-8 is wanted".to_owned(),
                })?;
                Some((value, Source::Environment(variable)))
            } else if let Some((path, table)) = &file
                && let Some(value) = table.get(*key)
            {
                let source = Source::File(path.to_path_buf());
                let text = scalar(value).ok_or_else(|| refused(key, &source, None, "a single value is wanted"))?;
                Some((text, source))
            } else {
                let defaults: &Table = &defaults;
                defaults.get(*key).and_then(scalar).map(|value| (value, Source::Default))
            };
            found.extend(value.map(|value| (*key, value)));
        }
        let shown = SETTINGS
            .iter()
            .map(|Setting { key, secret, .. }| {
                let (value, source) = found.get(key).cloned().unzip();
                let hidden = |value| if *secret { String::new() } else { value };
                Shown { key, value: value.map(hidden), secret: *secret, source: source.unwrap_or(Source::Default) }
            })
            .collect();
        Ok(Self { found, shown })
    }

    /// A setting that has a default.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.optional(key, parse)?.ok_or_else(|| refused(key, &Source::Default, None, "a value is wanted"))
    }

    /// A setting that may be unset; empty counts as unset.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((value, source)) = self.found.remove(key).filter(|(value, _)| !value.is_empty()) else {
            return Ok(None);
        };
        let secret = SETTINGS.iter().any(|setting| setting.key == key && setting.secret);
        parse(&value).map(Some).map_err(|reason| refused(key, &source, (!secret).then_some(&value), &reason))
    }

    pub(super) fn into_shown(self) -> Vec<Shown> {
        self.shown
    }
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::NotToml {
        path: path.to_owned(),
        reason: error.message().to_owned(),
    })?;
    if let Some(key) = table.keys().find(|key| SETTINGS.iter().all(|setting| setting.key != key.as_str())) {
        return Err(ConfigError::Unknown {
            path: path.to_owned(),
            key: key.clone(),
            known: SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", "),
        });
    }
    Ok(table)
}

/// Text as the environment would give it.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Array(items) => Some(items.iter().map(|item| item.as_str()).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

fn refused(key: &str, source: &Source, value: Option<&String>, reason: &str) -> ConfigError {
    ConfigError::Refused {
        setting: match source {
            Source::Flag(flag) => flag.clone(),
            Source::Environment(variable) => (*variable).to_owned(),
            Source::File(path) => format!("{}: {key}", path.display()),
            Source::Default => key.to_owned(),
        },
        value: value.map(|value| format!("={value}")).unwrap_or_default(),
        reason: reason.to_owned(),
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, source, .. } = self;
        match &self.value {
            None => write!(out, "# {key} is unset"),
            Some(_) if self.secret => write!(out, "# {key} is set and hidden ({source})"),
            Some(value) => write!(out, "{key} = {} # {source}", Value::String(value.clone())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(out, "flag {flag}"),
            Self::Environment(variable) => write!(out, "environment {variable}"),
            Self::File(path) => write!(out, "file {}", path.display()),
            Self::Default => write!(out, "default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_documented_with_its_variable() {
        for Setting { key, variable, .. } in SETTINGS {
            assert!(DEFAULTS.contains(&format!("{key} = ")), "{key}");
            assert!(DEFAULTS.contains(variable), "{variable}");
        }
        let defaults: Table = DEFAULTS.parse().unwrap();
        for key in defaults.keys() {
            assert!(SETTINGS.iter().any(|setting| setting.key == key), "{key}");
        }
    }
}
