//! Old versions of events, rewritten to the current one as they are read. Stored bytes never change.

use std::collections::HashMap;

use serde::de::Error as _;
use serde_json::Value;

/// Rewrites the JSON of one version of an event type into that of the next version.
pub type Upcaster = fn(Value) -> Value;

/// The upcasters by event type and the version they start from.
#[derive(Debug, Clone, Default)]
pub struct Upcasters {
    steps: HashMap<(&'static str, i16), Upcaster>,
}

impl Upcasters {
    /// Adds the step from `version` of `event_type` to `version + 1`.
    #[must_use]
    pub fn with(mut self, event_type: &'static str, version: i16, step: Upcaster) -> Self {
        self.steps.insert((event_type, version), step);
        self
    }

    /// Rewrites `json` from version `from` to version `to`, step by step.
    ///
    /// # Errors
    /// JSON that is none, or a step that is missing.
    pub fn upcast(&self, event_type: &str, from: i16, to: i16, json: &str) -> serde_json::Result<String> {
        let mut value = serde_json::from_str(json)?;
        for version in from..to {
            let (_, step) =
                self.steps.iter().find(|((name, at), _)| *name == event_type && *at == version).ok_or_else(|| {
                    serde_json::Error::custom(format_args!("no upcaster for {event_type:?} version {version}"))
                })?;
            value = step(value);
        }
        serde_json::to_string(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_applied_one_after_another_up_to_the_current_version() {
        let upcasters = Upcasters::default()
            .with("moved", 1, |mut value| {
                value["by"] = value["n"].take();
                value
            })
            .with("moved", 2, |value| serde_json::json!({ "by": value["by"], "unit": "m" }));
        assert_eq!(upcasters.upcast("moved", 1, 3, r#"{"n":4}"#).unwrap(), r#"{"by":4,"unit":"m"}"#);
        assert_eq!(upcasters.upcast("moved", 2, 3, r#"{"by":4}"#).unwrap(), r#"{"by":4,"unit":"m"}"#);
    }

    #[test]
    fn a_missing_step_is_an_error() {
        let error = Upcasters::default().upcast("moved", 1, 2, "{}").unwrap_err();
        assert!(error.to_string().contains("\"moved\" version 1"), "{error}");
    }
}
