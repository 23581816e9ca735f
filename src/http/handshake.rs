//! TLS handshakes, limited in number and in time; when there are too many the oldest is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::auth::certificate::Certificate;
use crate::tls::{Live, Shown};

use super::TransportLimits;

/// The handshakes that are under way.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    /// Oldest first.
    all: BTreeMap<u64, CancellationToken>,
}

impl Handshakes {
    /// Does one. `None`: it failed, took too long, or was the oldest of too many. Honest clients need a few milliseconds,
    /// so those that are dropped are connections that were opened and left silent.
    pub(super) async fn shake(
        &self,
        socket: TcpStream,
        acceptor: TlsAcceptor,
        limits: &TransportLimits,
        end: &CancellationToken,
    ) -> Option<TlsStream<TcpStream>> {
        let turn = self.begin(limits.handshakes, end);
        let done = timeout(limits.handshake, acceptor.accept(socket));
        match turn.given_up.run_until_cancelled(done).await? {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake");
                None
            }
            Err(_) => {
                tracing::debug!("TLS handshake: too slow");
                None
            }
        }
    }

    fn begin(&self, limit: usize, end: &CancellationToken) -> Turn<'_> {
        let given_up = end.child_token();
        let mut open = self.get();
        if open.all.len() >= limit.max(1)
            && let Some((_, oldest)) = open.all.pop_first()
        {
            oldest.cancel();
        }
        open.last += 1;
        let number = open.last;
        open.all.insert(number, given_up.clone());
        Turn {
            handshakes: self,
            number,
            given_up,
        }
    }

    fn get(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handshake's place among the others.
struct Turn<'a> {
    handshakes: &'a Handshakes,
    number: u64,
    given_up: CancellationToken,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.handshakes.get().all.remove(&self.number);
    }
}

/// The certificate that a client has shown; the handshake has verified it.
pub(super) struct Peer {
    certificate: Certificate,
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<Live>,
    /// What the handshake was done with.
    then: Arc<Shown>,
}

impl Peer {
    /// Of a connection whose handshake was done with `then`.
    pub(super) fn of(
        stream: &TlsStream<TcpStream>,
        tls: Arc<Live>,
        then: Arc<Shown>,
    ) -> Option<Self> {
        let chain = stream.get_ref().1.peer_certificates()?;
        Some(Self {
            certificate: Certificate::read(chain.first()?)?,
            chain: chain.iter().map(|c| c.clone().into_owned()).collect(),
            tls,
            then,
        })
    }

    /// The certificate, unless it was revoked or its CA left out since.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        let good = self.tls.still_accepts(&self.chain, &self.then);
        good.then_some(&self.certificate)
    }
}
