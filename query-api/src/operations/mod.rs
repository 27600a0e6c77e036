//! Health and figures, which every process serves, whatever its roles.

mod health;
mod metrics;

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What a check of a dependency found: a detail of what is well, or of what is not.
pub type Checked = Result<String, String>;

/// A dependency in use, by name.
#[derive(Clone)]
pub struct Dependency {
    name: &'static str,
    /// Without it nothing works.
    essential: bool,
    check: Arc<dyn Fn() -> BoxFuture<'static, Checked> + Send + Sync>,
}

impl Dependency {
    /// One without which the process still does something: away, it is `degraded`.
    pub fn new(name: &'static str, check: impl Fn() -> BoxFuture<'static, Checked> + Send + Sync + 'static) -> Self {
        Self { name, essential: false, check: Arc::new(check) }
    }

    /// PostgreSQL, without which the process is `down`.
    pub fn postgres(pool: PgPool) -> Self {
        let check = move || -> BoxFuture<'static, Checked> {
            let pool = pool.clone();
            Box::pin(async move {
                match sqlx::query("SELECT 1").execute(&pool).await {
                    Ok(_) => Ok("answers".to_owned()),
                    // What the driver says may hold addresses and names: it is logged, not shown.
                    Err(error) => {
                        tracing::warn!(%error, "PostgreSQL does not answer the health check");
                        Err("does not answer".to_owned())
                    }
                }
            })
        };
        Self { essential: true, ..Self::new("postgres", check) }
    }
}

/// What health and figures are asked of.
#[derive(Clone)]
pub struct Operations {
    dependencies: Arc<[Dependency]>,
    render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Operations {
    /// Over the dependencies in use, and what renders the figures as Prometheus reads them.
    pub fn new(
        dependencies: impl IntoIterator<Item = Dependency>,
        render_metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self { dependencies: dependencies.into_iter().collect(), render_metrics: Arc::new(render_metrics) }
    }
}

pub(crate) fn router() -> OpenApiRouter<Operations> {
    OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready)).routes(routes!(metrics::metrics))
}
