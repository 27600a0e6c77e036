//! What the process says of itself: log lines on standard error, figures for Prometheus.

mod json;
mod metrics;

use std::{error::Error, io, iter::successors};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::metrics::Metrics;
use crate::config::LogFormat;

/// Why the process cannot say anything of itself.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else set up logging before.
    #[error("logging is set up twice")]
    Logging(#[from] tracing_subscriber::util::TryInitError),
    /// Something else took the figures of this process before.
    #[error("metrics are set up twice")]
    MetricsTaken,
    /// The histograms' buckets are not as they must be.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Sets up logging for the whole process, once. Standard output stays free for what commands print.
pub fn init_logging(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let registry = tracing_subscriber::registry().with(EnvFilter::try_new(filter)?);
    match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(io::stderr)).try_init()?,
        LogFormat::Json => registry.with(json::layer(io::stderr)).try_init()?,
    }
    Ok(())
}

/// An error and all that caused it, for the one place that logs it: `Display` of an error never repeats its source.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = successors(Some(error), |&error| error.source()).map(ToString::to_string).collect();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let source = io::Error::other("disc full");
        let error = crate::config::ConfigError::Unreadable { path: "a.toml".into(), source };
        assert_eq!(chain(&error), "cannot read the configuration file a.toml: disc full");
    }
}
