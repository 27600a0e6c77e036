//! A session: a family of refresh tokens, one after the other, on one device of one user.

mod event;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

pub use event::{Client, Refreshed, ReuseDetected, RevokeReason, Revoked, SessionEvent, Started};

use crate::kernel::aggregate;

/// The state that decisions about a session need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    family: Option<Family>,
}

/// The refresh tokens of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// The session's device.
    pub device_id: Uuid,
    /// How often the token was exchanged.
    pub generation: u32,
    /// SHA-256 of the current token, in hex.
    pub refresh_hash: String,
    /// When the current token expires.
    #[serde(with = "time::serde::rfc3339")]
    pub refresh_expires_at: OffsetDateTime,
    /// When the session ends however often it is refreshed.
    #[serde(with = "time::serde::rfc3339")]
    pub ends_at: OffsetDateTime,
    /// When the predecessor was exchanged.
    #[serde(with = "time::serde::rfc3339::option")]
    pub rotated_at: Option<OffsetDateTime>,
    /// Whether its tokens are refused.
    pub revoked: bool,
}

/// What can be asked of a session.
#[derive(Clone, Debug)]
pub enum SessionCommand {
    /// Begin, on a device.
    Start(Started),
    /// Exchange a refresh token.
    Refresh(Refresh),
    /// Refuse its tokens from now on.
    Revoke(RevokeReason),
}

/// The exchange of a refresh token whose authenticity the caller has checked.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// Which of the family's tokens was presented.
    pub generation: u32,
    /// SHA-256 of the presented token, in hex.
    pub presented_hash: String,
    /// The device that presented it.
    pub device_id: Uuid,
    /// SHA-256 of the token that follows the presented one, in hex.
    pub successor_hash: String,
    /// When the successor expires, if it is made now.
    pub successor_expires_at: OffsetDateTime,
    /// The present.
    pub now: OffsetDateTime,
    /// How long after an exchange its replay by the same device is forgiven.
    pub grace: Duration,
    /// Where the token came from.
    pub client: Client,
}

/// Why a session command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    /// The id is in use.
    #[error("this session exists already")]
    Exists,
    /// No such session, or not its token.
    #[error("there is no such session")]
    Unknown,
    /// Revoked or expired.
    #[error("the session has ended")]
    Ended,
}

impl Session {
    /// The tokens, once started.
    pub fn family(&self) -> Option<&Family> {
        self.family.as_ref()
    }

    /// Decides `command`.
    ///
    /// A refresh that makes no event is a forgiven replay: its answer is the successor that was made before. One that
    /// makes [`SessionEvent::ReuseDetected`] is to be refused by the caller, after the events are committed.
    pub fn decide(&self, command: SessionCommand) -> Result<Vec<SessionEvent>, SessionRefusal> {
        match command {
            SessionCommand::Start(started) => match self.family {
                Some(_) => Err(SessionRefusal::Exists),
                None => Ok(vec![started.into()]),
            },
            SessionCommand::Refresh(refresh) => self.refresh(&refresh),
            SessionCommand::Revoke(reason) => self.revoke(reason),
        }
    }

    fn refresh(&self, refresh: &Refresh) -> Result<Vec<SessionEvent>, SessionRefusal> {
        let family = self.family.as_ref().ok_or(SessionRefusal::Unknown)?;
        if refresh.generation > family.generation {
            return Err(SessionRefusal::Unknown);
        }
        if family.revoked || refresh.now >= family.ends_at {
            return Err(SessionRefusal::Ended);
        }
        if refresh.generation == family.generation {
            if refresh.presented_hash != family.refresh_hash || refresh.device_id != family.device_id {
                return Err(SessionRefusal::Unknown);
            }
            if refresh.now >= family.refresh_expires_at {
                return Err(SessionRefusal::Ended);
            }
            return Ok(vec![
                Refreshed {
                    device_id: family.device_id,
                    refresh_hash: refresh.successor_hash.clone(),
                    refresh_expires_at: refresh.successor_expires_at.min(family.ends_at),
                    rotated_at: refresh.now,
                    client: refresh.client.clone(),
                }
                .into(),
            ]);
        }
        let replay = refresh.generation + 1 == family.generation
            && refresh.device_id == family.device_id
            && refresh.successor_hash == family.refresh_hash
            && family.rotated_at.is_some_and(|at| refresh.now <= at + refresh.grace);
        if replay {
            return Ok(vec![]);
        }
        let (device_id, client) = (family.device_id, refresh.client.clone());
        Ok(vec![
            ReuseDetected { device_id, generation: refresh.generation, client }.into(),
            Revoked { device_id, reason: RevokeReason::Reuse }.into(),
        ])
    }

    fn revoke(&self, reason: RevokeReason) -> Result<Vec<SessionEvent>, SessionRefusal> {
        let family = self.family.as_ref().ok_or(SessionRefusal::Unknown)?;
        if family.revoked {
            return Ok(vec![]);
        }
        Ok(vec![Revoked { device_id: family.device_id, reason }.into()])
    }

