//! A WS-Management client for the command line: speaks to any server, ours or another, without a schema.
//!
//! A call writes one envelope (`envelope`), sends it over a kept-alive connection (`connection`) and reads
//! what comes back (`answer`): a generic [`Object`] or an [`Error`]. References and values are those of `cim`, written and read by
//! `wscim`.

mod answer;
mod connection;
mod envelope;
mod error;
mod value;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

use crate::cim::{Path, Value};
use crate::soap::ns;
use crate::tls::Trust;

pub use connection::Credentials;
pub use error::{Error, Fault};
pub use value::Object;

use connection::Connection;
use envelope::{Wanted, namespace};

/// How many instances are asked for at once.
const PAGE: usize = 500;
/// How much longer than the server a client waits, so that the server's own timeout fault arrives.
const GRACE: Duration = Duration::from_secs(5);

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who made it.
    pub vendor: String,
    /// Its version.
    pub version: String,
}

/// A client of one server, for one user.
pub struct Client {
    connection: Connection,
    timeout: Duration,
}

impl Client {
    /// A client; nothing is sent yet. `url` is `http://host:port/wsman` or `https://…`, where the
    /// system trusts the certificate; port (5985, 5986) and path may be left out.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn new(url: &str, credentials: &Credentials) -> Result<Self, Error> {
        Self::with_trust(url, Some(credentials), &Trust::default())
    }

    /// As [`Client::new`], with the given trust. Without credentials it logs on by the certificate of
    /// `trust`.
    ///
    /// # Errors
    /// [`Error::Url`]; [`Error::Files`] if a file of `trust` cannot be used.
    pub fn with_trust(
        url: &str,
        credentials: Option<&Credentials>,
        trust: &Trust,
    ) -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::new(url, credentials, trust)?,
            timeout: Duration::from_secs(60),
        })
    }

    /// The server, as given.
    #[must_use]
    pub fn url(&self) -> &str {
        self.connection.url()
    }

    /// Asks the server who it is.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identify(&self) -> Result<Identity, Error> {
        let body = self.call(envelope::identify()).await?;
        self.read(&body, answer::identity)
    }

    /// One instance.
    ///
    /// # Errors
    /// [`Error`]; a [`Fault`] with subcode `DestinationUnreachable` if there is none.
    pub async fn get(&self, target: &Path) -> Result<Object, Error> {
        let body = self.call(envelope::get(target, self.timeout)).await?;
        self.read(&body, answer::instance)
    }

    /// Every instance of a class and of its subclasses.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enumerate(&self, namespace: &str, class: &str) -> Result<Vec<Object>, Error> {
        self.pages(&Path::new(namespace, class), &Wanted::All).await
    }

    /// What a WQL query asks for. Of a query that names properties the objects have no more than those.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn query(&self, namespace: &str, wql: &str) -> Result<Vec<Object>, Error> {
        self.pages(&Path::new(namespace, "*"), &Wanted::Query(wql))
            .await
    }

    /// The objects of class `result` that associations of class `association` link to `object`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn linked(
        &self,
        object: &Path,
        association: &str,
        result: &str,
    ) -> Result<Vec<Object>, Error> {
        let wanted = Wanted::Linked(object, association, result);
        self.pages(&Path::new(namespace(object), "*"), &wanted)
            .await
    }

    async fn pages(&self, of: &Path, wanted: &Wanted<'_>) -> Result<Vec<Object>, Error> {
        let request = envelope::enumerate(of, wanted, PAGE, self.timeout);
        let body = self.call(request).await?;
        let mut page = self.read(&body, answer::page)?;
        let mut all = std::mem::take(&mut page.items);
        while let Some(context) = page.context.take() {
            let pull = envelope::pull(of, &context, PAGE, self.timeout);
            page = self.read(&self.call(pull).await?, answer::page)?;
            all.append(&mut page.items);
        }
        Ok(all)
    }

    /// Calls a method; gives its output with `ReturnValue`. Arrays are given as one argument for each
    /// element.
    ///
    /// # Errors
    /// [`Error`]. A return value that is not 0 is no error here.
    pub async fn invoke(
        &self,
        target: &Path,
        method: &str,
        arguments: &[(&str, Value)],
    ) -> Result<Object, Error> {
        let request = envelope::invoke(target, method, arguments, self.timeout);
        let body = self.call(request).await?;
        self.read(&body, answer::instance)
    }

    async fn call(&self, envelope: String) -> Result<Bytes, Error> {
        let (status, body) = self.connection.post(envelope, self.timeout + GRACE).await?;
        if status == 200 {
            return Ok(body);
        }
        let fault = self.read(&body, answer::fault)?;
        Err(Error::Fault(Box::new(fault)))
    }

    fn read<T>(
        &self,
        body: &[u8],
        read: impl FnOnce(crate::xml::Element<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let malformed = |reason: String| Error::Malformed {
            url: self.url().to_owned(),
            reason,
        };
        let text = std::str::from_utf8(body).map_err(|e| malformed(e.to_string()))?;
        let document = crate::xml::parse(text).map_err(|e| malformed(e.to_string()))?;
        let body = document
            .root()
            .child(ns::SOAP, "Body")
            .ok_or_else(|| malformed("it is no SOAP 1.2 envelope".to_owned()))?;
        read(body).ok_or_else(|| malformed("its body is not the one expected".to_owned()))
    }
}
