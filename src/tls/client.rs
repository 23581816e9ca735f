//! The client's side: which certificates it trusts, and which one it presents.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::held;

use super::{TlsError, words};

/// Which certificates a client trusts, and which one it presents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Trusted CAs (PEM), or the server's own certificate; without it those of the system.
    pub ca: Option<PathBuf>,
    /// Accepts any certificate of a server. Anybody in between can read and change everything.
    pub insecure: bool,
    /// Certificate and key to log on with (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Makes the client's side of connections.
///
/// # Errors
/// [`TlsError`].
pub fn connector(trust: &Trust) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let file = trust.ca.clone().unwrap_or_default();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::new(&file, words(&e)))?;
    let builder = match trust.insecure {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        false => builder.with_root_certificates(roots(trust)?),
    };
    let config = match &trust.identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                super::certificates(certificate, any)?,
                super::key(key, any)?,
            )
            .map_err(|e| TlsError::new(key, words(&e)))?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// All of a file of any kind, as a shell hands over one (`--ca <(…)`).
fn any(file: &Path) -> io::Result<Vec<u8>> {
    held::read_named(file)
}

fn roots(trust: &Trust) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match &trust.ca {
        Some(file) => {
            for certificate in super::certificates(file, any)? {
                roots
                    .add(certificate)
                    .map_err(|e| TlsError::new(file, words(&e)))?;
            }
        }
        None => {
            // Those that cannot be read are not trusted; the handshake reports that.
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
    }
    Ok(roots)
}

/// Believes every certificate. Its key is still made to sign, so that the connection is one of TLS.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
