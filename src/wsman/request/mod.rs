//! Everything a client may ask, parsed and typed.

mod associations;
mod attempt;
mod body;
mod classes;
mod filter;
mod headers;
mod parse;
mod receive;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::cim::query;
use crate::cim::{Class, Method, Path, Schema, Value};
use crate::soap::Envelope;
use crate::text::Language;
use crate::wscim::Style;

use super::config::Part;
use super::fault::Fault;
use super::uri::Family;

pub use associations::{Associations, fuzz as fuzz_association_filter};
pub use attempt::attempt;
pub use classes::{ClassList, ClassOptions};
pub use receive::{Glance, Incoming, Received, Rejected, receive};

/// What the server allows a client to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimits {
    /// Largest answer in octets (MaxEnvelopeSizekb); also the size where the client names none.
    pub max_envelope_size: usize,
    /// Longest time for an operation (MaxTimeoutms); also the time where the client names none.
    pub timeout: Duration,
    /// Namespace of classes named without one, with `/` (rule H-18).
    pub default_namespace: String,
    /// The name of this host: an object path in a query, and the address of a reference, may name it.
    pub host: String,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_envelope_size: 500 * 1024,
            timeout: Duration::from_secs(60),
            default_namespace: crate::cim::schema::VIRTUALIZATION_V2.to_owned(),
            host: "localhost".to_owned(),
        }
    }
}

/// A client program that needs its own form of an answer.
///
/// This is the one list of what real clients do against the letter of the standards; everything but OMI's
/// form of faults is taken from everyone:
///
/// | client | does | taken in |
/// |---|---|---|
/// | omicli | knows other fault actions and `OMI_Error` | [`Client::Omi`] in `wsman::fault` (rules F-2, F-21) |
/// | omicli | binds `xsi` to the wrong namespace; sends a reference as an instance with its keys | `wscim::read` (rule I-4) |
/// | omicli | pads its text with NULs; sends no `User-Agent` | `framing::charset`, [`Client::of`] |
/// | dracclient | sends no `Content-Type` | `framing::media` (rule T-4) |
/// | dracclient | writes `MaxElements` of a Pull in the namespace `w` | [`Pull::max_elements_wsman`] (rule E-11) |
/// | libvirt, winrm-rs | pull on another ResourceURI than they enumerated | `operation::pull` asks for the context alone |
/// | txwinrm | repeats its MessageIDs | nothing remembers them (rule H-12) |
/// | pywinrm, txwinrm | send a constant `a:To` | only its presence counts (rule H-10) |
/// | pywinrm, WinRb | write `mustUnderstand` in no namespace | `headers` (rule H-3) |
/// | WinRb | puts `SessionId` and `xsi:nil` into bodies | `body` passes over what it does not know (rule E-1) |
/// | winrm-java | sends a body that is no XML before it has logged on | `http` reads no body before the logon |
/// | PowerShell | sends `OperationID` and `SequenceId`, which never come back | `headers` (rule H-30) |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Client {
    /// OMI's client library and omicli: other fault actions, `OMI_Error` (rules F-2, F-21).
    Omi,
    /// Any other.
    #[default]
    Other,
}

/// A request. The headers are checked, the target is resolved against the schema.
#[derive(Debug, Clone)]
pub struct Request {
    /// Headers that shape the answer.
    pub headers: Headers,
    /// What is asked.
    pub operation: Operation,
}

