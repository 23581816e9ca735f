//! `[engine]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

use crate::settings::Senseless;

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// The engine.
    pub default: EngineKind,
    /// How many machines the simulation has.
    pub machines: u32,
    /// Folders that disk images and their backing files must lie in; empty allows all.
    pub image_roots: Vec<PathBuf>,
}

/// The most machines of the simulation: so many have been tried, and each costs memory.
pub const MACHINES_MAX: u32 = 100_000;

/// The engines that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Machines of the data directory.
    Library,
    /// Machines that exist in memory only.
    Sim,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            default: EngineKind::Library,
            machines: 3,
            image_roots: Vec::new(),
        }
    }
}

impl EngineSettings {
    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        let mut found: Vec<_> =
            Senseless::relative("engine.image_roots", &self.image_roots).collect();
        if self.machines > MACHINES_MAX {
            let reason = format!("must be at most {MACHINES_MAX}");
            found.push(Senseless::new("engine.machines", reason));
        }
        found
    }
}
