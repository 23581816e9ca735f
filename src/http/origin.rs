//! Requests that a browser sends on behalf of a page: a page of anybody's could use whatever the browser logs on with.
//!
//! A browser names the page's origin in `Origin` whenever it sends a body, also after the name of the page's host has
//! come to mean this server, and tells in `Sec-Fetch-Site` how the two belong together. This server has no pages, and
//! no other client sends either. So only what a browser cannot keep quiet counts; `Host` is not looked at, for
//! tunnels, address translation and containers change it.

use std::fmt;
use std::str::FromStr;

use hyper::header::{HeaderMap, HeaderName, ORIGIN};

/// How the page and this server belong together, by the browser's account.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origin of pages that may send requests: `https://console.example:8443`. RFC 6454 section 6.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// The text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin: scheme, host and perhaps a port, as in https://console.example:8443")]
pub struct NoOrigin(String);

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        read(text).ok_or_else(|| NoOrigin(text.to_owned()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As browsers write it: in lower case, without the port that the scheme has anyway.
fn read(text: &str) -> Option<Origin> {
    let lower = text.to_ascii_lowercase();
    let (scheme, authority) = lower.split_once("://")?;
    let mut letters = scheme.bytes();
    let is_scheme = letters.next().is_some_and(|b| b.is_ascii_lowercase())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    // The colons of an address of IPv6 stand in brackets.
    let behind = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority.get(behind..)?.rsplit_once(':') {
        Some((_, port)) => (authority.strip_suffix(port)?.strip_suffix(':')?, Some(port)),
        None => (authority, None),
    };
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~[]:".contains(&b))
        && (behind == host.len() && host.starts_with('[') || !host.contains(['[', ']', ':']));
    let is_port = port.is_none_or(|p| {
        p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|n| n > 0)
    });
    if !is_scheme || !is_host || !is_port {
        return None;
    }
    Some(Origin(match (scheme, port) {
        ("http", Some("80")) | ("https", Some("443")) | (_, None) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    }))
}

/// What tells that a page which nobody allowed sends the request: its origin, or else the value of `Sec-Fetch-Site`.
pub(super) fn stranger(headers: &HeaderMap, allowed: &[Origin]) -> Option<String> {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut origins = headers.get_all(ORIGIN).iter();
    if let Some(origin) = origins.next() {
        let named = origin.to_str().ok().and_then(|text| text.parse().ok());
        let is_allowed = named.is_some_and(|origin: Origin| allowed.contains(&origin));
        return match (is_allowed, origins.next()) {
            (true, None) => None,
            (true, Some(second)) => Some(shown(second.as_bytes())),
            (false, _) => Some(shown(origin.as_bytes())),
        };
    }
    // A site takes in every port and every host below one name: pages of others lie in the same one.
    let sites = headers.get_all(SEC_FETCH_SITE).iter();
    let own = |site: &[u8]| {
        site.eq_ignore_ascii_case(b"same-origin") || site.eq_ignore_ascii_case(b"none")
    };
    let foreign = sites.map(|s| s.as_bytes()).find(|site| !own(site));
    foreign.map(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, read) in [
            ("https://Console.Example", "https://console.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("HTTPS://[::1]:8443", "https://[::1]:8443"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]"),
            ("moz-extension://9b2f-4c", "moz-extension://9b2f-4c"),
        ] {
            assert_eq!(
                text.parse::<Origin>().map(|o| o.to_string()),
                Ok(read.to_owned())
            );
        }
        for text in [
            "",
            "null",
            "*",
            "a.example",
            "https://",
            "https:///",
            "https://a/",
            "https://a/b",
            "https://a b",
            "https://u@a",
            "https://a:",
            "https://a:0",
            "https://a:65536",
            "https://a:+1",
            "https://*.a",
            "://a",
            "1x://a",
            "https://[::1",
            "https://[::1]x",
            "https://a:b:1",
            "https://a?b",
            "https://a#b",
            "https://a,https://b",
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is no origin")),
                "{error}"
            );
        }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_an_allowed_page_is_no_stranger() {
        let allowed: Vec<Origin> = vec!["https://console.example".parse().unwrap()];
        let console = ("origin", "https://console.example");
        let cases: &[(&[_], Option<&str>)] = &[
            (&[], None),
            (&[("host", "evil.example")], None),
            (&[console], None),
            (&[("origin", "HTTPS://CONSOLE.example:443")], None),
            (&[console, ("sec-fetch-site", "cross-site")], None),
            (&[("origin", "null")], Some("null")),
            (&[("origin", "")], Some("")),
            (
                &[("origin", "https://console.example.evil")],
                Some("https://console.example.evil"),
            ),
            (
                &[("origin", "http://console.example")],
                Some("http://console.example"),
            ),
            (
                &[("origin", "https://console.example https://b")],
                Some("https://console.example https://b"),
            ),
            (&[console, ("origin", "https://b")], Some("https://b")),
            (&[console, console], Some("https://console.example")),
            (&[("sec-fetch-site", "cross-site")], Some("cross-site")),
            (&[("sec-fetch-site", "same-site")], Some("same-site")),
            (
                &[("sec-fetch-site", "none"), ("sec-fetch-site", "x")],
                Some("x"),
            ),
            (&[("sec-fetch-site", "same-origin")], None),
            (&[("sec-fetch-site", "none")], None),
        ];
        for (lines, expected) in cases {
            let found = stranger(&headers(lines), &allowed);
            assert_eq!(found.as_deref(), *expected, "{lines:?}");
        }
    }
}
