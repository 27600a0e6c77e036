//! W3C trace contexts: which trace something belongs to, what it is a child of, and whether anyone looks at it.

use std::fmt;
use std::str::FromStr;

/// The id of a trace; 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// A new one.
    pub fn random() -> Self {
        // All zeroes would be "no trace".
        Self(rand::random::<u128>().max(1))
    }

    /// A `traceparent` within it, not sampled.
    pub fn traceparent(self) -> String {
        TraceContext { trace_id: self.0, span_id: rand::random::<u64>().max(1), flags: 0 }.to_string()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A place in a trace: a `traceparent` of version 00, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    flags: u8,
}

/// `00-{trace}-{span}-{flags}`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

impl TraceContext {
    pub(super) fn sampled(trace_id: u128, span_id: u64) -> Self {
        Self { trace_id, span_id, flags: SAMPLED }
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    /// Whether the trace is looked at.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same as [`Self::is_sampled`] of a text, which is looked at no further where it is not.
    pub(super) fn of_sampled(text: &str) -> Option<Self> {
        let last = *text.as_bytes().get(LENGTH - 1)?;
        // Of the flags' second digit the lowest bit: odd digits have odd codes, and of a-f it is b, d, f.
        let odd = if last.is_ascii_digit() { last % 2 == 1 } else { last % 2 == 0 };
        if !odd {
            return None;
        }
        text.parse().ok().filter(Self::is_sampled)
    }
}

/// Not a `traceparent` that can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct NotATraceparent;

impl FromStr for TraceContext {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        let digits = |text: &str, length| {
            let right = text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            right.then(|| u128::from_str_radix(text, 16).ok()).flatten()
        };
        let read = || {
            let mut fields = text.split('-');
            (fields.next()? == "00").then_some(())?;
            let trace_id = digits(fields.next()?, 32).filter(|trace| *trace != 0)?;
            let span_id = digits(fields.next()?, 16).and_then(|span| u64::try_from(span).ok());
            let span_id = span_id.filter(|span| *span != 0)?;
            let flags = digits(fields.next()?, 2).and_then(|flags| u8::try_from(flags).ok())?;
            fields.next().is_none().then_some(Self { trace_id, span_id, flags })
        };
        read().ok_or(NotATraceparent)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        let made: TraceContext = TraceId::random().traceparent().parse().unwrap();
        assert!(!made.is_sampled());
    }

    #[test]
    fn what_is_none_is_not_followed() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0ü",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(NotATraceparent), "{bad}");
            assert_eq!(TraceContext::of_sampled(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_flags_say_whether_it_is_sampled() {
        for flags in 0..=u8::MAX {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags:02x}");
            let context: TraceContext = text.parse().unwrap();
            assert_eq!(context.is_sampled(), flags & 1 == 1, "{text}");
            assert_eq!(TraceContext::of_sampled(&text), context.is_sampled().then_some(context), "{text}");
        }
    }
}
