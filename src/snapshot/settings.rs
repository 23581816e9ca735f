//! `[snapshot]` and `[export]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::settings::{COUNT_MAX, DAY, Senseless, duration, size};

/// More than any file system has.
const RESERVE_MAX: u64 = 1 << 50;

/// `[snapshot]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotSettings {
    /// How long a call waits for its own job before it answers 4096.
    #[serde(deserialize_with = "duration")]
    pub inline_wait: Duration,
    /// Deepest chain of files under a disk.
    pub chain_cap: usize,
    /// An image of more extents is not cloned.
    pub clone_extents: u64,
    /// Octets that must stay free.
    #[serde(deserialize_with = "size")]
    pub reserve: u64,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self {
            inline_wait: Duration::ZERO,
            chain_cap: 32,
            clone_extents: 20_000,
            reserve: 64 << 20,
        }
    }
}

impl SnapshotSettings {
    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        let mut found = Vec::new();
        let mut wrong = |key, reason: String| found.push(Senseless::new(key, reason));
        if self.inline_wait > DAY {
            wrong("snapshot.inline_wait", "must be at most 24h".into());
        }
        if self.reserve > RESERVE_MAX {
            wrong("snapshot.reserve", "must be at most 1024TiB".into());
        }
        if !(1..=COUNT_MAX).contains(&self.chain_cap) {
            let reason = format!("must be between 1 and {COUNT_MAX}");
            wrong("snapshot.chain_cap", reason);
        }
        found
    }
}

/// `[export]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportSettings {
    /// Folders below which sets may be exported; absolute.
    pub roots: Vec<PathBuf>,
}

impl ExportSettings {
    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        Senseless::relative("export.roots", &self.roots).collect()
    }
}
