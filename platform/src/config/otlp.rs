//! Where spans go, and of which requests.

use std::str::FromStr;

use super::{ConfigError, PublicUrl, layers::Layers};

/// The export of traces.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// The receiver, by OTLP over HTTP: `/v1/traces` is appended.
    pub endpoint: PublicUrl,
    /// What this process is called there; `None` stands for a name by its roles.
    pub service_name: Option<String>,
    /// The share, from 0 to 1, of requests without a trace of their own that are traced.
    pub share: f64,
}

impl Otlp {
    /// `None` where nothing is exported; what is wrong is told even so.
    pub(super) fn read(layers: &mut Layers) -> Result<Option<Self>, ConfigError> {
        let endpoint = layers.optional("otlp_endpoint", |text| {
            PublicUrl::from_str(text).map_err(|_| "a URL such as http://localhost:4318 is wanted".to_owned())
        })?;
        let service_name = layers.optional("otlp_service_name", |text| Ok(text.to_owned()))?;
        let share = layers.required("traced_share", share)?;
        Ok(endpoint.map(|endpoint| Self { endpoint, service_name, share }))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share from 0 to 1, such as 0.05, is wanted".to_owned())
}
