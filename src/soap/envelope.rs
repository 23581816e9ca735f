//! An envelope that came: SOAP version, header blocks, body (rules H-1 and H-2).

use super::ns;
use crate::xml::Element;

const ROLE_NEXT: &str = "http://www.w3.org/2003/05/soap-envelope/role/next";
const ROLE_ULTIMATE: &str = "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver";

/// Why it is no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The root element is `Envelope` of another SOAP version, or of none.
    #[error("the envelope is not of SOAP 1.2")]
    Version,
    /// The root element is something else.
    #[error("the root element is not s:Envelope")]
    NoEnvelope,
    /// An element other than one `s:Header` followed by one `s:Body`.
    #[error("an envelope holds at most one s:Header, then exactly one s:Body, and nothing else")]
    Structure,
}

/// The parts of an envelope. They borrow from the document that was read.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'d> {
    header: Option<Element<'d>>,
    /// `None` where only the header was read.
    body: Option<Element<'d>>,
}

impl<'d> Envelope<'d> {
    /// Takes an envelope apart.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(root: Element<'d>) -> Result<Self, Error> {
        if root.local() != "Envelope" {
            return Err(Error::NoEnvelope);
        }
        if root.namespace() != ns::SOAP {
            return Err(Error::Version);
        }
        let mut parts = root.children();
        let mut next = parts.next();
        let header = next.filter(|e| e.is(ns::SOAP, "Header"));
        if header.is_some() {
            next = parts.next();
        }
        let body = next
            .filter(|e| e.is(ns::SOAP, "Body"))
            .ok_or(Error::Structure)?;
        if parts.next().is_some() {
            return Err(Error::Structure);
        }
        let body = Some(body);
        Ok(Self { header, body })
    }

    /// An envelope of which only the first child was read; `None` if that is not the `s:Header` of one.
    #[must_use]
    pub fn header_only(root: Element<'d>) -> Option<Self> {
        let header = root.child(ns::SOAP, "Header");
        let is_one = root.is(ns::SOAP, "Envelope") && header.is_some();
        is_one.then_some(Self { header, body: None })
    }

    /// Was there an `s:Header`?
    #[must_use]
    pub fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// The header blocks.
    pub fn headers(&self) -> impl Iterator<Item = Element<'d>> + use<'d> {
        self.header.into_iter().flat_map(|h| h.children())
    }

    /// The first element of the body.
    #[must_use]
    pub fn payload(&self) -> Option<Element<'d>> {
        self.body?.children().next()
    }
}

/// Must we understand this header block? Only SOAP's own `mustUnderstand` counts: some clients write one in
/// no namespace on whatever they send (rule CL-11). A block for another role does not concern us
/// (rule H-3).
#[must_use]
pub fn must_understand(block: Element<'_>) -> bool {
    let set = matches!(
        block.attribute(ns::SOAP, "mustUnderstand"),
        Some("true" | "1")
    );
    let role = block.attribute(ns::SOAP, "role").unwrap_or_default();
    set && matches!(role, "" | ROLE_NEXT | ROLE_ULTIMATE)
}
