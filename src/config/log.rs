//! `[log]`: what the log and the audit log take.

use std::path::Path;

use serde::Deserialize;

use crate::audit::AuditTo;
use crate::settings::Senseless;
use crate::telemetry;

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Filter as `tracing` reads it: `info`, `groupshot=debug,warn`, …
    pub level: String,
    /// Text or JSON.
    pub format: telemetry::Format,
    /// Where it is written who has changed what and who could not log on.
    pub audit: AuditTo,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: telemetry::Format::Text,
            audit: AuditTo::Log,
        }
    }
}

impl LogSettings {
    /// Takes its path as relative to the configuration file.
    pub(super) fn stand_beside(&mut self, config: &Path) {
        if let AuditTo::File(path) = &mut self.audit {
            *path = config.parent().unwrap_or(Path::new("")).join(&path);
        }
    }

    /// Values that make no sense.
    pub(super) fn senseless(&self) -> Vec<Senseless> {
        let wrong = telemetry::check(&self.level).err();
        let wrong = wrong.map(|reason| format!("cannot be read: {reason}"));
        let wrong = wrong.map(|reason| Senseless::new("log.level", reason));
        wrong.into_iter().collect()
    }
}
