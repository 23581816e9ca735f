//! `[job]` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::{DAY, Senseless, duration};

/// `[job]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// How long an ended job is kept.
    #[serde(deserialize_with = "duration")]
    pub keep: Duration,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(3600),
        }
    }
}

impl JobSettings {
    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        match (Duration::from_secs(300)..=366 * DAY).contains(&self.keep) {
            true => Vec::new(),
            false => vec![Senseless::new("job.keep", "must be between 5m and 8784h")],
        }
    }
}
