//! Push subscriptions: where a browser is reached while it is away. They are state of a session's device and no events.

pub(crate) mod subscribe;
pub(crate) mod unsubscribe;

use schemas::rest::PushSubscription;
use time::OffsetDateTime;
use uuid::Uuid;

/// What is told of one: its id, service, beginning, end and session.
type Row = (Uuid, String, OffsetDateTime, OffsetDateTime, Uuid);

fn shown((subscription_id, service, created_at, expires_at, session_id): Row, asking: Uuid) -> PushSubscription {
    PushSubscription { subscription_id, service, created_at, expires_at, current: session_id == asking }
}
