//! The server's side: which certificate is shown, whose certificates are accepted.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateRevocationListDer;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use x509_parser::parse_x509_certificate;

use crate::held;

use super::{Files, Read, Shown, TlsError, Version, own, regular, words};

/// How long before its end a certificate is warned of, in seconds.
const SOON: i64 = 14 * 86_400;

/// The one protocol inside (T-11: authentication belongs to the connection).
const HTTP_1_1: &[u8] = b"http/1.1";

pub(super) fn build(
    files: &Files,
    (certificate, key): &(PathBuf, PathBuf),
    now: Timestamp,
) -> Result<Shown, TlsError> {
    let provider = Arc::new(ring::default_provider());
    // Of the server's own, none is read through a link, nor from a folder in which others can exchange it.
    let read: Read = match files.pair {
        Some(_) => regular,
        None => own::read,
    };
    let chain = super::certificates(certificate, read)?;
    let mut warnings = Vec::new();
    let shown = chain.first().map(AsRef::as_ref).unwrap_or_default();
    warnings.extend(validity(certificate, shown, now)?);
    warnings.extend(readable_by_others(key));
    let fingerprint = super::fingerprint(shown);
    let pair = super::key(key, read)?;
    // Said here in our words; rustls would say that keys are inconsistent.
    CertifiedKey::from_der(chain.clone(), pair.clone_key(), &provider)
        .map_err(|error| does_not_fit(certificate, key, &error))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(files.min_version))
        .map_err(|e| TlsError::new(certificate, words(&e)))?;
    let verifier = verifier(files)?;
    let builder = match verifier.clone() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, pair)
        .map_err(|e| TlsError::new(certificate, words(&e)))?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Shown {
        fingerprint,
        warnings,
        config: Arc::new(config),
        verifier,
    })
}

fn versions(least: Version) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
    match least {
        Version::Tls12 => &BOTH,
        Version::Tls13 => &NEWEST,
    }
}

fn does_not_fit(certificate: &Path, key: &Path, error: &Error) -> TlsError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::new(
            key,
            &format_args!("this is not the key of {}", certificate.display()),
        ),
        Error::InvalidCertificate(_) => TlsError::new(certificate, words(error)),
        other => TlsError::new(key, words(other)),
    }
}

/// Who verifies clients' certificates. One may be shown, none must be: it is asked for in the first
/// handshake, for rustls has no second. Expired lists of revoked certificates count as none, which
/// refuses all that they are about.
pub(super) fn verifier(files: &Files) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(file) = &files.client_ca else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in super::certificates(file, regular)? {
        roots
            .add(certificate)
            .map_err(|e| TlsError::new(file, words(&e)))?;
    }
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated();
    let lists = files.crl.as_ref().unwrap_or(file);
    if let Some(file) = &files.crl {
        builder = builder
            .with_crls(revoked(file)?)
            .enforce_revocation_expiration();
    }
    let unusable = |_| TlsError::new(lists, "the revocation lists cannot be used");
    let verifier = builder.build().map_err(unusable)?;
    Ok(Some(verifier))
}

fn revoked(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    super::items(file, regular, "no revocation list in it (PEM)")
}

fn validity(file: &Path, der: &[u8], now: Timestamp) -> Result<Option<String>, TlsError> {
    let (_, certificate) =
        parse_x509_certificate(der).map_err(|_| TlsError::new(file, "no sound certificate"))?;
    let (from, to) = {
        let validity = certificate.validity();
        (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        )
    };
    let day = |second| match Timestamp::from_second(second) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "a time out of range".to_owned(),
    };
    let now = now.as_second();
    let name = file.display();
    Ok(if now < from {
        Some(format!(
            "{name}: the certificate is valid from {} on",
            day(from)
        ))
    } else if now > to {
        Some(format!(
            "{name}: the certificate has expired on {}",
            day(to)
        ))
    } else if now > to - SOON {
        Some(format!("{name}: the certificate expires on {}", day(to)))
    } else {
        None
    })
}

fn readable_by_others(key: &Path) -> Option<String> {
    let mode = super::answered(key, held::metadata)
        .ok()?
        .permissions()
        .mode();
    (mode & 0o007 != 0).then(|| {
        format!(
            "{}: every user of this host may open this key",
            key.display()
        )
    })
}
