//! Providers: each implements one or more CIM classes. It builds instances from inventory records and carries out
//! methods.
//!
//! A provider sees `cim` values only, no XML. The registry is complete at start: the program does not start with a
//! concrete class of the schema that has no provider and is not listed as embedded-only.

mod pace;
pub mod registry;
pub mod roles;
pub mod virtualization;

pub use crate::cim::Status;
pub use pace::Pace;
pub use registry::{Depth, Registry, RegistryError, Traversal};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::audit::About;
use crate::cim::query::Equality;
use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{Class, Instance, InstanceError, Method, Path, Schema, Value};
use crate::handler::Identity;
use crate::text::catalog::provider as texts;
use crate::text::{Language, Text};

/// What a provider needs to know about the call it serves.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who calls.
    pub identity: Identity,
    /// What its answer is written in.
    pub language: Language,
    /// The schema.
    pub schema: Arc<Schema>,
    /// How long the client waits for the answer: its OperationTimeout, at most the server's.
    pub timeout: Duration,
    /// When an evaluation gives its place up. A walk over instances asks it, a look-up does not.
    pub pace: Pace,
}

/// Instances one by one, made as they are asked for. Holds its own view of the state: what is deleted
/// after the start may still come, what is created may not. Never blocks, and opens no file. Where its turn is over
/// [`Error::paused`] comes in place of an instance, and the next call goes on.
pub type Instances = Box<dyn Iterator<Item = Result<Instance, Error>> + Send>;

/// The arguments of a call: one value for each input parameter of the method, in declared order;
/// null where the client gave none. References and embedded texts are already `cim` values or text.
#[derive(Debug, Clone)]
pub struct Arguments {
    method: Arc<Method>,
    values: Vec<Value>,
}

impl Arguments {
    /// Arguments for `method`; `values` runs parallel to its parameters, out-only ones null.
    #[must_use]
    pub fn new(method: impl Into<Arc<Method>>, values: Vec<Value>) -> Self {
        Self {
            method: method.into(),
            values,
        }
    }

    /// Every argument made anew.
    #[must_use]
    pub(crate) fn map(self, make: impl FnMut(Value) -> Value) -> Self {
        Self {
            values: self.values.into_iter().map(make).collect(),
            ..self
        }
    }

    /// Name and value of each, in declared order.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Value)> {
        let names = self.method.parameters.iter().map(|p| p.name.as_str());
        names.zip(&self.values)
    }

    /// The argument of that name; null if it is not there.
    #[must_use]
    pub fn get(&self, parameter: &str) -> &Value {
        self.method
            .parameters
            .iter()
            .position(|p| p.name == *parameter)
            .and_then(|n| self.values.get(n))
            .unwrap_or(&Value::Null)
    }
}

/// What a method gave back.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// ReturnValue.
    pub return_value: Value,
    /// Output parameters that have a value, by name; the others are null.
    pub outputs: Vec<(&'static str, Value)>,
    /// Has the call changed anything? Then an answer that cannot be sent is an UnreportableSuccess.
    pub changed: bool,
}

/// A CIM-level error; becomes a fault in `wsman::fault`. A method's own failure is an [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .text.english())]
pub struct Error {
    /// Which one.
    pub status: Status,
    /// For the client.
    pub text: Text,
    paused: bool,
}

impl Error {
    /// An error of this status.
    #[must_use]
    pub const fn new(status: Status, text: Text) -> Self {
        Self {
            status,
            text,
            paused: false,
        }
    }

    /// No error: the turn of an evaluation is over ([`Pace`]).
    #[must_use]
    pub fn paused() -> Self {
        Self {
            paused: true,
            ..Self::new(Status::Failed, texts::PAUSED.text())
        }
    }

    /// Is it [`Error::paused`]?
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }
}

/// A value that does not fit the class is a mistake in a provider, not of the client.
impl From<InstanceError> for Error {
    fn from(error: InstanceError) -> Self {
        Self::new(
            Status::Failed,
            texts::INSTANCE_NOT_BUILT.with("reason", error),
        )
    }
}

/// Implements one or more classes.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The namespace of its classes.
    fn namespace(&self) -> &'static str {
        VIRTUALIZATION_V2
    }

    /// The concrete classes it serves.
    fn classes(&self) -> &'static [&'static str];

    /// Has the class one instance by nature, as a service has? Then it needs no keys to be named (rule X-2).
    fn is_singleton(&self, _class: &Class) -> bool {
        false
    }

    /// All instances of exactly `class` (one of [`Provider::classes`]), not of subclasses.
    ///
    /// # Errors
    /// [`Error`] if they cannot be listed at all.
    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error>;

    /// How many instances there are, if that is known without making them.
    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        None
    }

    /// The instance with these keys (typed by the schema), or `None`. A lookup, not a scan.
    ///
    /// # Errors
    /// [`Error`] for anything but absence.
    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error>;

    /// Instances of exactly `class` among which are all that satisfy `wanted`, found without making the others;
    /// `None` where there is no quicker way than [`Provider::enumerate`]. Instances by all their keys and
    /// associations by one of their references are found by the registry.
    ///
    /// # Errors
    /// [`Error`] if they cannot be listed at all.
    fn select(
        &self,
        _ctx: &Context,
        _class: &Arc<Class>,
        _wanted: &[Equality],
    ) -> Result<Option<Instances>, Error> {
        Ok(None)
    }

    /// Where `class` is an association: its instances whose reference `role` means the object at `to`. Only
    /// these are looked at. Empty if there is no such object.
    ///
    /// # Errors
    /// [`Status::NotSupported`] where `class` is no association.
    fn references(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        _role: &str,
        _to: &Path,
    ) -> Result<Instances, Error> {
        let text = texts::NO_ASSOCIATION.with("class", &class.name);
        Err(Error::new(Status::NotSupported, text))
    }

    /// What a call on the object is about, as far as these parameters or results tell: for the log and the audit.
    fn about(&self, _ctx: &Context, _path: &Path, _values: &[(&str, &Value)]) -> About {
        About::default()
    }

    /// Calls a method on an instance that exists.
    ///
    /// # Errors
    /// [`Error`] for CIM-level errors only.
    async fn invoke(
        &self,
        ctx: &Context,
        path: &Path,
        method: &Method,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let _ = (ctx, path, arguments);
        Err(Error::new(
            Status::MethodNotAvailable,
            texts::METHOD_NOT_AVAILABLE.with("method", &method.name),
        ))
    }
}
