//! `[http]`: what is taken of browsers.

use serde::Deserialize;

use crate::http::{NoOrigin, Origin};

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Origins of the web pages that may send requests.
    pub allowed_origins: Vec<String>,
}

impl Http {
    /// As `http` takes them.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn origins(&self) -> Result<Vec<Origin>, NoOrigin> {
        self.allowed_origins.iter().map(|o| o.parse()).collect()
    }
}