    fn evolve(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Started(started) => {
                self.family = Some(Family {
                    device_id: started.device_id,
                    generation: 0,
                    refresh_hash: started.refresh_hash,
                    refresh_expires_at: started.refresh_expires_at,
                    ends_at: started.ends_at,
                    rotated_at: None,
                    revoked: false,
                });
            }
            SessionEvent::Refreshed(refreshed) => {
                if let Some(family) = &mut self.family {
                    family.generation += 1;
                    family.refresh_hash = refreshed.refresh_hash;
                    family.refresh_expires_at = refreshed.refresh_expires_at;
                    family.rotated_at = Some(refreshed.rotated_at);
                }
            }
            SessionEvent::Revoked(_) => {
                if let Some(family) = &mut self.family {
                    family.revoked = true;
                }
            }
            SessionEvent::ReuseDetected(_) => {}
        }
    }
}

aggregate!(Session {
    name: "session",
    code: 2,
    topic: Users,
    latest_only: false,
    command: SessionCommand,
    event: SessionEvent,
    refusal: SessionRefusal,
});

#[cfg(test)]
mod tests {
    use cqrs_es::Aggregate;
    use cqrs_es::test::TestFramework;
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const LOGIN: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const DEVICE: Uuid = Uuid::from_u128(7);

    fn hash(generation: u32) -> String {
        format!("hash {generation}")
    }

    fn started() -> SessionEvent {
        Started {
            device_id: DEVICE,
            device_name: None,
            refresh_hash: hash(0),
            refresh_expires_at: LOGIN + Duration::hours(24),
            ends_at: LOGIN + Duration::days(30),
            client: Client::default(),
        }
        .into()
    }

    fn client() -> Client {
        Client { address: Some("10.0.0.1".into()), user_agent: Some("phone".into()) }
    }

    fn refreshed(generation: u32, after: Duration) -> SessionEvent {
        Refreshed {
            device_id: DEVICE,
            refresh_hash: hash(generation),
            refresh_expires_at: LOGIN + after + Duration::hours(24),
            rotated_at: LOGIN + after,
            client: client(),
        }
        .into()
    }

    fn present(generation: u32, after: Duration) -> Refresh {
        Refresh {
            generation,
            presented_hash: hash(generation),
            device_id: DEVICE,
            successor_hash: hash(generation + 1),
            successor_expires_at: LOGIN + after + Duration::hours(24),
            now: LOGIN + after,
            grace: Duration::seconds(10),
            client: client(),
        }
    }

    fn reuse(generation: u32) -> Vec<SessionEvent> {
        vec![
            ReuseDetected { device_id: DEVICE, generation, client: client() }.into(),
            Revoked { device_id: DEVICE, reason: RevokeReason::Reuse }.into(),
        ]
    }

    #[test]
    fn the_current_token_is_exchanged() {
        TestFramework::<Session>::with(())
            .given(vec![started()])
            .when(SessionCommand::Refresh(present(0, Duration::HOUR)))
            .then_expect_events(vec![refreshed(1, Duration::HOUR)]);
    }

    #[test]
    fn a_replay_within_the_grace_is_forgiven_and_after_it_revokes() {
        let given = || TestFramework::<Session>::with(()).given(vec![started(), refreshed(1, Duration::HOUR)]);
        let soon = Duration::HOUR + Duration::seconds(10);
        given().when(SessionCommand::Refresh(present(0, soon))).then_expect_events(vec![]);
        let late = soon + Duration::SECOND;
        given().when(SessionCommand::Refresh(present(0, late))).then_expect_events(reuse(0));
    }

    #[test]
    fn a_replay_by_another_device_revokes() {
        let stolen = Refresh { device_id: Uuid::from_u128(8), ..present(0, Duration::HOUR) };
        TestFramework::<Session>::with(())
            .given(vec![started(), refreshed(1, Duration::HOUR)])
            .when(SessionCommand::Refresh(stolen))
            .then_expect_events(reuse(0));
    }

    #[test]
    fn an_expired_or_revoked_session_gives_no_token() {
        TestFramework::<Session>::with(())
            .given(vec![started()])
            .when(SessionCommand::Refresh(present(0, Duration::hours(24))))
            .then_expect_error(SessionRefusal::Ended);
        let revoked = Revoked { device_id: DEVICE, reason: RevokeReason::LoggedOut };
        TestFramework::<Session>::with(())
            .given(vec![started(), revoked.into()])
            .when(SessionCommand::Refresh(present(0, Duration::HOUR)))
            .then_expect_error(SessionRefusal::Ended);
    }

    #[test]
    fn revoking_twice_makes_one_event() {
        let revoked = Revoked { device_id: DEVICE, reason: RevokeReason::LoggedOut };
        TestFramework::<Session>::with(())
            .given(vec![started(), revoked.into()])
            .when(SessionCommand::Revoke(RevokeReason::LoggedOut))
            .then_expect_events(vec![]);
    }

    proptest! {
        /// Whatever tokens come in whatever order: after a reuse no token is ever exchanged again.
        #[test]
        fn no_token_after_a_reuse(steps in prop::collection::vec((0u32..6, 0i64..40), 1..30)) {
            let mut session = Session::default();
            session.apply(started());
            let mut now = Duration::ZERO;
            let mut reused = false;
            for (generation, seconds) in steps {
                now += Duration::seconds(seconds);
                let decided = session.decide(SessionCommand::Refresh(present(generation, now)));
                if reused {
                    prop_assert!(decided.is_err());
                }
                for event in decided.unwrap_or_default() {
                    reused |= matches!(event, SessionEvent::ReuseDetected(_));
                    session.apply(event);
                }
            }
        }
    }
}
