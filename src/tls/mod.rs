//! TLS: certificates and keys from files, the server's side and the client's, rustls with ring.
//!
//! ```text
//!   [tls] of the configuration ─▶ server::build ─▶ Live ─▶ one handshake each   (http)
//!   tls/ of the data directory ─▶ own             ▲
//!                                              SIGHUP: all files again, or nothing changes
//!   --ca --cert --key --insecure ─▶ client        (client)
//! ```

mod client;
mod own;
mod server;
pub mod settings;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::{TlsAcceptor, rustls};

use crate::held;

pub use client::{Trust, connector};

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub enum Version {
    /// TLS 1.2, for older Windows (rule T-15).
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which files a server takes, `[tls]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// The operator's certificate (PEM, the server's first, then those between it and its CA) and its
    /// key; without them the server makes its own.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// The CAs whose certificates clients may show (PEM); none are asked for without it.
    pub client_ca: Option<PathBuf>,
    /// Which of those are revoked (PEM, one list for each CA).
    pub crl: Option<PathBuf>,
    /// Refuses older versions.
    pub min_version: Version,
}

/// Why TLS cannot be had. One line, with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct TlsError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl TlsError {
    fn new(file: &Path, reason: &(impl ToString + ?Sized)) -> Self {
        Self {
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// What the server shows now.
#[derive(Debug)]
pub struct Shown {
    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// What the operator should look at: a certificate that has expired, a key that others can read.
    pub warnings: Vec<String>,
    config: Arc<ServerConfig>,
    /// Who verifies clients' certificates, if any are asked for.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// The server's side, exchanged while it runs.
#[derive(Debug)]
pub struct Live {
    files: Files,
    directory: PathBuf,
    shown: ArcSwap<Shown>,
}

impl Shown {
    /// For a handshake.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl Live {
    /// Reads the files; makes a certificate in `directory` if none is configured and none is there.
    /// `host` is the name to make it for.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(
        files: Files,
        directory: &Path,
        host: &str,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        if files.pair.is_none() {
            own::make_if_missing(directory, host, now)?;
        }
        let shown = read(&files, directory, now)?;
        Ok(Self {
            files,
            directory: directory.to_owned(),
            shown: ArcSwap::from_pointee(shown),
        })
    }

    /// Reads all files again. Connections that are open keep what they have, but for a client's certificate
    /// that is no longer good; sessions of before are not resumed.
    ///
    /// # Errors
    /// [`TlsError`]; nothing has changed then.
    pub fn reload(&self, now: Timestamp) -> Result<Arc<Shown>, TlsError> {
        let shown = read(&self.files, &self.directory, now)?;
        self.shown.store(Arc::new(shown));
        Ok(self.shown())
    }

    /// What is shown to the next client.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// Is a chain that was verified in the handshake with `then` still good? Looked at anew only if the
    /// files were read again since.
    #[must_use]
    pub fn still_accepts(&self, chain: &[CertificateDer<'_>], then: &Arc<Shown>) -> bool {
        let now = self.shown.load();
        if Arc::ptr_eq(&now, then) {
            return true;
        }
        let (Some(verifier), Some((first, others))) = (&now.verifier, chain.split_first()) else {
            return false;
        };
        let verified = verifier.verify_client_cert(first, others, UnixTime::now());
        verified.is_ok()
    }
}

/// Would a server start with these files? Gives the warnings.
///
/// # Errors
/// [`TlsError`].
fn check(files: &Files, now: Timestamp) -> Result<Vec<String>, TlsError> {
    match &files.pair {
        Some(pair) => Ok(server::build(files, pair, now)?.warnings),
        None => {
            server::verifier(files)?;
            Ok(Vec::new())
        }
    }
}

/// The warnings about the certificate that a server would show: the configured one, or its own in `directory`,
/// which is none yet if it is not there.
///
/// # Errors
/// [`TlsError`].
pub fn check_in(files: &Files, directory: &Path, now: Timestamp) -> Result<Vec<String>, TlsError> {
    match files.pair.is_none() && !own::is_made(directory)? {
        true => {
            own::can_make(directory)?;
            check(files, now)
        }
        false => Ok(read(files, directory, now)?.warnings),
    }
}

fn read(files: &Files, directory: &Path, now: Timestamp) -> Result<Shown, TlsError> {
    match &files.pair {
        Some(pair) => server::build(files, pair, now),
        None => server::build(files, &own::files(directory), now),
    }
}

/// What the TLS library says, in words for people.
#[must_use]
pub fn words(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidMessage(_) => {
            "the other side does not speak TLS; is it a port for plain HTTP?"
        }
        Error::PeerIncompatible(_)
        | Error::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure) => {
            "the two sides have no TLS version or cipher in common"
        }
        Error::PeerMisbehaved(_) => "the other side breaks the rules of TLS",
        Error::InconsistentKeys(_) => "certificate and key do not belong together",
        Error::NoCertificatesPresented => "no certificate was shown",
        Error::InvalidCertificate(bad) => match bad {
            Bad::BadEncoding => "the certificate is not sound",
            Bad::Expired | Bad::ExpiredContext { .. } => "the certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "the certificate is not valid yet",
            Bad::Revoked => "the certificate is revoked",
            Bad::UnknownIssuer => "the certificate is of an issuer that is not trusted",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            Bad::UnknownRevocationStatus => "no list tells whether the certificate is revoked",
            _ => "the certificate is not accepted",
        },
        Error::InvalidCertRevocationList(_) => "the revocation list is not sound",
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::UnknownCA
            | Alert::CertificateRequired
            | Alert::AccessDenied,
        ) => "the other side does not accept the certificate that it was shown",
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the other side says that the certificate has expired"
        }
        Error::AlertReceived(Alert::CertificateRevoked) => {
            "the other side says that the certificate is revoked"
        }
        Error::AlertReceived(_) => "the other side has refused",
        _ => "no TLS connection is possible with it",
    }
}

/// SHA-256 of a certificate: hexadecimal pairs with colons.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    let mut text = String::new();
    for (n, octet) in Sha256::digest(certificate).iter().enumerate() {
        let colon = if n == 0 { "" } else { ":" };
        // Writing to a string does not fail.
        let _ = write!(text, "{colon}{octet:02X}");
    }
    text
}

/// How a file is read.
type Read = fn(&Path) -> io::Result<Vec<u8>>;

/// All of a regular file. Where it does not answer, that is the error.
fn regular(file: &Path) -> io::Result<Vec<u8>> {
    answered(file, held::read_any)
}

/// A look at a file that may not come back.
fn answered<T: Send + 'static>(
    file: &Path,
    look: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let file = file.to_owned();
    held::bounded(move || look(&file)).flatten()
}

/// All certificates of a PEM file, at least one.
fn certificates(file: &Path, read: Read) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    items(file, read, "no certificate in it (PEM)")
}

/// All items of that kind of a PEM file, at least one.
fn items<T: PemObject>(file: &Path, read: Read, none: &str) -> Result<Vec<T>, TlsError> {
    let text = read(file).map_err(|e| TlsError::new(file, &e))?;
    let all: Result<Vec<_>, _> = T::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(TlsError::new(file, none)),
        Ok(all) => Ok(all),
        Err(error) => Err(pem_error(file, error)),
    }
}

fn key(file: &Path, read: Read) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(file).map_err(|e| TlsError::new(file, &e))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            TlsError::new(file, "no private key in it (PEM, not encrypted)")
        }
        other => pem_error(file, other),
    })
}

fn pem_error(file: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(error) => TlsError::new(file, &error),
        pem::Error::NoItemsFound => TlsError::new(file, "nothing in it (PEM)"),
        pem::Error::MissingSectionEnd { .. } => {
            TlsError::new(file, "no sound PEM: a line -----END …----- is missing")
        }
        pem::Error::Base64Decode(_) => TlsError::new(file, "no sound PEM: it is not base64"),
        _ => TlsError::new(file, "no sound PEM"),
    }
}

#[cfg(test)]
mod tests;
