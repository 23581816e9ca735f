//! Client certificates: which user one stands for. Rules.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use x509_parser::der_parser::der::parse_der;
use x509_parser::der_parser::oid;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

use crate::handler::{Identity, Role};

/// Kinds of alternative names that can be told apart.
const KINDS: [&str; 4] = ["upn", "email", "dns", "uri"];

/// What a verified certificate says of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `cn=…`, `o=…` in the order of the certificate; none if it cannot be written so.
    subject: Option<Vec<String>>,
    /// `upn:…`, `email:…`, `dns:…`, `uri:…`
    names: Vec<String>,
    fingerprint: [u8; 32],
}

/// A certificate's owner is this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Which certificates.
    pub owner: Owner,
    /// The user.
    pub user: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// By what a certificate is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The whole subject, attribute by attribute.
    Subject(Vec<String>),
    /// One of the alternative names, with its kind.
    Name(String),
    /// SHA-256 of the certificate.
    Fingerprint([u8; 32]),
}

impl Owner {
    /// Reads `CN=backup,O=Example`; a comma or backslash inside a value stands behind a backslash. The
    /// order may be the certificate's or the reverse (RFC 4514): tools print both.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn subject(text: &str) -> Result<Self, String> {
        let mut attributes = Vec::new();
        for part in split(text) {
            let (name, value) = part
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()))
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .ok_or_else(|| format!("`{}` is not of the form CN=value", part.trim()))?;
            attributes.push(attribute(name, value));
        }
        Ok(Self::Subject(attributes))
    }

    /// Reads `upn:ann@example.com`, `email:…`, `dns:…` or `uri:…`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn name(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((kind, name)) if KINDS.contains(&kind) && !name.is_empty() => {
                Ok(Self::Name(alternative(kind, name)))
            }
            _ => Err(format!(
                "`{text}` is not upn:, email:, dns: or uri: with a name"
            )),
        }
    }

    /// Reads the SHA-256 fingerprint: 64 hexadecimal digits, colons between them or none.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn fingerprint(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a SHA-256 fingerprint of 64 hexadecimal digits");
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        let octets: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => u8::try_from(high * 16 + low).ok(),
                _ => None,
            })
            .collect();
        let octets = octets.and_then(|octets| octets.try_into().ok());
        octets.map(Self::Fingerprint).ok_or_else(wrong)
    }

    fn is(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Subject(wanted) => certificate
                .subject
                .as_ref()
                .is_some_and(|subject| subject == wanted || subject.iter().eq(wanted.iter().rev())),
            Self::Name(name) => certificate.names.contains(name),
            Self::Fingerprint(wanted) => certificate.fingerprint == *wanted,
        }
    }
}

impl Certificate {
    /// Reads a certificate that has been verified; `None` if it is not one.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        Some(Self {
            subject: subject(certificate.subject()),
            names: names(&certificate),
            fingerprint: Sha256::digest(der).into(),
        })
    }
}

/// The user whom the mappings name. Mappings that name different users for one certificate name none.
pub(super) fn identify(mappings: &[Mapping], certificate: &Certificate) -> Option<Identity> {
    let mut found = mappings.iter().filter(|m| m.owner.is(certificate));
    let first = found.next()?;
    if found.any(|other| (&other.user, other.role) != (&first.user, first.role)) {
        tracing::warn!(user = %first.user, "a certificate is mapped to different users; it is refused");
        return None;
    }
    Some(Identity {
        user: Arc::clone(&first.user),
        role: first.role,
    })
}

/// Attributes that stand together in one step of the name have no order; such a subject matches nothing.
fn subject(name: &X509Name<'_>) -> Option<Vec<String>> {
    let mut attributes = Vec::new();
    for step in name.iter_rdn() {
        let mut inside = step.iter();
        let (only, None) = (inside.next()?, inside.next()) else {
            return None;
        };
        let value = only.as_str().ok()?;
        attributes.push(attribute(&short(only.attr_type()), value));
    }
    (!attributes.is_empty()).then_some(attributes)
}

/// The short names that tools print; others are their numbers.
fn short(kind: &Oid<'_>) -> String {
    let number = kind.to_id_string();
    let name = match number.as_str() {
        "2.5.4.3" => "cn",
        "2.5.4.5" => "serialnumber",
        "2.5.4.6" => "c",
        "2.5.4.7" => "l",
        "2.5.4.8" => "st",
        "2.5.4.9" => "street",
        "2.5.4.10" => "o",
        "2.5.4.11" => "ou",
        "0.9.2342.19200300.100.1.1" => "uid",
        "0.9.2342.19200300.100.1.25" => "dc",
        "1.2.840.113549.1.9.1" => "emailaddress",
        _ => return number,
    };
    name.to_owned()
}

fn attribute(name: &str, value: &str) -> String {
    format!("{}={value}", name.to_ascii_lowercase())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::RFC822Name(name) => Some(alternative("email", name)),
            GeneralName::DNSName(name) => Some(alternative("dns", name)),
            GeneralName::URI(name) => Some(alternative("uri", name)),
            GeneralName::OtherName(kind, value) if *kind == oid!(1.3.6.1.4.1.311.20.2.3) => {
                Some(alternative("upn", &principal(value)?))
            }
            _ => None,
        })
        .collect()
}

/// The text inside the value of an `otherName`, which stands in an explicit tag.
fn principal(value: &[u8]) -> Option<String> {
    let (_, outer) = parse_der(value).ok()?;
    let inner = match outer.as_str() {
        Ok(text) => return Some(text.to_owned()),
        Err(_) => outer.as_slice().ok()?,
    };
    let (_, text) = parse_der(inner).ok()?;
    text.as_str().ok().map(str::to_owned)
}

/// Letter case counts in URIs only.
fn alternative(kind: &str, name: &str) -> String {
    match kind {
        "uri" => format!("{kind}:{name}"),
        _ => format!("{kind}:{}", name.to_lowercase()),
    }
}

/// At commas; a backslash takes the next character as it is.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let taken = match c {
            ',' => {
                parts.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or(c),
            c => c,
        };
        if let Some(last) = parts.last_mut() {
            last.push(taken);
        }
    }
    parts
}