/// Headers as far as they shape the answer.
#[derive(Debug, Clone)]
pub struct Headers {
    /// `a:MessageID`, verbatim, for RelatesTo. `None` only for Identify.
    pub message_id: Option<String>,
    /// `a:Action`; the answer's is this + `Response`.
    pub action: String,
    /// `w:ResourceURI` as sent; the OUTPUT element of an invocation has this namespace.
    pub resource_uri: String,
    /// The family of `resource_uri`.
    pub family: Family,
    /// Largest answer in octets: the client's wish, capped by the server's limit.
    pub max_envelope_size: usize,
    /// `w:OperationTimeout`, capped by the server's limit; the server's limit if absent.
    pub timeout: Duration,
    /// What the answer is written in: the best for `w:Locale` (rule H-21).
    pub language: Language,
    /// `msftwinrm:UsePreciseArrays` (rule I-17).
    pub precise_arrays: bool,
    /// `ShowExtensions` (rule H-25): write xsi:type on every property.
    pub show_types: bool,
    /// Options of class declarations (rule C-4).
    pub class_options: ClassOptions,
    /// `w:RequestTotalItemsCountEstimate` was there.
    pub wants_count: bool,
    /// ReferenceParameters of ReplyTo, to be echoed as headers: serialized markup with its own namespace
    /// declarations.
    pub reply_parameters: String,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Operation {
    /// `wsmid:Identify`.
    Identify,
    /// Get of an instance.
    Get(Target),
    /// Get of a class declaration (rule C-1).
    GetClass(Arc<Class>),
    /// Get of `winrm/config` or of a part of it (rule Q-20).
    GetConfig(Part),
    /// Enumerate.
    Enumerate(Enumerate),
    /// Pull.
    Pull(Pull),
    /// Release of the context of that text.
    Release(String),
    /// A method call.
    Invoke(Invoke),
    /// `End`, `Cancel`: answered by an empty 200 (rule H-42).
    End,
}

/// An instance by class and selectors. `path.keys` are typed; all keys are there, some (`path.partial`: they must fit
/// one instance only), or none (`path.keys.is_empty()`: a singleton is meant).
#[derive(Debug, Clone)]
pub struct Target {
    /// The class named by the ResourceURI.
    pub class: Arc<Class>,
    /// Its namespace, class and keys.
    pub path: Path,
}

/// `n:Enumerate`.
#[derive(Debug, Clone)]
pub struct Enumerate {
    /// Which instances.
    pub source: Source,
    /// `w:OptimizeEnumeration` was there.
    pub optimize: bool,
    /// `w:MaxElements`.
    pub max_elements: Option<usize>,
    /// `w:EnumerationMode`.
    pub mode: Mode,
    /// `b:PolymorphismMode`.
    pub polymorphism: Polymorphism,
    /// `n:Expires`.
    pub expires: Option<Expires>,
    /// How many octets it was asked for with, in UTF-8 and without its headers.
    pub octets: usize,
}

/// Which instances are enumerated.
#[derive(Debug, Clone)]
pub enum Source {
    /// Those of the class named by the ResourceURI.
    Class(Arc<Class>),
    /// Those of a class that a filter lets through.
    Select(query::Select),
    /// Those that an object is associated with.
    Related(Box<query::Related>),
    /// Those that an association filter finds.
    Associations(Box<Associations>),
    /// None, but class declarations.
    Classes(ClassList),
}

/// `n:Expires`: as long, or until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// xs:duration.
    After(Duration),
    /// xs:dateTime.
    At(jiff::Timestamp),
}

/// `w:EnumerationMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Instances.
    #[default]
    Object,
    /// `EnumerateEPR`.
    Epr,
    /// `EnumerateObjectAndEPR`.
    ObjectAndEpr,
}

/// `b:PolymorphismMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Polymorphism {
    /// Leaf instances with all their properties.
    #[default]
    IncludeSubClassProperties,
    /// Leaf instances cast to the class asked for.
    ExcludeSubClassProperties,
    /// Instances of exactly the class.
    None,
}

/// `n:Pull`.
#[derive(Debug, Clone)]
pub struct Pull {
    /// `n:EnumerationContext`.
    pub context: String,
    /// `n:MaxElements`.
    pub max_elements: Option<usize>,
    /// `w:MaxElements`, which some clients send in its place; obeyed only where nothing else is given.
    pub max_elements_wsman: Option<usize>,
    /// `n:MaxCharacters`.
    pub max_characters: Option<usize>,
    /// `n:MaxTime`.
    pub max_time: Option<Duration>,
}

/// A method call.
#[derive(Debug, Clone)]
pub struct Invoke {
    /// The object it is called on.
    pub target: Target,
    /// The method, found in the class or a superclass.
    pub method: Arc<Method>,
    /// One value for each parameter in declared order; null where none was given or the parameter is out-only.
    pub arguments: Vec<Value>,
}

impl Headers {
    /// How values are written in the answer.
    #[must_use]
    pub fn style(&self) -> Style {
        Style {
            family: self.family,
            precise_arrays: self.precise_arrays,
            show_types: self.show_types,
        }
    }
}

impl Request {
    /// Reads a request: checks the headers, resolves class, method and selectors, types the values. `host` is the
    /// `Host` header that it came with: the server has this name for its client.
    ///
    /// # Errors
    /// The [`Fault`] that the client gets.
    pub fn parse(
        envelope: &Envelope<'_>,
        schema: &Schema,
        limits: &RequestLimits,
        host: &str,
    ) -> Result<Self, Fault> {
        parse::parse(envelope, schema, limits, host)
    }
}
