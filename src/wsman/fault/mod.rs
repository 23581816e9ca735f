//! The table of faults and their form on the wire. No other file writes a subcode.
//!
//! A fault is a row of [`table`], a [`Text`] for people and, where one stands behind it, a CIM status.

mod cim_error;
mod provider;
pub mod table;
#[cfg(test)]
mod tests;
mod write;

use crate::cim::Status;
use crate::soap;
use crate::text::Text;

pub use cim_error::Tried;
pub use provider::Attempt;
pub use write::FaultHeaders;

/// `s:Code/s:Value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// `s:Sender`
    Sender,
    /// `s:Receiver`
    Receiver,
    /// `s:VersionMismatch`
    VersionMismatch,
    /// `s:MustUnderstand`
    MustUnderstand,
}

/// The fault action by the standard that defines the subcode (rule F-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// WS-Addressing
    A,
    /// WS-Management
    W,
    /// WS-Enumeration
    N,
    /// WS-Eventing
    E,
    /// WS-Transfer
    X,
}

impl Action {
    /// The action URI.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::A => "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault",
            Self::W => "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault",
            Self::N => "http://schemas.xmlsoap.org/ws/2004/09/enumeration/fault",
            Self::E => "http://schemas.xmlsoap.org/ws/2004/08/eventing/fault",
            Self::X => "http://schemas.xmlsoap.org/ws/2004/09/transfer/fault",
        }
    }
}

/// A row of the table of faults.
#[derive(Debug, PartialEq, Eq)]
pub struct FaultKind {
    /// Our name of the row, mostly Windows'.
    pub name: &'static str,
    /// Code.
    pub code: Code,
    /// Subcode with the prefix that fault envelopes declare; empty if there is none.
    pub subcode: &'static str,
    /// Last part of the FaultDetail URI; empty if there is none.
    pub detail: &'static str,
    /// Action.
    pub action: Action,
    /// `f:WSManFault/@Code`: Microsoft's number.
    pub number: u32,
}

/// Most characters of each thing that a fault quotes.
const QUOTE_MAX: usize = 2048;

impl FaultKind {
    /// A fault of this kind. What its text quotes of the request it quotes several times, so it is shortened.
    #[must_use]
    pub fn fault(&'static self, text: Text) -> Fault {
        Fault {
            kind: self,
            text: text.shortened(QUOTE_MAX),
            status: None,
            extra: Extra::None,
        }
    }
}

/// A fault for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is.
    pub kind: &'static FaultKind,
    /// Why, for people.
    pub text: Text,
    /// The CIM status behind it: the fault then carries a CIM error instance (rule F-20).
    pub status: Option<Status>,
    /// What the kind asks for besides.
    pub extra: Extra,
}

/// Parts that only some kinds have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// `a:Action` in the detail: the action that is not supported (rule H-11).
    Action(String),
    /// Header block `s:NotUnderstood` (rule H-3).
    NotUnderstood {
        /// Namespace of the block that is not understood.
        namespace: String,
        /// Its local name.
        local: String,
    },
    /// `n:SupportedDialect` in the detail: the filter dialects that there are (rule E-40).
    Dialects(&'static [&'static str]),
    /// Header block `s:Upgrade` (rule H-1).
    Upgrade,
}

impl Fault {
    /// The fault with an extra part.
    #[must_use]
    pub fn with(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }

    /// Is it nobody's mistake but the server's own?
    #[must_use]
    pub fn is_internal(&self) -> bool {
        *self.kind == table::INTERNAL_ERROR
    }

    /// The fault with the CIM status that stands behind it.
    #[must_use]
    pub fn because(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }
}

impl From<soap::Error> for Fault {
    fn from(error: soap::Error) -> Self {
        use crate::text::catalog::wire;
        match error {
            soap::Error::Version => table::SOAP_VERSION_MISMATCH
                .fault(wire::SOAP_VERSION.text())
                .with(Extra::Upgrade),
            soap::Error::NoEnvelope => {
                table::SCHEMA_VALIDATION_ERROR.fault(wire::NO_ENVELOPE.text())
            }
            soap::Error::Structure => {
                table::SCHEMA_VALIDATION_ERROR.fault(wire::ENVELOPE_STRUCTURE.text())
            }
        }
    }
}
