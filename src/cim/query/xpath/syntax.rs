//! An XPath filter as it was written: names and places, nothing checked.

use std::fmt;

use crate::cim::query::Place;
use crate::cim::query::syntax::{Literal, Op, Word, list};

/// A condition. INVARIANT: nested at most `DEPTH_MAX` deep, because the parser refuses more.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compare(Operand, Op, Operand),
    /// A string function that is true or false.
    Part(Part, Path, Word),
    /// Is there such a node?
    Exists(Path),
}

/// Which part of a text another text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `starts-with()`
    Start,
    /// `contains()`
    Anywhere,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Path(Path),
    Literal(Literal, Place),
}

/// A location path. INVARIANT: at least one step.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// It begins with `/`.
    pub(super) absolute: bool,
    pub(super) place: Place,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// `.`
    This,
    /// `text()`
    Text(Place),
    /// `@name`
    Attribute(Name),
    /// `name[…]…`
    Child(Name, Vec<Predicate>),
}

/// A name, whose prefix means nothing: all elements of an instance are of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) prefix: Option<String>,
    pub(super) local: Word,
}

#[derive(Debug, Clone)]
pub(super) enum Predicate {
    /// `[n]`
    Position(i128, Place),
    Condition(Expr),
}

impl Part {
    pub(super) const ALL: [Self; 2] = [Self::Start, Self::Anywhere];

    pub(super) const fn function(self) -> &'static str {
        match self {
            Self::Start => "starts-with",
            Self::Anywhere => "contains",
        }
    }
}

/// The condition in one canonical form.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => list(f, parts, " and ", |p| {
                matches!(p, Self::All(_) | Self::Any(_))
            }),
            Self::Any(parts) => list(f, parts, " or ", |p| matches!(p, Self::Any(_))),
            Self::Not(inner) => write!(f, "not({inner})"),
            Self::Compare(left, Op::NotEqual, right) => write!(f, "{left} != {right}"),
            Self::Compare(left, op, right) => write!(f, "{left} {} {right}", op.sign()),
            Self::Part(part, path, text) => {
                write!(f, "{}({path}, ", part.function())?;
                quoted(f, &text.text)?;
                f.write_str(")")
            }
            Self::Exists(path) => path.fmt(f),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Literal(Literal::Text(text), _) => quoted(f, text),
            // XPath knows no exponents.
            Self::Literal(Literal::Real(n), _) => n.fmt(f),
            Self::Literal(literal, _) => literal.fmt(f),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.steps.iter().enumerate() {
            if n > 0 || self.absolute {
                f.write_str("/")?;
            }
            step.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::This => f.write_str("."),
            Self::Text(_) => f.write_str("text()"),
            Self::Attribute(name) => write!(f, "@{name}"),
            Self::Child(name, predicates) => {
                name.fmt(f)?;
                predicates.iter().try_for_each(|p| match p {
                    Predicate::Position(n, _) => write!(f, "[{n}]"),
                    Predicate::Condition(condition) => write!(f, "[{condition}]"),
                })
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(prefix) = &self.prefix {
            write!(f, "{prefix}:")?;
        }
        self.local.fmt(f)
    }
}

/// A text that was read from quotes of one kind does not hold that kind.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') { '"' } else { '\'' };
    write!(f, "{quote}{text}{quote}")
}
