//! Queries over instances: WQL, the part of CQL (DSP0202) that asks for instances of one class, and, as filters of one
//! class, selectors and XPath.
//!
//! ```text
//!   text ──lexer──▶ tokens ──parser──▶ Statement ──check──▶ Query ──▶ Filter::matches(instance)
//!                                     (as written)      (against the schema)
//! ```
//!
//! Only a checked [`Query`] can be carried out: its classes and properties exist, every literal has the type of
//! the property it is compared with. An [`Error`] tells the line and the column and what was expected there.
//!
//! A comparison with a null property is neither true nor false, and so is what NOT makes of it; an instance is
//! given only where the whole condition is true (XPath alone has two truths: what is not true is false). WQL and
//! selectors compare strings without case, as WMI does; CQL and XPath with case.

mod check;
mod cursor;
mod effort;
mod filter;
mod lexer;
mod like;
mod parser;
mod selector;
mod syntax;
#[cfg(test)]
mod tests;
mod tokens;
mod xpath;

use std::fmt;
use std::sync::Arc;

use super::class::Class;
use super::instance::Instance;
use super::name::Name;
use super::path::Path;
use super::schema::Schema;
use super::status::Status;
use super::value::Value;
use crate::text::{Argument, Message, Text};

pub use effort::{Effort, Stopped};
pub use filter::{Column, Filter};
pub use parser::parse;
pub use selector::select as selector_filter;
pub use syntax::{RelatedKind, Statement};
pub use xpath::{fuzz as fuzz_xpath, select as xpath_filter};

/// The longest query, in bytes.
pub const LENGTH_MAX: usize = 32 * 1024;
/// The deepest nesting of parentheses and NOT.
pub const DEPTH_MAX: usize = 32;
/// The most comparisons of a query, and the most columns.
pub const TERMS_MAX: usize = 512;

/// A query language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// WQL.
    Wql,
    /// CQL, DSP0202.
    Cql,
}

/// What a query is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The classes.
    pub schema: &'a Schema,
    /// The namespace that is asked, with `/`.
    pub namespace: &'a str,
    /// The name of this host, for paths that name one.
    pub host: &'a str,
}

/// A checked query.
#[derive(Debug, Clone)]
pub enum Query {
    /// `SELECT … FROM …`
    Select(Select),
    /// `ASSOCIATORS OF` and `REFERENCES OF`.
    Related(Box<Related>),
}

/// A checked `SELECT`.
#[derive(Debug, Clone)]
pub struct Select {
    /// The class in FROM; instances of subclasses belong to the result under their own names.
    pub class: Arc<Class>,
    /// The properties to be told, each once, in the order of their names; `None` for `*`.
    pub columns: Option<Arc<[Column]>>,
    /// Which instances.
    pub filter: Filter,
}

/// A checked `ASSOCIATORS OF` or `REFERENCES OF`.
#[derive(Debug, Clone)]
pub struct Related {
    /// Which of the two.
    pub kind: RelatedKind,
    /// The object, resolved against the schema.
    pub object: Path,
    /// `ResultClass`: associated instances, or associations, of this class or below it.
    pub result_class: Option<Arc<Class>>,
    /// `AssocClass`: only through associations of this class or below it.
    pub assoc_class: Option<Arc<Class>>,
    /// `Role`: the reference that means the object.
    pub role: Option<Name>,
    /// `ResultRole`: the reference that means the result.
    pub result_role: Option<Name>,
    /// `RequiredQualifier`: the class of the result has this qualifier.
    pub required_qualifier: Option<Name>,
    /// `RequiredAssocQualifier`: the class of the association has this qualifier.
    pub required_assoc_qualifier: Option<Name>,
    /// `KeysOnly`: every property but the keys is null.
    pub keys_only: bool,
}

/// A property that every instance of the result has with this value: it can be looked up.
#[derive(Debug, Clone, PartialEq)]
pub enum Equality {
    /// The property has this value, strings without regard to case.
    Property(Name, Value),
    /// The instance is the one at this path.
    Object(Path),
}

/// A query that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// [`Status::InvalidQuery`] or [`Status::InvalidClass`].
    pub status: Status,
    /// What is wrong, and where.
    pub text: Text,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.english())
    }
}

impl std::error::Error for Error {}

/// A place in the text of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    /// From 1.
    line: u32,
    /// From 1, in characters.
    column: u32,
}

impl Place {
    fn error(self, message: Message) -> Error {
        Error {
            status: Status::InvalidQuery,
            text: message.with("line", self.line).with("column", self.column),
        }
    }
}

impl Error {
    fn with(mut self, name: &'static str, value: impl Into<Argument>) -> Self {
        self.text = self.text.with(name, value);
        self
    }
}

impl Query {
    /// Reads and checks a query.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(language: Language, text: &str, scope: &Scope<'_>) -> Result<Self, Error> {
        parse(language, text)?.check(scope)
    }
}

impl Select {
    /// For the fuzz targets: asks the filter about an instance that has nothing but an array.
    fn try_out(&self) {
        let instance = Instance::new(&self.class);
        let with_array = instance.clone().with("OperationalStatus", vec![2_u16, 3]);
        let _ = self.filter.matches(&with_array.unwrap_or(instance));
    }
}

/// Fuzz entry: what can be read is also read from its own text and is the same, and checking never fails
/// otherwise than by an error, nor carrying out by much time.
#[must_use]
pub fn fuzz(language: Language, text: &str, schema: &Schema) -> bool {
    let Ok(statement) = parse(language, text) else {
        return true;
    };
    let scope = Scope {
        schema,
        namespace: super::schema::VIRTUALIZATION_V2,
        host: "HOST",
    };
    if let Ok(Query::Select(select)) = statement.check(&scope) {
        select.try_out();
    }
    let written = statement.to_string();
    // The written form may be longer than what was read.
    written.len() > LENGTH_MAX
        || parse(language, &written).is_ok_and(|again| again.to_string() == written)
}
