//! Figures for Prometheus. Roles record them through the `metrics` facade and describe them where they record them;
//! names end in their unit, which also chooses a histogram's buckets.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

use super::TelemetryError;
use crate::lifecycle::Lifecycle;

/// Latencies, in seconds: from a cached decision to a wait that somebody gave up.
const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Sizes of batches.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];
/// How often samples are moved into their buckets, so that they do not pile up while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// The figures of this process.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Takes all that is recorded in this process from now on; once installed, the same again.
    pub fn install() -> Result<Self, TelemetryError> {
        static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
        let mut installed = INSTALLED.lock();
        if let Some(metrics) = &*installed {
            return Ok(metrics.clone());
        }
        let recorder = recorder()?;
        let metrics = Self { handle: recorder.handle() };
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::MetricsTaken)?;
        Ok(installed.insert(metrics).clone())
    }

    /// All figures in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps memory bounded while nobody asks for the figures.
    pub fn spawn_upkeep(&self, life: &Lifecycle) {
        let (handle, draining) = (self.handle.clone(), life.drain_token());
        life.spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                tokio::select! {
                    () = draining.cancelled() => return,
                    _ = ticks.tick() => handle.run_upkeep(),
                }
            }
        });
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".into()), COUNTS)?
        .build_recorder())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_the_buckets() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_histogram!("append_seconds", "Time of an append.");
            metrics::histogram!("append_seconds").record(0.003);
            metrics::histogram!("append_batch_size").record(3.0);
            metrics::counter!("commands_total", "command" => "send").increment(2);
        });
        let text = handle.render();
        assert!(text.contains("# HELP append_seconds Time of an append."), "{text}");
        assert!(text.contains("append_seconds_bucket{le=\"0.004\"} 1"), "{text}");
        assert!(text.contains("append_batch_size_bucket{le=\"4\"} 1"), "{text}");
        assert!(text.contains("commands_total{command=\"send\"} 2"), "{text}");
    }

    #[test]
    fn installing_twice_gives_the_same_figures() {
        let one = Metrics::install().unwrap();
        let other = Metrics::install().unwrap();
        metrics::counter!("seen_total").increment(1);
        assert!(one.render().contains("seen_total 1"));
        assert_eq!(one.render(), other.render());
    }
}
