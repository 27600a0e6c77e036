//! `GET /health/live` and `/health/ready`

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use http::StatusCode;
use platform::http::Json;
use schemas::rest::{DependencyHealth, Health, HealthStatus};

use super::{Dependency, Operations};

/// The longest a check may take; well within the 2 s that the answer may.
const BOUND: Duration = Duration::from_millis(1500);

/// Whether the process runs at all.
#[utoipa::path(get, path = "/health/live", tag = "operations", operation_id = "getLiveness",
    responses((status = 200, description = "It runs.", body = Health)))]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: HealthStatus::Ok, dependencies: BTreeMap::new() })
}

/// Whether the process can do its work, dependency by dependency.
#[utoipa::path(get, path = "/health/ready", tag = "operations", operation_id = "getReadiness",
    responses(
        (status = 200, description = "It can, if perhaps not all of it.", body = Health),
        (status = 503, description = "It cannot: PostgreSQL is away.", body = Health)))]
pub(super) async fn ready(State(operations): State<Operations>) -> Response {
    let health = check(&operations.dependencies).await;
    let status = match health.status {
        HealthStatus::Down => StatusCode::SERVICE_UNAVAILABLE,
        HealthStatus::Ok | HealthStatus::Degraded => StatusCode::OK,
    };
    (status, Json(health)).into_response()
}

async fn check(dependencies: &[Dependency]) -> Health {
    let checks = dependencies.iter().map(|dependency| async move {
        let checked = tokio::time::timeout(BOUND, (dependency.check)()).await;
        let (status, detail) = match checked {
            Ok(Ok(detail)) => (HealthStatus::Ok, detail),
            Ok(Err(detail)) => (HealthStatus::Down, detail),
            Err(_) => (HealthStatus::Down, format!("no answer within {} ms", BOUND.as_millis())),
        };
        (dependency, DependencyHealth { status, detail })
    });
    let checked = join_all(checks).await;
    let status = checked.iter().map(|(dependency, health)| match health.status {
        HealthStatus::Down if !dependency.essential => HealthStatus::Degraded,
        status => status,
    });
    Health {
        status: status.max().unwrap_or(HealthStatus::Ok),
        dependencies: checked.into_iter().map(|(dependency, health)| (dependency.name.to_owned(), health)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn found(name: &'static str, essential: bool, checked: Result<&'static str, &'static str>) -> Dependency {
        let check = move || async move { checked.map(str::to_owned).map_err(str::to_owned) }.boxed();
        Dependency { essential, ..Dependency::new(name, check) }
    }

    #[tokio::test]
    async fn the_worst_decides() {
        let (well, away) = (found("a", true, Ok("fine")), found("b", false, Err("gone")));
        assert_eq!(check(&[]).await.status, HealthStatus::Ok);
        assert_eq!(check(std::slice::from_ref(&well)).await.status, HealthStatus::Ok);
        let health = check(&[well, away.clone()]).await;
        assert_eq!(health.status, HealthStatus::Degraded);
        assert_eq!(health.dependencies["b"].detail, "gone");
        assert_eq!(check(&[away, found("c", true, Err("gone"))]).await.status, HealthStatus::Down);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_given_up() {
        let hanging = Dependency::new("a", || futures::future::pending().boxed());
        let health = check(&[hanging]).await;
        assert_eq!(health.status, HealthStatus::Degraded);
        assert_eq!(health.dependencies["a"].detail, "no answer within 1500 ms");
    }
}
