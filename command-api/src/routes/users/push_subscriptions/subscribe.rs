//! `PUT /v1/users/me/push-subscriptions/{subscription_id}`

use std::time::Duration;

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Json, PathId, Problem};
use platform::push::{PushTarget, TargetError};
use schemas::rest::{PushSubscription, Subscribe};
use time::OffsetDateTime;

use super::{Row, shown};
use crate::docs::{BodyProblems, CallerProblems};
use crate::service::Service;
use crate::validate::Checks;

/// Subscriptions of one user at most.
const MOST: i64 = 20;
/// A subscription that is not put again by then has outlived its session.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// Parameters: user, subscription, session, sealed, hash, service, end, how many at most. Nothing comes of it where the
/// session was revoked meanwhile, or the user has as many as there may be.
const PUT: &str = "
    WITH taken AS (
        DELETE FROM state.push_subscriptions
         WHERE endpoint_hash = $5 AND (user_id, subscription_id) <> ($1, $2))
    INSERT INTO state.push_subscriptions AS s
           (user_id, subscription_id, session_id, sealed, endpoint_hash, service, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, $7
     WHERE NOT EXISTS (SELECT FROM state.revoked_sessions WHERE session_id = $3)
       AND $8 > (SELECT count(*) FROM state.push_subscriptions
                  WHERE user_id = $1 AND subscription_id <> $2 AND endpoint_hash <> $5 AND expires_at > now())
    ON CONFLICT (user_id, subscription_id) DO UPDATE SET
           session_id = excluded.session_id, sealed = excluded.sealed, endpoint_hash = excluded.endpoint_hash,
           service = excluded.service, expires_at = excluded.expires_at
    RETURNING subscription_id, service, created_at, expires_at, session_id";

/// Have this browser told of messages that come while no device of yours is connected
///
/// The subscription ends with the session: put it again after each log-in, and at each start.
#[utoipa::path(
    put, path = "/v1/users/me/push-subscriptions/{subscription_id}", tag = "users", request_body = Subscribe,
    params(("subscription_id" = Uuid, Path, description = "An id of the client's choice")),
    security(("bearer" = [])),
    responses(
        (status = 200, body = PushSubscription),
        (status = 404, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Not an id"),
        (status = 409, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "20 subscriptions are the most that one can have"),
        CallerProblems, BodyProblems,
    ),
)]
pub(crate) async fn subscribe(
    State(service): State<Service>,
    caller: Caller,
    PathId(subscription_id): PathId,
    Json(body): Json<Subscribe>,
) -> Result<Json<PushSubscription>, Problem> {
    let now = OffsetDateTime::now_utc();
    let expires_at = expiry(body.expiration_time, now);
    let mut checks = Checks::default();
    checks.expect(expires_at > now, "/expiration_time", "a time that is yet to come");
    let anywhere = service.inner.parts.settings.push_anywhere;
    let target = PushTarget::new(&body.endpoint, &body.keys.p256dh, &body.keys.auth, anywhere);
    for error in target.as_ref().err().into_iter().flatten() {
        checks.refuse(pointer(*error), error.to_string());
    }
    checks.done()?;
    // Refused above where it is none.
    let Ok(target) = target else { return Err(Problem::invalid(Vec::new())) };

    let user_id = caller.user_id;
    let mut transaction = service.inner.parts.pool.begin().await?;
    // One after the other, so that they count each other, and one browser is not taken by two users at once. In this order
    // nobody waits for who waits for them.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('parlance push'), hashtext($1::text))")
        .bind(user_id)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('parlance push endpoint'), hashtext(encode($1, 'hex')))")
        .bind(&target.endpoint_hash()[..])
        .execute(&mut *transaction)
        .await?;
    let row: Option<Row> = sqlx::query_as(PUT)
        .bind(user_id)
        .bind(subscription_id)
        .bind(caller.session_id)
        .bind(target.seal(service.authenticator().keyring(), user_id, subscription_id))
        .bind(&target.endpoint_hash()[..])
        .bind(target.service())
        .bind(expires_at)
        .bind(MOST)
        .fetch_optional(&mut *transaction)
        .await?;
    // What is refused takes nothing from anybody either.
    if let Some(row) = row {
        transaction.commit().await?;
        return Ok(Json(shown(row, caller.session_id)));
    }
    transaction.rollback().await?;
    service.authenticator().still_good(&caller)?;
    Err(Problem::conflict(format!("{MOST} push subscriptions are the most that one can have")))
}

/// When it ends: as its push service says, if that is sooner.
fn expiry(given_ms: Option<f64>, now: OffsetDateTime) -> OffsetDateTime {
    let latest = now + KEPT;
    #[expect(clippy::cast_possible_truncation, reason = "what is out of range is far away, or long ago")]
    let given = given_ms.map(|ms| i128::from(ms as i64) * 1_000_000);
    let given = given.and_then(|nanoseconds| OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok());
    given.map_or(latest, |given| given.min(latest))
}

