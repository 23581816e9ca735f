//! `[listen]` and `[http]` of the configuration: where is listened, and what is taken of browsers.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::settings::Senseless;

use super::origin::{NoOrigin, Origin};

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSettings {
    /// Address and port for plain HTTP.
    pub http: SocketAddr,
    /// Address and port for HTTPS; none without it.
    pub https: Option<SocketAddr>,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 5985)),
            https: None,
        }
    }
}

impl ListenSettings {
    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        // Sockets of a port of our own are told apart by it; 0 is any free one.
        if self.https != Some(self.http) || self.http.port() == 0 {
            return Vec::new();
        }
        let other = "listen.http";
        vec![Senseless {
            key: "listen.https",
            other: Some(other),
            reason: format!("is the address of {other} as well"),
        }]
    }
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Origins of the web pages that may send requests.
    pub allowed_origins: Vec<String>,
}

impl HttpSettings {
    /// As `http` takes them.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn origins(&self) -> Result<Vec<Origin>, NoOrigin> {
        self.allowed_origins.iter().map(|o| o.parse()).collect()
    }

    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        let wrong = self.origins().err();
        let wrong = wrong.map(|reason| format!("cannot be read: {reason}"));
        let wrong = wrong.map(|reason| Senseless::new("http.allowed_origins", reason));
        wrong.into_iter().collect()
    }
}
