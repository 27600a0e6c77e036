//! The limits that an operator may set: `messages=30/60,logins=10`, or `off`.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

/// So many in a period, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many a period, in the long run.
    pub amount: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// How many at once.
    pub burst: NonZeroU32,
}

/// All limits; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Messages of one user.
    pub messages: Option<Rate>,
    /// Log-ins of one pair of login name and address.
    pub logins: Option<Rate>,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

impl RateLimits {
    /// No limits at all: for load tests alone.
    pub const OFF: Self = Self { messages: None, logins: None };
}

impl Default for RateLimits {
    fn default() -> Self {
        let rate = |amount: u32, burst: u32, period| {
            Some(Rate { amount: NonZeroU32::new(amount)?, period, burst: NonZeroU32::new(burst)? })
        };
        Self { messages: rate(30, 60, SECOND), logins: rate(10, 10, MINUTE) }
    }
}

impl FromStr for RateLimits {
    type Err = String;

    /// What is not named keeps its default.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let mut limits = Self::default();
        for part in text.split(',').map(str::trim) {
            let (name, rate) =
                part.split_once('=').ok_or("`off`, or limits such as messages=30/60,logins=10 are wanted")?;
            match name {
                "messages" => limits.messages = parse_rate(rate, SECOND)?,
                "logins" => limits.logins = parse_rate(rate, MINUTE)?,
                _ => return Err(format!("there is no limit `{name}` (there are: messages, logins)")),
            }
        }
        Ok(limits)
    }
}

/// `off`, `RATE`, or `RATE/BURST`.
fn parse_rate(text: &str, period: Duration) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    let number = |text: &str| {
        text.parse().map_err(|_| format!("`{text}` is not a whole number above 0, as in RATE or RATE/BURST"))
    };
    let (amount, burst) = text.split_once('/').unwrap_or((text, text));
    Ok(Some(Rate { amount: number(amount)?, period, burst: number(burst)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_default_is_the_default() {
        assert_eq!("messages=30/60,logins=10".parse(), Ok(RateLimits::default()));
    }

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let limits: RateLimits = "messages=5".parse().unwrap();
        assert_eq!(limits.logins, RateLimits::default().logins);
        let messages = limits.messages.unwrap();
        assert_eq!((messages.amount.get(), messages.burst.get()), (5, 5));
    }

    #[test]
    fn limits_may_be_lifted_one_by_one_or_all() {
        assert_eq!("off".parse(), Ok(RateLimits::OFF));
        let limits: RateLimits = "logins=off".parse().unwrap();
        assert!(limits.logins.is_none() && limits.messages.is_some());
    }

    #[test]
    fn bad_limits_are_named() {
        for (bad, named) in [("messages=0", "`0`"), ("logins=a/1", "`a`"), ("mails=1", "`mails`"), ("7", "off")] {
            let error = RateLimits::from_str(bad).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
