//! A query as it was written: names and places, nothing checked.

use std::fmt;

use super::{Language, Place};

/// A query that was read; [`Statement::check`] makes it usable.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(super) language: Language,
    pub(super) body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Select {
        columns: Columns,
        class: Word,
        alias: Option<Word>,
        condition: Option<Box<Expr>>,
    },
    Related {
        kind: RelatedKind,
        /// What stands in the braces.
        object: Word,
        clauses: Vec<(Clause, Word)>,
    },
}

/// What is selected.
#[derive(Debug, Clone)]
pub(super) enum Columns {
    /// `*`, in CQL perhaps with class or alias before it.
    All(Option<Word>),
    Of(Vec<Property>),
}

/// Which related instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelatedKind {
    /// The instances at the other end of associations.
    Associators,
    /// The associations themselves.
    References,
}

/// What restricts [`Body::Related`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    ResultClass,
    AssocClass,
    Role,
    ResultRole,
    RequiredQualifier,
    RequiredAssocQualifier,
    KeysOnly,
    ClassDefsOnly,
    SchemaOnly,
}

impl Clause {
    pub(super) const ALL: [Self; 9] = [
        Self::ResultClass,
        Self::AssocClass,
        Self::Role,
        Self::ResultRole,
        Self::RequiredQualifier,
        Self::RequiredAssocQualifier,
        Self::KeysOnly,
        Self::ClassDefsOnly,
        Self::SchemaOnly,
    ];

    pub(super) const fn keyword(self) -> &'static str {
        match self {
            Self::ResultClass => "ResultClass",
            Self::AssocClass => "AssocClass",
            Self::Role => "Role",
            Self::ResultRole => "ResultRole",
            Self::RequiredQualifier => "RequiredQualifier",
            Self::RequiredAssocQualifier => "RequiredAssocQualifier",
            Self::KeysOnly => "KeysOnly",
            Self::ClassDefsOnly => "ClassDefsOnly",
            Self::SchemaOnly => "SchemaOnly",
        }
    }

    /// Does `= name` follow?
    pub(super) const fn takes_name(self) -> bool {
        !matches!(
            self,
            Self::KeysOnly | Self::ClassDefsOnly | Self::SchemaOnly
        )
    }
}

/// A name and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// A property, perhaps with class or alias before it, and in CQL with the number of an element behind it.
#[derive(Debug, Clone)]
pub(super) struct Property {
    pub(super) qualifier: Option<Word>,
    pub(super) name: Word,
    /// From 0.
    pub(super) index: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Property(Property),
    Literal(Literal, Place),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Boolean(bool),
    Integer(i128),
    Real(f64),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Op {
    pub(super) fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" => Self::Equal,
            "<>" | "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The operator with its sides exchanged.
    pub(super) const fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    /// Is it `=` or `<>`?
    pub(super) const fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }

    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// A condition. INVARIANT: nested at most `DEPTH_MAX` deep, because the parser refuses more.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compare(Operand, Op, Operand),
    Like(Property, Word),
    IsNull(Property),
    IsA(Property, Word),
    /// `ANY x IN array SATISFIES (…)`, or EVERY.
    Each {
        every: bool,
        variable: Word,
        array: Property,
        inner: Box<Self>,
    },
}

/// The query in one canonical form.
impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Select {
                columns,
                class,
                alias,
                condition,
            } => {
                match columns {
                    Columns::All(None) => f.write_str("SELECT *")?,
                    Columns::All(Some(qualifier)) => write!(f, "SELECT {qualifier}.*")?,
                    Columns::Of(columns) => {
                        for (n, column) in columns.iter().enumerate() {
                            let before = if n == 0 { "SELECT " } else { ", " };
                            write!(f, "{before}{column}")?;
                        }
                    }
                }
                write!(f, " FROM {class}")?;
                if let Some(alias) = alias {
                    write!(f, " AS {alias}")?;
                }
                match condition {
                    Some(condition) => write!(f, " WHERE {condition}"),
                    None => Ok(()),
                }
            }
            Body::Related {
                kind,
                object,
                clauses,
            } => {
                let verb = match kind {
                    RelatedKind::Associators => "ASSOCIATORS",
                    RelatedKind::References => "REFERENCES",
                };
                write!(f, "{verb} OF {{{object}}}")?;
                for (n, (clause, value)) in clauses.iter().enumerate() {
                    let before = if n == 0 { " WHERE " } else { " " };
                    write!(f, "{before}{}", clause.keyword())?;
                    if clause.takes_name() {
                        f.write_str(" = ")?;
                        quoted(f, &value.text)?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => list(f, parts, " AND ", |p| {
                matches!(p, Self::All(_) | Self::Any(_))
            }),
            Self::Any(parts) => list(f, parts, " OR ", |p| matches!(p, Self::Any(_))),
            Self::Not(inner) => match &**inner {
                Self::All(_) | Self::Any(_) => write!(f, "NOT ({inner})"),
                // Written so that it is nested no deeper than it was read.
                Self::IsNull(property) => write!(f, "{property} IS NOT NULL"),
                Self::Like(property, pattern) => {
                    write!(f, "{property} NOT LIKE ")?;
                    quoted(f, &pattern.text)
                }
                _ => write!(f, "NOT {inner}"),
            },
            Self::Compare(left, op, right) => write!(f, "{left} {} {right}", op.sign()),
            Self::Like(property, pattern) => {
                write!(f, "{property} LIKE ")?;
                quoted(f, &pattern.text)
            }
            Self::IsNull(property) => write!(f, "{property} IS NULL"),
            Self::IsA(property, class) => {
                write!(f, "{property} ISA ")?;
                quoted(f, &class.text)
            }
            Self::Each {
                every,
                variable,
                array,
                inner,
            } => {
                let which = if *every { "EVERY" } else { "ANY" };
                write!(f, "{which} {variable} IN {array} SATISFIES ({inner})")
            }
        }
    }
}

pub(super) fn list<E: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    parts: &[E],
    between: &str,
    in_parentheses: fn(&E) -> bool,
) -> fmt::Result {
    for (n, part) in parts.iter().enumerate() {
        let before = if n == 0 { "" } else { between };
        match in_parentheses(part) {
            true => write!(f, "{before}({part})")?,
            false => write!(f, "{before}{part}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Property(property) => property.fmt(f),
            Self::Literal(literal, _) => literal.fmt(f),
        }
    }
}

impl crate::text::Word for Literal {}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(true) => f.write_str("TRUE"),
            Self::Boolean(false) => f.write_str("FALSE"),
            Self::Integer(n) => n.fmt(f),
            Self::Real(n) => write!(f, "{n:e}"),
            Self::Text(text) => quoted(f, text),
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(qualifier) = &self.qualifier {
            write!(f, "{qualifier}.")?;
        }
        self.name.fmt(f)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    for c in text.chars() {
        if matches!(c, '\\' | '\'' | '"') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("'")
}