fn pointer(error: TargetError) -> &'static str {
    match error {
        TargetError::Endpoint => "/endpoint",
        TargetError::Key => "/keys/p256dh",
        TargetError::Secret => "/keys/auth",
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::MOST;
    use crate::testing::{Account, Answered, Api};

    /// The example of RFC 8291, section 5.
    fn subscription(endpoint: &str) -> Value {
        json!({
            "endpoint": endpoint,
            "expirationTime": null,
            "keys": {
                "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
                "auth": "BTBZMqHH6r4Tts7J_aSIgg",
            },
        })
    }

    async fn put(api: &Api, by: &Account, id: impl std::fmt::Display, body: Value) -> Answered {
        api.put(&format!("/v1/users/me/push-subscriptions/{id}"), by, body).await
    }

    async fn kept(api: &Api) -> Vec<(Uuid, Uuid)> {
        let query = "SELECT user_id, session_id FROM state.push_subscriptions ORDER BY created_at";
        sqlx::query_as(query).fetch_all(api.pool()).await.unwrap()
    }

    #[tokio::test]
    async fn a_subscription_is_put_once_and_again_without_telling_its_secrets() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let id = Uuid::now_v7();
        let first = put(&api, &ann, id, subscription("https://push.example.net/1")).await.ok();
        assert_eq!(first["subscription_id"], id.to_string());
        assert_eq!((&first["service"], &first["current"]), (&json!("https://push.example.net"), &json!(true)));
        let again = put(&api, &ann, id, subscription("https://push.example.net/2")).await.ok();
        assert_eq!(again["created_at"], first["created_at"]);
        assert_eq!(kept(&api).await, [(ann.user_id, ann.session_id)]);
        let sealed: Vec<u8> =
            sqlx::query_scalar("SELECT sealed FROM state.push_subscriptions").fetch_one(api.pool()).await.unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("push.example.net"));
        assert_eq!(api.log().await.len(), 2, "it is no event");
    }

    #[tokio::test]
    async fn what_is_no_subscription_is_refused_by_where_it_is_wrong() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        put(&api, &ann, "nonsense", subscription("https://push.example.net/1")).await.is(404);
        let refused = put(&api, &ann, Uuid::now_v7(), subscription("https://127.0.0.1/1")).await.is(422);
        assert_eq!(refused.pointers(), ["/endpoint"]);
        let body = json!({"endpoint": "x", "keys": {"p256dh": "x", "auth": "x"}, "expiration_time": 1000});
        let refused = put(&api, &ann, Uuid::now_v7(), body).await.is(422);
        assert_eq!(refused.pointers(), ["/expiration_time", "/endpoint", "/keys/p256dh", "/keys/auth"]);
        put(&api, &ann, Uuid::now_v7(), json!({"endpoint": "https://push.example.net/1"})).await.is(422);
        assert_eq!(kept(&api).await, []);
    }

    #[tokio::test]
    async fn it_ends_with_its_session_and_no_revoked_one_makes_another() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let elsewhere = api.log_in("ann").await;
        put(&api, &ann, Uuid::now_v7(), subscription("https://push.example.net/1")).await.ok();
        put(&api, &elsewhere, Uuid::now_v7(), subscription("https://push.example.net/2")).await.ok();
        api.delete("/v1/sessions/current", &elsewhere).await.is(204);
        assert_eq!(kept(&api).await, [(ann.user_id, ann.session_id)]);
        put(&api, &elsewhere, Uuid::now_v7(), subscription("https://push.example.net/3")).await.is(401);
        // A process that has not heard of it yet is told by the database.
        sqlx::query("INSERT INTO state.revoked_sessions VALUES ($1)")
            .bind(ann.session_id)
            .execute(api.pool())
            .await
            .unwrap();
        let late = put(&api, &ann, Uuid::now_v7(), subscription("https://push.example.net/4")).await;
        assert!([401, 409].contains(&late.status.as_u16()), "{}", late.body);
        assert_eq!(kept(&api).await.len(), 1);
    }

    #[tokio::test]
    async fn a_browser_belongs_to_whoever_registered_it_last() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        put(&api, &ann, Uuid::now_v7(), subscription("https://push.example.net/1")).await.ok();
        put(&api, &ben, Uuid::now_v7(), subscription("https://push.example.net/1")).await.ok();
        assert_eq!(kept(&api).await, [(ben.user_id, ben.session_id)]);
    }

    #[tokio::test]
    async fn a_browser_that_many_register_at_once_belongs_to_one() {
        let api = Api::new().await;
        let mut users = Vec::new();
        for number in 0..6 {
            users.push(api.user(&format!("user{number}")).await);
        }
        for round in 0..20 {
            let endpoint = format!("https://push.example.net/{round}");
            let puts = users.iter().map(|user| put(&api, user, Uuid::from_u128(1), subscription(&endpoint)));
            for answer in join_all(puts).await {
                answer.ok();
            }
            assert_eq!(kept(&api).await.len(), 1, "{round}");
        }
    }

    #[tokio::test]
    async fn what_is_refused_takes_a_browser_from_nobody() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        for number in 0..MOST {
            let of_ann = subscription(&format!("https://push.example.net/{number}"));
            put(&api, &ann, Uuid::now_v7(), of_ann).await.ok();
        }
        let of_ben = subscription("https://push.example.net/ben");
        put(&api, &ben, Uuid::now_v7(), of_ben.clone()).await.ok();
        put(&api, &ann, Uuid::now_v7(), of_ben).await.is(409);
        assert!(kept(&api).await.contains(&(ben.user_id, ben.session_id)));
    }

    #[tokio::test]
    async fn there_may_be_only_so_many() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let ids: Vec<Uuid> = (0..MOST).map(|_| Uuid::now_v7()).collect();
        for id in &ids {
            put(&api, &ann, id, subscription(&format!("https://push.example.net/{id}"))).await.ok();
        }
        let another = subscription("https://push.example.net/another");
        put(&api, &ann, Uuid::now_v7(), another.clone()).await.is(409);
        put(&api, &ann, ids[3], another.clone()).await.ok();
        // The same browser under another id takes the place that it had.
        put(&api, &ann, Uuid::now_v7(), another).await.ok();
        assert_eq!(kept(&api).await.len(), ids.len());
    }
}
