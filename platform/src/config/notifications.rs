//! Settings of push and webhooks.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use super::layers::Layers;

/// Messages are pushed within a day, or not at all.
const LONGEST_AGE_S: u64 = 24 * 60 * 60;
const LONGEST_MS: u64 = 60 * 60 * 1000;
const MOST_ATTEMPTS: u32 = 100;

/// What is pushed and told to webhooks, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationSettings {
    /// How long a message may be read elsewhere before it is pushed.
    pub delay: Duration,
    /// What is older is not pushed; a day at most.
    pub max_age: Duration,
    /// Whether pushes tell what messages say.
    pub content: bool,
    /// Whom push services write to.
    pub contact: Option<String>,
    /// Whether push services may be in private networks, and spoken to by http.
    pub anywhere: bool,
    /// The wait before a delivery is tried a second time.
    pub retry: Duration,
    /// How often it is tried.
    pub attempts: u32,
}

impl NotificationSettings {
    pub(super) fn read(layers: &mut Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            delay: layers.required("push_delay_ms", |text| milliseconds(text, 0))?,
            max_age: Duration::from_secs(layers.required("push_max_age_s", |text| number(text, 1, LONGEST_AGE_S))?),
            content: layers.required("push_content", |text| one_of(text, "on", "off"))?,
            contact: layers.optional("push_contact", contact)?,
            anywhere: layers.required("push_networks", |text| one_of(text, "any", "public"))?,
            retry: layers.required("delivery_retry_ms", |text| milliseconds(text, 1))?,
            attempts: layers.required("delivery_attempts", |text| number(text, 1, MOST_ATTEMPTS))?,
        })
    }
}

fn number<N: Copy + FromStr + PartialOrd + Display>(text: &str, least: N, most: N) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| (&least..=&most).contains(&number));
    number.ok_or_else(|| format!("a whole number from {least} to {most} is wanted"))
}

fn milliseconds(text: &str, least: u64) -> Result<Duration, String> {
    number(text, least, LONGEST_MS).map(Duration::from_millis)
}

fn one_of(text: &str, yes: &str, no: &str) -> Result<bool, String> {
    match text {
        text if text == yes => Ok(true),
        text if text == no => Ok(false),
        _ => Err(format!("`{yes}` or `{no}` is wanted")),
    }
}

/// RFC 8292 knows two kinds.
fn contact(text: &str) -> Result<String, String> {
    let right = text.strip_prefix("mailto:").is_some_and(|address| address.contains('@'))
        || text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    if right && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("an address such as mailto:admin@example.org, or of a page by https, is wanted".into())
    }
}
