//! The configuration as a resource: `winrm/config` (rule Q-20), read only.

use std::time::Duration;

use crate::soap::ns;
use crate::xml::Writer;

/// The settings that clients can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WinrmConfig {
    /// MaxEnvelopeSizekb, in octets; rounded down to kilobytes.
    pub max_envelope_size: usize,
    /// MaxTimeoutms.
    pub timeout: Duration,
    /// MaxBatchItems.
    pub max_batch_items: usize,
    /// Service/MaxConcurrentOperationsPerUser.
    pub max_operations_per_user: usize,
    /// Service/EnumerationTimeoutms.
    pub enumeration_timeout: Duration,
    /// Service/MaxConnections.
    pub max_connections: usize,
    /// Service/AllowUnencrypted.
    pub allow_unencrypted: bool,
    /// Service/Auth/Basic.
    pub basic: bool,
    /// Service/Auth/Certificate.
    pub certificate: bool,
    /// Service/Auth/Negotiate.
    pub negotiate: bool,
    /// Service/Auth/Kerberos.
    pub kerberos: bool,
}

/// How much of the configuration is asked for. Each part is a resource of its own, and its elements are in
/// the namespace of that resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// `/service`
    Service,
    /// `/service/auth`
    Auth,
}

impl Part {
    /// The part by what follows the URI of the configuration, without regard to case; `None` for parts of
    /// Windows' configuration that have no meaning here.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path.trim_end_matches('/').to_ascii_lowercase().as_str() {
            "" => Some(Self::All),
            "/service" => Some(Self::Service),
            "/service/auth" => Some(Self::Auth),
            _ => None,
        }
    }

    const fn namespace(self) -> &'static str {
        match self {
            Self::All => ns::CONFIG,
            Self::Service => "http://schemas.microsoft.com/wbem/wsman/1/config/service",
            Self::Auth => "http://schemas.microsoft.com/wbem/wsman/1/config/service/auth",
        }
    }
}

/// Writes `cfg:Config` or a part of it: the body of the answer to Get. The elements stand in the order of
/// MS-WSMV's schema.
pub fn write(w: &mut Writer, config: &WinrmConfig, part: Part) {
    let root = [("xmlns:cfg", part.namespace()), ("xml:lang", "en-US")];
    match part {
        Part::All => {
            w.open("cfg", "Config", &root);
            setting(w, "MaxEnvelopeSizekb", config.max_envelope_size / 1024);
            setting(w, "MaxTimeoutms", config.timeout.as_millis());
            setting(w, "MaxBatchItems", config.max_batch_items);
            service(w, config, &[]);
            w.close("cfg", "Config");
        }
        Part::Service => service(w, config, &root),
        Part::Auth => auth(w, config, &root),
    }
}

fn service(w: &mut Writer, config: &WinrmConfig, attributes: &[(&str, &str)]) {
    w.open("cfg", "Service", attributes);
    setting(
        w,
        "MaxConcurrentOperationsPerUser",
        config.max_operations_per_user,
    );
    setting(
        w,
        "EnumerationTimeoutms",
        config.enumeration_timeout.as_millis(),
    );
    setting(w, "MaxConnections", config.max_connections);
    setting(w, "AllowUnencrypted", config.allow_unencrypted);
    auth(w, config, &[]);
    w.close("cfg", "Service");
}

fn auth(w: &mut Writer, config: &WinrmConfig, attributes: &[(&str, &str)]) {
    w.open("cfg", "Auth", attributes);
    setting(w, "Basic", config.basic);
    setting(w, "Kerberos", config.kerberos);
    setting(w, "Negotiate", config.negotiate);
    setting(w, "Certificate", config.certificate);
    setting(w, "CredSSP", false);
    w.close("cfg", "Auth");
}

fn setting(w: &mut Writer, name: &str, value: impl std::fmt::Display) {
    w.element("cfg", name, &[], &value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    fn config() -> WinrmConfig {
        WinrmConfig {
            max_envelope_size: 512_000,
            timeout: Duration::from_secs(60),
            max_batch_items: 32_000,
            max_operations_per_user: 1500,
            enumeration_timeout: Duration::from_secs(240),
            max_connections: 300,
            allow_unencrypted: false,
            basic: true,
            certificate: false,
            negotiate: false,
            kerberos: false,
        }
    }

    fn told(part: Part) -> String {
        let mut w = Writer::new();
        write(&mut w, &config(), part);
        w.into_string()
    }

    #[test]
    fn q_20_the_configuration_is_told_in_the_order_of_the_schema() {
        let text = told(Part::All);
        let document = parse(&text).unwrap();
        let root = document.root();
        assert!(root.is(ns::CONFIG, "Config"));
        let names: Vec<_> = root.children().map(|c| c.local()).collect();
        assert_eq!(
            names,
            [
                "MaxEnvelopeSizekb",
                "MaxTimeoutms",
                "MaxBatchItems",
                "Service"
            ]
        );
        let at = |path: &[&str]| {
            let found = path
                .iter()
                .fold(root, |e, name| e.child(ns::CONFIG, name).unwrap());
            found.text().into_owned()
        };
        assert_eq!(at(&["MaxEnvelopeSizekb"]), "500");
        assert_eq!(at(&["MaxTimeoutms"]), "60000");
        assert_eq!(at(&["Service", "Auth", "Basic"]), "true");
        assert_eq!(at(&["Service", "AllowUnencrypted"]), "false");
    }

    #[test]
    fn q_20_a_part_stands_in_its_own_namespace_and_says_what_the_whole_says() {
        let whole = told(Part::All);
        for (path, name) in [("/service", "Service"), ("/Service/Auth/", "Auth")] {
            let part = Part::of(path).unwrap();
            let text = told(part);
            let document = parse(&text).unwrap();
            let uri = format!(
                "{}{}",
                ns::CONFIG,
                path.trim_end_matches('/').to_lowercase()
            );
            assert!(document.root().is(&uri, name), "{text}");
            let (_, inside) = text.split_once('>').unwrap();
            assert!(whole.contains(inside), "{text}");
        }
        assert_eq!(Part::of("/client"), None);
        assert_eq!(Part::of("/service/auth/basic"), None);
    }
}
