//! A reading of the audit: who looked, for what. Each is an aggregate of its own, so that none grows with how often.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kernel::{aggregate, events, from_bodies};
use crate::user::{Role, User};

events! {
    /// An event of a reading. Its id is the aggregate's, the ordering key the reader.
    pub enum ReadingEvent {
        /// Somebody looked.
        "user.audit_read", 1 => AuditRead(AuditRead),
    }
}

from_bodies!(ReadingEvent: AuditRead);

/// Somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRead {
    /// Only what this user did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Uuid>,
    /// Only what was done to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Uuid>,
    /// Only events of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Only from this time on.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// Only before this time.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
}

/// A reading: done or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    done: bool,
}

/// What can be asked of a reading.
#[derive(Clone, Debug)]
pub struct Read {
    /// Whether the reader may.
    pub permitted: bool,
    /// What for.
    pub wanted: AuditRead,
}

impl Read {
    /// By this user.
    pub fn by(reader: &User, wanted: AuditRead) -> Self {
        Self { permitted: reader.has(Role::Operator), wanted }
    }
}

/// Why a reading was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadingRefusal {
    /// Only operators read the audit.
    #[error("only operators read the audit")]
    Role,
    /// The id is in use.
    #[error("this was read already")]
    Exists,
}

impl Reading {
    /// Decides `command`.
    pub fn decide(&self, command: Read) -> Result<Vec<ReadingEvent>, ReadingRefusal> {
        if !command.permitted {
            return Err(ReadingRefusal::Role);
        }
        if self.done {
            return Err(ReadingRefusal::Exists);
        }
        Ok(vec![command.wanted.into()])
    }

    #[expect(clippy::needless_pass_by_value, reason = "cqrs-es hands events over")]
    fn evolve(&mut self, event: ReadingEvent) {
        match event {
            ReadingEvent::AuditRead(_) => self.done = true,
        }
    }
}

aggregate!(Reading {
    name: "audit_reading",
    code: 7,
    topic: Users,
    latest_only: true,
    command: Read,
    event: ReadingEvent,
    refusal: ReadingRefusal,
});

#[cfg(test)]
mod tests {
    use cqrs_es::test::TestFramework;

    use super::*;

    #[test]
    fn operators_read_and_others_do_not() {
        let wanted = AuditRead { actor: Some(Uuid::from_u128(1)), ..AuditRead::default() };
        let read = |permitted| Read { permitted, wanted: wanted.clone() };
        let new = || TestFramework::<Reading>::with(()).given_no_previous_events();
        new().when(read(true)).then_expect_events(vec![wanted.clone().into()]);
        new().when(read(false)).then_expect_error(ReadingRefusal::Role);
        TestFramework::<Reading>::with(())
            .given(vec![wanted.clone().into()])
            .when(read(true))
            .then_expect_error(ReadingRefusal::Exists);
        assert!(!Read::by(&User::default(), wanted.clone()).permitted);
    }
}
