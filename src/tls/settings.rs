//! `[tls]` of the configuration.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::settings::Senseless;

use super::{Files, Version};

/// `[tls]`; the paths are relative to the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// The server's certificate and those between it and its CA.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// CAs whose certificates users may log on with (rule A-30).
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these CAs.
    pub crl: Option<PathBuf>,
    /// Refuses older versions (rule T-15).
    pub min_version: Version,
}

impl TlsSettings {
    /// The files that it names.
    #[must_use]
    pub fn files(&self) -> Files {
        Files {
            pair: self.certificate.clone().zip(self.key.clone()),
            client_ca: self.client_ca.clone(),
            crl: self.crl.clone(),
            min_version: self.min_version,
        }
    }

    /// Takes its paths as relative to the configuration file.
    pub fn stand_beside(&mut self, config: &Path) {
        let directory = config.parent().unwrap_or(Path::new(""));
        let files = [
            &mut self.certificate,
            &mut self.key,
            &mut self.client_ca,
            &mut self.crl,
        ];
        for path in files.into_iter().flatten() {
            *path = directory.join(&path);
        }
    }

    /// Keys that need each other.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        let (certificate, key) = (self.certificate.is_some(), self.key.is_some());
        let ca = self.client_ca.is_some();
        let pairs = [
            ("tls.certificate", certificate, "tls.key", key),
            ("tls.key", key, "tls.certificate", certificate),
            ("tls.crl", self.crl.is_some(), "tls.client_ca", ca),
        ];
        let alone = pairs.into_iter();
        let alone = alone.filter(|(_, given, _, needed)| *given && !needed);
        alone
            .map(|(key, _, other, _)| Senseless::alone(key, other))
            .collect()
    }
}
