//! The CIM model: names, values, classes, instances, object paths, and the texts they are written in.
//!
//! Nothing here does I/O or knows XML envelopes. DSP0004 rules the model, DSP0201 the `<INSTANCE>` text.

pub mod cimxml;
pub mod class;
pub mod datetime;
pub mod instance;
mod lexical;
pub mod mof;
pub mod name;
pub mod path;
pub mod query;
pub mod schema;
pub mod status;
pub mod value;

pub use class::{Class, Embedded, Method, Parameter, Property, Qualifier};
pub use datetime::DateTime;
pub use instance::{Instance, InstanceError};
pub use name::Name;
pub use path::{KeyError, Path, PathError};
pub use schema::{ResolveError, Schema};
pub use status::Status;
pub use value::{Type, TypeError, Value};
